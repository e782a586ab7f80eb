"""The VAE-Transformer recipe's tables and figure, of results that are there."""

from __future__ import annotations

import json
from pathlib import Path

import vae_transformer_figure as figure
import vae_transformer_paper as papers
import vae_transformer_tables as tables
from helpers.scripts import squeezed
from vae_transformer_results import write_results

from fairseq_vat.cli.tables import MISSING


def evaluated(
    out: Path, name: str, ppl: float, kl: float = 0.0, mi: float = 0.0, width: int = 64
) -> None:
    system, _, annealing = name.rpartition("-")
    folder = out / "ptb" / f"{name}-{width}"
    folder.mkdir(parents=True)
    nll = {"ppl_per_token": ppl, "per_sentence": ppl + 3}
    found: dict = {"nll": nll}
    if annealing != "lm":
        found = {"nll_samples": nll, "kl_nats": kl, "mi_batches": {"unpaired": mi, "paired": mi}}
    language_model = annealing == "lm"
    run = {"data": "ptb", "system": system, "annealing": None if language_model else annealing}
    run |= {"latent_dim": None if language_model else width, "seed": 1, "epochs": 3}
    run |= {"stopped": "patience", "best_epoch": 2, "checkpoint": "checkpoint_best.pt"}
    run |= {"evaluate": found}
    (folder / "result.json").write_text(json.dumps(run))


def test_a_figure_has_a_point_for_each_run(tmp_path, monkeypatch):
    (tmp_path / "ptb" / "data-bin").mkdir(parents=True)
    (tmp_path / "ptb" / "data-bin" / "dict.txt").write_text("a 1\n")
    evaluated(tmp_path, "vae_lstm-cyclic", 80, kl=4.0, mi=2.0)
    evaluated(tmp_path, "vae_lstm-linear", 85, kl=3.0, mi=2.0, width=32)
    evaluated(tmp_path, "lstm_decoder_lm-lm", 90)
    drawn = []
    monkeypatch.setattr(figure, "save_figure", lambda made, path: drawn.append((made, path)))
    document = document_of(tmp_path)
    ((made, path),) = drawn
    assert path == tmp_path / "results" / "rate-distortion-ptb.png"
    assert f"]({path.name})" in document  # once, of both widths
    (axes,) = made.axes
    points = [tuple(point) for one in axes.collections for point in one.get_offsets()]
    assert sorted(points) == [(0.0, 93.0), (3.0, 88.0), (4.0, 83.0)]
    hollow = [one for one in axes.collections if not len(one.get_facecolor())]
    assert [tuple(one.get_offsets()[0]) for one in hollow] == [(3.0, 88.0)]
    (line,) = axes.lines  # the language model's likelihood
    assert list(line.get_xdata()) == [0, 4.0] and list(line.get_ydata()) == [93.0, 89.0]


def document_of(out: Path) -> str:
    write_results(out)
    tables.write_markdown(out / "results")
    return squeezed((out / "results" / "tables.md").read_text())


def test_claims_are_answered_by_the_figures(tmp_path):
    (tmp_path / "ptb" / "data-bin").mkdir(parents=True)
    (tmp_path / "ptb" / "data-bin" / "dict.txt").write_text("a 1\n")
    evaluated(tmp_path, "vae_transformer-cyclic", 80, 4, 2)
    evaluated(tmp_path, "vae_transformer-linear", 90, 5, 1)  # more KL than cyclic
    evaluated(tmp_path, "vae_transformer-none", 100, 0.01, 0.02)
    evaluated(tmp_path, "vae_lstm-cyclic", 79, 0.5, 0.4)
    evaluated(tmp_path, "vae_lstm-none", 101, 0.2, 0.0)
    evaluated(tmp_path, "transformer_decoder_lm-lm", 95)
    document = document_of(tmp_path)
    answers = [line for line in document.splitlines() if line.startswith("| (")]

    def answer(*parts: str) -> str:
        (line,) = [line for line in answers if all(part in line for part in parts)]
        return line.split("|")[-2].strip()

    assert answer("(a)", "VAE-Transformer") == "yes"
    assert answer("(a)", "VAE-LSTM") == "no"
    assert answer("(b)", "VAE-Transformer") == "no"
    assert not any("(b)" in line and "VAE-LSTM" in line for line in answers)
    assert answer("(c)", "(cyclic)", "Transformer decoder's") == "yes"
    assert answer("(c)", "(none)", "Transformer decoder's") == "no"
    assert answer("(c)", "(cyclic)", "VAE-LSTM's") == "no"
    assert not any("(linear)" in line and "VAE-LSTM" in line for line in answers)


def test_times_and_parameters_stand_beside_the_papers(tmp_path):
    (tmp_path / "wikitext2" / "data-bin").mkdir(parents=True)
    found = {"seconds": {"vae_gru": 20.0, "vae_gru_1024": 200.0}, "vocabulary": 30522}
    found |= {"device": "cpu", "threads": 2, "torch": "2", "batches": 32, "batches_in_all": 2000}
    found |= {"batch_size": 32, "repeats": 3, "precision": "bfloat16"}
    (tmp_path / "wikitext2" / "time.json").write_text(json.dumps({"output": found}))
    counted = {"vocabulary": 30522, "parameters": {"lstm_decoder_lm": 8077824}}
    (tmp_path / "parameters.json").write_text(json.dumps({"output": counted}))
    document = document_of(tmp_path)
    assert "| VAE-GRU | 20.00 | 16.44 | 200.00 | 182.79 |" in document
    assert "32 of 2,000 batches, scaled to all of them" in document
    assert "| LSTM | 128 | 8,077,824 | 8,108,346 | -30,522 |" in document
    assert f"| VAE-GRU | 1024 | {MISSING} | 75,575,738 | {MISSING} |" in document


def test_every_row_of_the_papers_tables_is_whole():
    widths = {"TABLE_2": 12, "TABLE_5": 12, "TABLE_6": 12, "TABLE_7": 4, "TABLE_8": 2}
    for table, width in widths.items():
        for line in getattr(papers, table).strip().splitlines():
            name, *figures = line.split()
            assert len(figures) == (4 if name.endswith("-lm") else width), line
            assert name in papers.RUNS or name in papers.NAMES, line
