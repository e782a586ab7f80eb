"""The paper's tables: the script's steps with commands that only pretend, and what it collects."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import vae_transformer_tables as tables
from helpers.scripts import Workplace

from fairseq_vat.cli.tables import MISSING

# what the real commands would leave
PRETEND = """
if name == "fairseq-preprocess":
    folder = Path(value("--destdir"))
    folder.mkdir(parents=True)
    (folder / "dict.txt").write_text("a 1\\nb 1\\n")
if name == "fairseq-train":
    last = Path(value("--save-dir")) / "checkpoint_last.pt"
    if os.environ.get("FAIL", "nothing") in str(last):
        sys.exit("no memory is left")
    with zipfile.ZipFile(last, "w") as file:
        file.writestr("data", "x")
    with open(value("--log-file"), "a") as file:
        file.write("epoch 003 | valid on 'valid' subset | loss 1 | num_updates 9\\n")
        file.write("epoch 002 | loss 1 | num_updates 8\\n")
if name == "fairseq-vat" and args[0] == "evaluate":
    print(json.dumps({"nll_samples": {"ppl_per_token": 70.5}, "kl_nats": 6.25}))
if name == "fairseq-vat" and args[0] == "classify":
    split = {"loss": 0.5, "accuracy": 75.0}
    scores = dict.fromkeys(("train", "valid", "test"), split)
    print(json.dumps(
        {"classifier": scores, "logistic_regression": scores, "majority": scores,
         "seeds": 5, "epochs": 20}
    ))
