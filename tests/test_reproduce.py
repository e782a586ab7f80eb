"""The paper's tables: the script's steps with commands that only pretend, and what it collects."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import Mock

import pytest
import reproduce_vae_transformer
import vae_transformer_tables as tables
from helpers.recipe import flag, recipe
from helpers.scripts import Workplace, squeezed
from vae_transformer_runs import ANNEALINGS, SYSTEMS, plan

RATE_DISTORTION = tables.rate_distortion


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """A folder with toy data sets; no figures are drawn, which takes seconds."""
    monkeypatch.setattr(tables, "rate_distortion", lambda *args: None)
    return recipe(tmp_path)


SMALL = ("--epochs", "20", "--only", "vae_transformer,gru_decoder_lm", "--tables", "2,3")


def test_every_step_is_done_once(work):
    both = (*SMALL, "--annealings", "linear,cyclic", "--latent-dim", "64,32", "--seeds", "1,5")
    both = (*both, "ptb=ptb", "sst2=sst2")
    done = work.run("out", *both)
    assert done.returncode == 0, done.stderr
    trained = {
        flag(args, "--save-dir").partition("/out/")[2].removesuffix("/checkpoints"): args
        for args in work.calls("fairseq-train")
    }
    expected = {f"{data}/gru_decoder_lm-seed1" for data in ("ptb", "sst2")} | {
        f"{data}/vae_transformer-{annealing}-z{width}-seed{seed}"
        for data in ("ptb", "sst2")
        for width, seed in ((64, 1), (32, 1), (64, 5))
        for annealing in ("linear", "cyclic")
    }
    assert set(trained) == expected
    measured = work.calls("fairseq-vat")
    assert len([call for call in measured if "evaluate" in call]) == len(expected)
    classified = [call for call in measured if "classify" in call]
    assert len(classified) == 6  # sst2's, all that have latents
    assert all(flag(call, "--protocol") == "paper" for call in classified)
    ptb = trained["ptb/vae_transformer-cyclic-z32-seed1"]
    assert flag(ptb, "--latent-dim") == "32"
    # 20 epochs of ceil(70 / 32) batches; ten of them a cosine
    assert flag(ptb, "--kl-annealing-updates") == "60"
    assert flag(ptb, "--lr-period-updates") == "30"
    assert flag(ptb, "--lr") == "1e-3" and "--cpu" in ptb
    assert flag(ptb, "--required-batch-size-multiple") == "1"
    linear = "vae_transformer-linear-z64-seed5"
    assert flag(trained[f"ptb/{linear}"], "--kl-annealing-updates") == "30"
    assert flag(trained[f"ptb/{linear}"], "--seed") == "5"
    assert flag(trained[f"sst2/{linear}"], "--lr") == "1e-4"
    assert "--kl-annealing" not in trained["ptb/gru_decoder_lm-seed1"]
    assert (work.folder / "out" / "ptb" / "text" / "valid.txt").read_text() == "a <unk> b\n" * 3
    document = squeezed((work.folder / "out" / "results" / "tables.md").read_text())
    row = "| VAE-Transformer | cyclic | 2 | 2 | 2 | 70.50 ± 0.00 | 81.00 ± 0.00 | 75.65 |"
    assert row in document
    assert "| VAE-Transformer | cyclic | 2 | 2 | 2 | 0.500 | 0.630 | 0.750 | 0.689 |" in document

    found = json.loads((work.folder / "out" / "results" / "table2-ptb.json").read_text())
    assert found["vocabulary"] == {"kind": "words", "entries": 6}
    (run,) = [one for one in found["runs"] if one["annealing"] == "linear" and one["seed"] == 5]
    assert (run["epochs"], run["stopped"], run["best_epoch"]) == (2, "epochs", 3)
    assert run["commands"]["train"].startswith(
        "fairseq-train OUT/ptb/data-bin --user-dir fairseq_v"
    )
    assert run["commit"] and str(work.folder) not in json.dumps(found)
    assert run["evaluate"]["checkpoint"].startswith("OUT/ptb/vae_transformer-linear-z64-seed5/")
    assert run["evaluate"]["data"] == "OUT/ptb/data-bin"

    again = work.run("out", *both)
    assert again.returncode == 0
    assert "14 of 14 runs done; left: 0 " in again.stderr
    assert not work.calls("fairseq-train") + work.calls("fairseq-vat")
    other = work.run("out", *SMALL, "--vocabulary", "100", "ptb=ptb")
    assert other.returncode == 1 and "with --vocabulary words; use another OUT" in other.stderr


def test_a_failure_leaves_the_other_runs_and_a_second_try(work):
    few = (*SMALL, "--annealings", "cyclic", "--seeds", "1", "--latent-dim", "64", "ptb=ptb")
    failed = work.run("out", *few, FAIL="vae_transformer")
    assert failed.returncode == 1
    assert "fairseq-train failed: no memory is left" in failed.stderr
    assert "1 of 2 runs done; left: 1 (0 at work elsewhere), 20 epochs at most" in failed.stderr
    document = squeezed((work.folder / "out" / "results" / "tables.md").read_text())
    assert "| GRU | | 1 | 2 | 2 | 70.00 |" in document
    assert work.run("out", *few).returncode == 0
    assert len(work.calls("fairseq-train")) == 1
    # a run that was begun with other flags isn't gone on with
    other = work.run("out", *few, "--epochs", "3")
    assert other.returncode == 1 and "was trained with other flags or texts" in other.stderr
    assert not work.calls("fairseq-train")
    # measured with other flags it is
    assert work.run("out", *few, "--", "--no-bleu").returncode == 0
    assert len(work.calls("fairseq-vat", "evaluate")) == 2 and not work.calls("fairseq-train")


def test_what_was_begun_with_other_settings_is_told_or_left_alone(work, monkeypatch, capsys):
    few = ("--only", "gru_decoder_lm", "--tables", "2", "ptb=ptb")
    assert work.run("out", *few, "--precision", "float32").returncode == 0
    folder = work.folder / "out" / "ptb" / "gru_decoder_lm-seed1"
    told = work.run("out", *few, "--patience", "2", "--precision", "bfloat16").stderr
    assert "gru_decoder_lm-seed1: is done, with --patience None" in told
    assert "gru_decoder_lm-seed1: is done, with --precision float32" in told
    # what isn't done goes on in the precision that it was begun in
    for name in ("trained", "result"):
        (folder / f"{name}.json").unlink()
    other = work.run("out", *few, "--precision", "bfloat16")
    assert other.returncode == 1 and "was trained with other flags" in other.stderr
    assert work.run("out", *few).returncode == 0
    (train,) = work.calls("fairseq-train")
    assert flag(train, "--precision") == "float32"
    result = json.loads((folder / "result.json").read_text())
    assert result["commands"]["train"].endswith(" --precision float32")
    # figures of a model that is gone aren't those of a new one
    for path in (folder / "checkpoints").glob("checkpoint*.pt"):
        path.unlink()
    failed = work.run("out", *few, "--epochs", "3", FAIL="gru")
    assert failed.returncode == 1
    assert not list(folder.glob("[trec]*.json"))

    monkeypatch.chdir(work.folder)
    monkeypatch.setattr("sys.argv", ["reproduce_vae_transformer.py", "out", *few])
    stopped = Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr(reproduce_vae_transformer.Recipe, "work", stopped)
    with pytest.raises(SystemExit) as left:
        reproduce_vae_transformer.main()
    assert left.value.code == 130
    assert capsys.readouterr().err == "stopped: the same command goes on\n"


def test_other_pieces_need_another_folder(work):
    (work.folder / "vocab.txt").write_text("[UNK]\n")
    few = ("--only", "gru_decoder_lm", "--tables", "2", "--vocabulary", "vocab.txt", "ptb=ptb")
    assert work.run("out", *few, "--drop-unused").returncode == 0
    (prepare,) = work.calls("fairseq-vat", "prepare")
    assert "--drop-unused" in prepare
    other = work.run("out", *few)
    assert other.returncode == 1
    assert "with --vocabulary vocab.txt --drop-unused; use another OUT" in other.stderr
    same = str(work.folder / "vocab.txt")
    few = [same if word == "vocab.txt" else word for word in few]
    assert work.run("out", *few, "--drop-unused").returncode == 0
    (work.folder / "vocab.txt").write_text("[PAD]\n")
    assert work.run("out", *few, "--drop-unused").returncode == 1


def test_a_wordpiece_of_the_papers_size_is_trained_and_gpt2_has_its_own_pieces(work):
    (work.folder / "gpt2").mkdir()
    (work.folder / "gpt2" / "config.json").write_text("{}")
    few = ("--only", "vae_transformer,vae_gpt2", "--tables", "2", "--annealings", "none")
    few = (*few, "--seeds", "1", "--latent-dim", "64", "--vocabulary", "wordpiece")
    done = work.run("out", *few, "--gpt2", "gpt2", "ptb=ptb")
    assert done.returncode == 0, done.stderr
    pieces, gpt2 = work.calls("fairseq-vat", "prepare")
    assert flag(pieces, "--train-wordpiece") == "30522" and "--gpt2" not in pieces
    assert flag(gpt2, "--gpt2").endswith("gpt2") and "--train-wordpiece" not in gpt2
    places = {flag(call, "--arch"): call for call in work.calls("fairseq-train")}
    assert places["vae_transformer"][1].endswith("out/ptb/data-bin")
    assert places["vae_gpt2"][1].endswith("out/ptb/gpt2/data-bin")
    assert flag(places["vae_gpt2"], "--gpt2-dir") == "gpt2"
    assert "--gpt2-dir" not in places["vae_transformer"]


def test_classification_alone_trains_encoders_of_text_with_labels(work):
    flags = ("--dry-run", "--tables", "3", "--only", "vae_lstm,lstm_decoder_lm", "--seeds", "1")
    done = work.run("out", *flags, "--latent-dim", "64", "ptb=ptb", "sst2=sst2")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [words[:2] for words in lines].count(["fairseq-train", "OUT/sst2/data-bin"]) == 3
    assert [words[:2] for words in lines].count(["fairseq-vat", "classify"]) == 3
    assert len(lines) == 6


def test_a_table_of_runs_that_are_gone_goes_too(work):
    few = ("--only", "vae_lstm,lstm_decoder_lm", "--annealings", "none", "--tables", "2", "ptb=ptb")
    assert work.run("out", *few, "--latent-dim", "32", FAIL="vae_lstm").returncode == 1
    results = work.folder / "out" / "results"
    assert [path.name for path in results.glob("*.json")] == ["table2-ptb.json"]
    assert work.run("out", *few, "--latent-dim", "32").returncode == 0
    assert [path.name for path in results.glob("*.json")] == ["table5-ptb.json"]


def test_the_plan_is_in_the_paper_s_order():
    names = [run.folder for run in plan(["ptb"], SYSTEMS[:6], ANNEALINGS, None, [1, 2, 3])]
    first = [name.removeprefix("ptb/") for name in names[:5]]
    assert first == [
        *(f"vae_transformer-{annealing}-z64-seed1" for annealing in ("none", "linear", "cyclic")),
        *("transformer_decoder_lm-seed1", "vae_lstm-none-z64-seed1"),
    ]
    assert len(names) == len(set(names)) == 12 + 2 * 3 + 1
    assert names[-1] == "ptb/vae_transformer-cyclic-z32-seed1"


def test_dry_run_prints_commands_and_does_nothing(work):
    flags = ("--dry-run", "--epochs", "5", "--seeds", "1", "--latent-dim", "64", "ptb=ptb")
    flags = (*flags, "--patience", "2")
    done = work.run("out", *flags, "--", "--no-bleu")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum(line.startswith("fairseq-train ") for line in lines) == 12
    assert sum(" evaluate " in line and "--no-bleu" in line for line in lines) == 12
    assert done.stdout.count("/checkpoint_best.pt") == 12
    assert "--max-positions 64 --batches 0 --repeats 1" in lines[-1] and "--parameters" in lines[-2]
    assert not (work.folder / "out").exists()
    assert not work.calls("fairseq-train")


def test_air_and_wikitext2_have_the_paper_s_settings(work):
    (work.folder / "ptb").rename(work.folder / "wikitext2")
    (work.folder / "sst2").rename(work.folder / "air")
    few = ("--dry-run", "--only", "vae_lstm", "--annealings", "linear", "--tables", "2,3,7")
    done = work.run("out", *few, "--latent-dim", "64", "wikitext2=wikitext2", "air=air")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if "fairseq" in line]
    wikitext2, measured, air, *measured_air = lines
    assert (wikitext2[0], air[0]) == ("fairseq-train",) * 2 and "evaluate" in measured
    assert [flag(words, "--max-source-positions") for words in (wikitext2, air)] == ["256", "64"]
    assert [flag(words, "--max-target-positions") for words in (wikitext2, air)] == ["256", "64"]
    assert [flag(words, "--lr") for words in (wikitext2, air)] == ["1e-3", "1e-4"]
    # 50 epochs of ceil(70 / 32) and ceil(2 / 32) batches
    assert [flag(w, "--kl-annealing-updates") for w in (wikitext2, air)] == ["75", "25"]
    assert [words[1] for words in measured_air] == ["evaluate", "classify"]  # it has labels
    assert done.stdout.count("time_forward.py OUT/wikitext2/data-bin --json") == 1
    (timed,) = [
        line for line in done.stdout.splitlines() if "OUT/wikitext2/data-bin --json" in line
    ]
    assert "--max-positions 256" in timed


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["out"], "give at least one data set"),
        (["out", "nothing"], "nothing: give NAME=DIR"),
        (["out", "ptb=nowhere"], "has neither train.txt nor train.tsv"),
        (["out", "ptb=ptb", "--epochs", "0"], "--epochs: must be at least 1, not 0"),
        (["out", "ptb=ptb", "--only", "vae_rnn"], "--only: vae_rnn: must be among"),
        (["out", "ptb=ptb", "--only", "vae_gpt2"], "needs --gpt2 DIR"),
        (["out", "ptb=ptb", "--tables", "9"], "--tables: 9: must be among"),
        (["out", "ptb=ptb", "--tables", "3"], "needs a data set with train.tsv"),
        (["out", "ptb=ptb", "--epoch", "3"], "unrecognized arguments: --epoch"),
        (["out", "ptb=ptb", "--gpt2", "ptb"], "has no config.json"),
        (["out", "ptb=ptb", "ptb=ptb"], "ptb is given twice"),
        (["out", "ptb=ptb", "--vocabulary", "none.txt"], "must be words, wordpiece, a number or"),
        (["out", "ptb=ptb", "--drop-unused"], "only of a file, --vocabulary FILE"),
    ],
)
def test_mistakes_are_one_line(work, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(work.folder)
    monkeypatch.setattr("sys.argv", ["reproduce_vae_transformer.py", *flags])
    with pytest.raises(SystemExit) as left:
        reproduce_vae_transformer.main()
    assert left.value.code in (1, 2)
    told = capsys.readouterr().err
    assert message in told and len(told.splitlines()) == 1
    assert not (work.folder / "out").exists()


def test_labels_are_compared_before_anything_is_trained(work, monkeypatch, capsys):
    monkeypatch.chdir(work.folder)
    for split, label in {"train": "1", "dev": "1", "test": "good"}.items():
        Path("swapped").mkdir(exist_ok=True)
        Path(f"swapped/{split}.tsv").write_text(f"{label}\ta\n0\tb\n")
    flags = ["out", "sst2=swapped", "--tables", "2,3"]
    monkeypatch.setattr("sys.argv", ["reproduce_vae_transformer.py", *flags])
    with pytest.raises(SystemExit):
        reproduce_vae_transformer.main()
    assert "test.tsv:1: label 'good' isn't in swapped/train.tsv" in capsys.readouterr().err
    assert not Path("out").exists()


def test_the_script_ends_with_them(work):
    done = work.run_script("out")
    assert done.returncode in (1, 2)
    assert "give at least one data set" in done.stderr and len(done.stderr.splitlines()) == 1


def test_free_bits_are_a_setting_of_their_own(work, monkeypatch):
    monkeypatch.setattr(tables, "rate_distortion", RATE_DISTORTION)
    few = ("--only", "vae_transformer", "--annealings", "free-bits,cyclic", "--seeds", "1")
    done = work.run("out", *few, "--latent-dim", "64", "--tables", "2", "ptb=ptb")
    assert done.returncode == 0, done.stderr
    cyclic, free = work.calls("fairseq-train")
    assert "--free-bits" not in cyclic
    assert flag(free, "--kl-annealing") == "linear" and flag(free, "--free-bits") == "20"
    document = squeezed((work.folder / "out" / "results" / "tables.md").read_text())
    assert "| VAE-Transformer | free-bits | 1 | 2 | 2 | 70.50 |" in document
    assert "20 nats of each KL free" in document
    picture = work.folder / "out" / "results" / "rate-distortion-ptb.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