"""


@pytest.fixture
def work(tmp_path: Path) -> Workplace:
    """A folder with toy data sets."""
    for name in ("ptb", "sst2"):
        (tmp_path / name).mkdir()
    for split, count in (("train", 70), ("valid", 3), ("test", 3)):
        lines = [" a <unk> b \n"] * count
        (tmp_path / "ptb" / f"{split}.txt").write_text("".join(["\n", *lines]))
        split = split.replace("valid", "dev")
        (tmp_path / "sst2" / f"{split}.tsv").write_text("1\ta <unk>\n0\tb a\n")
    return Workplace(tmp_path, "reproduce_vae_transformer.sh", PRETEND)


SMALL = ("--epochs", "20", "--systems", "vae_transformer,gru_decoder_lm", "--tables", "2,3")


def squeezed(text: str) -> str:
    """A table without the spaces that fill its columns up."""
    return re.sub(" +", " ", text)


def flag(args: list[str], name: str) -> str:
    return args[args.index(name) + 1]


def test_every_step_is_done_once(work):
    both = (
        *SMALL,
        "--annealings",
        "linear,cyclic",
        "--latent-dim",
        "64,32",
        "ptb=ptb",
        "sst2=sst2",
    )
    done = work.run("out", *both, "--jobs", "2")
    assert done.returncode == 0, done.stderr
    trained = {
        flag(args, "--save-dir").split("/out/")[1]: args for args in work.calls("fairseq-train")
    }
    expected = {f"{data}/z64/gru_decoder_lm-lm" for data in ("ptb", "sst2")} | {
        f"{data}/z{width}/vae_transformer-{annealing}"
        for data in ("ptb", "sst2")
        for width in (64, 32)
        for annealing in ("linear", "cyclic")
    }
    assert set(trained) == expected
    measured = work.calls("fairseq-vat")
    assert len(measured) == len(expected) + 2  # sst2's cyclic runs classify
    classified = [call for call in measured if "classify" in call]
    assert len(classified) == 2
    assert all(flag(call, "--protocol") == "paper" for call in classified)
    ptb = trained["ptb/z32/vae_transformer-cyclic"]
    assert flag(ptb, "--latent-dim") == "32"
    # 20 epochs of ceil(70 / 32) batches; ten of them a cosine
    assert flag(ptb, "--kl-annealing-updates") == "60"
    assert flag(ptb, "--lr-period-updates") == "30"
    assert flag(ptb, "--lr") == "1e-3" and "--cpu" in ptb
    assert flag(ptb, "--required-batch-size-multiple") == "1"
    assert flag(trained["ptb/z64/vae_transformer-linear"], "--kl-annealing-updates") == "30"
    assert flag(trained["sst2/z64/vae_transformer-linear"], "--lr") == "1e-4"
    assert "--kl-annealing" not in trained["ptb/z64/gru_decoder_lm-lm"]
    assert (work.folder / "out" / "ptb" / "text" / "valid.txt").read_text() == " a <unk> b \n" * 3
    document = squeezed((work.folder / "out" / "tables.md").read_text())
    assert "| VAE-Transformer | cyclic | 2 | 70.50 | 75.65 | 6.25 | 4.40 | 2.45 |" in document
    assert "| VAE-Transformer | 0.500 | 0.630 | 0.750 | 0.689 |" in document

    again = work.run("out", *both)
    assert again.returncode == 0
    assert not work.calls("fairseq-train") + work.calls("fairseq-vat")
    other = work.run("out", *SMALL, "--vocabulary", "100", "ptb=ptb")
    assert other.returncode == 1 and "is made of words; use another OUT" in other.stderr


def test_a_failure_leaves_the_other_runs_and_a_second_try(work):
    few = (*SMALL, "--annealings", "cyclic", "ptb=ptb")
    failed = work.run("out", *few, FAIL="gru_decoder_lm")
    assert failed.returncode == 1
    assert "fairseq-train failed: no memory is left" in failed.stderr
    document = squeezed((work.folder / "out" / "tables.md").read_text())
    assert f"| GRU | | {MISSING} | {MISSING} | 89.92" not in document  # of table 5, not 2
    assert f"| GRU | | {MISSING} | {MISSING} | {MISSING} |" in document
    assert "| VAE-Transformer | cyclic | 2 | 70.50 |" in document
    assert work.run("out", *few).returncode == 0
    assert len(work.calls("fairseq-train")) == 1
    # a run that was begun with other flags isn't gone on with
    (work.folder / "out" / "ptb" / "z64" / "gru_decoder_lm-lm" / "done").unlink()
    other = work.run("out", *few, "--epochs", "3")
    assert other.returncode == 1 and "was made with other flags or texts" in other.stderr
    assert not work.calls("fairseq-train")


def test_dry_run_prints_commands_and_does_nothing(work):
    done = work.run("out", "--dry-run", "--epochs", "5", "ptb=ptb", "--", "--no-bleu")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum(line.startswith("fairseq-train ") for line in lines) == 12
    assert sum(line.endswith("/evaluate.json") and "--no-bleu" in line for line in lines) == 12
    assert lines[0].startswith("fairseq-preprocess --only-source")
    assert not (work.folder / "out").exists()
    assert not work.calls("fairseq-train")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["out"], "give at least one data set"),
        (["out", "nothing"], "nothing: give NAME=DIR"),
        (["out", "ptb=nowhere"], "has neither train.txt nor train.tsv"),
        (["out", "ptb=ptb", "--epochs", "0"], "--epochs 0: must be a whole number, at least 1"),
        (["out", "ptb=ptb", "--systems", "vae_rnn"], "--systems vae_rnn: must be among"),
        (["out", "ptb=ptb", "--systems", "vae_gpt2"], "needs --gpt2 DIR"),
        (["out", "ptb=ptb", "--tables", "9"], "--tables 9: must be among"),
        (["out", "ptb=ptb", "--tables", "3"], "needs a data set with train.tsv"),
        (["out", "ptb=ptb", "--epoch", "3"], "--epoch: there is no such option"),
        (["out", "ptb=ptb", "--gpt2", "ptb"], "has no config.json"),
    ],
)
def test_mistakes_are_one_line(work, flags, message):
    done = work.run(*flags)
    assert done.returncode == 1
    assert message in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (work.folder / "out").exists()


def evaluated(folder: Path, name: str, ppl: float, kl: float = 0.0, mi: float = 0.0) -> None:
    (folder / name).mkdir(parents=True)
    nll = {"ppl_per_token": ppl}
    found: dict = {"nll": nll}
    if not name.endswith("-lm"):
        found = {"nll_samples": nll, "kl_nats": kl, "mi_batches": {"unpaired": mi, "paired": mi}}
    (folder / name / "evaluate.json").write_text(json.dumps(found))


def test_claims_are_answered_by_the_figures(tmp_path):
    (tmp_path / "ptb" / "data-bin").mkdir(parents=True)
    runs = tmp_path / "ptb" / "z64"
    evaluated(runs, "vae_transformer-cyclic", 80, 4, 2)
    evaluated(runs, "vae_transformer-linear", 90, 5, 1)  # more KL than cyclic
    evaluated(runs, "vae_transformer-none", 100, 0.01, 0.02)
    evaluated(runs, "vae_lstm-cyclic", 79, 0.5, 0.4)
    evaluated(runs, "vae_lstm-none", 101, 0.2, 0.0)
    evaluated(runs, "transformer_decoder_lm-lm", 95)
    (runs / "vae_lstm-linear").mkdir()  # still training
    document = squeezed(tables.tables(tmp_path, {"2"}))
    answers = [line for line in document.splitlines() if line.startswith("| (")]

    def answer(*parts: str) -> str:
        (line,) = [line for line in answers if all(part in line for part in parts)]
        return line.split("|")[-2].strip()

    assert answer("(a)", "VAE-Transformer") == "yes"
    assert answer("(a)", "VAE-LSTM") == "no"
    assert answer("(b)", "VAE-Transformer") == "no"
    assert answer("(b)", "VAE-LSTM") == MISSING
    assert answer("(c)", "(cyclic)", "Transformer decoder's") == "yes"
    assert answer("(c)", "(none)", "Transformer decoder's") == "no"
    assert answer("(c)", "(cyclic)", "VAE-LSTM's") == "no"
    assert answer("(c)", "(linear)", "VAE-LSTM's") == MISSING


def test_times_and_parameters_stand_beside_the_papers(tmp_path):
    (tmp_path / "wikitext2" / "data-bin").mkdir(parents=True)
    found = {"seconds": {"vae_gru": 20.0, "vae_gru_1024": 200.0}, "vocabulary": 30522}
    found |= {"device": "cpu", "threads": 2, "torch": "2", "batches": 32, "batches_in_all": 2000}
    found |= {"batch_size": 32, "repeats": 3}
    (tmp_path / "wikitext2" / "time.json").write_text(json.dumps(found))
    counted = {"vocabulary": 30522, "parameters": {"lstm_decoder_lm": 8077824}}
    (tmp_path / "parameters.json").write_text(json.dumps(counted))
    document = squeezed(tables.tables(tmp_path, {"7", "8"}))
    assert "| VAE-GRU | 20.00 | 16.44 | 200.00 | 182.79 |" in document
    assert "32 of 2,000 batches, scaled to all of them" in document
    assert "| LSTM | 128 | 8,077,824 | 8,108,346 | -30,522 |" in document
    assert f"| VAE-GRU | 1024 | {MISSING} | 75,575,738 | {MISSING} |" in document


def test_every_row_of_the_papers_tables_is_whole():
    widths = {"TABLE_2": 12, "TABLE_5": 12, "TABLE_6": 12, "TABLE_7": 4, "TABLE_8": 2}
    for table, width in widths.items():
        for line in getattr(tables, table).strip().splitlines():
            name, *figures = line.split()
            assert len(figures) == (4 if name.endswith("-lm") else width), line
            assert name in tables.RUNS or name in tables.NAMES, line
