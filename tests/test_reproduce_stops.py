"""The VAE-Transformer's recipe stopped, and at work several times: what goes on, and what waits."""

from __future__ import annotations

import fcntl
import json
import threading
from pathlib import Path

import pytest
import reproduce_vae_transformer
import vae_transformer_commands as commands
import vae_transformer_tables as tables
import vae_transformer_work
from helpers.recipe import flag, recipe, result
from helpers.scripts import Workplace


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """A folder with toy data sets; no figures are drawn, which takes seconds."""
    monkeypatch.setattr(tables, "rate_distortion", lambda *args: None)
    return recipe(tmp_path)


def test_table_7_waits_for_trainings(work):
    folder = work.folder / "out" / "ptb" / "lstm_decoder_lm-seed1"
    with commands.locked(folder):
        done = work.run("out", "--only", "gru_decoder_lm", "--tables", "2,7", "ptb=ptb")
    assert done.returncode == 0 and "table 7: nothing may run beside it" in done.stderr
    with commands.locked(work.folder / "out" / "ptb" / "time"):
        done = work.run("out", "--only", "lstm_decoder_lm", "--tables", "2", "ptb=ptb")
    assert done.returncode == 0 and "table 7 is measured: nothing may run beside" in done.stderr
    assert not work.calls("fairseq-train")


def test_table_7_keeps_no_record_once_it_is_done(work, monkeypatch):
    def measures(command, log, deadline):
        Path(flag(command, "--record")).write_text("{}\n")
        return {"seconds": {}}

    monkeypatch.setattr(vae_transformer_work, "json_of", measures)
    monkeypatch.setattr(vae_transformer_work, "write_markdown", lambda results: None)
    assert work.run("out", "--tables", "7", "--precision", "float32", "ptb=ptb").returncode == 0
    folder = work.folder / "out" / "ptb"
    assert (folder / "time.json").is_file() and not (folder / "time.jsonl").exists()
    # not of texts that are made of something else
    other = ("--tables", "7", "--precision", "bfloat16", "--vocabulary", "9", "ptb=ptb")
    assert work.run("out", *other).returncode == 1
    assert "float32" in json.loads((folder / "time.json").read_text())["command"]


def test_patience_is_counted_over_stops(work):
    """What the log of earlier calls says counts, and the best checkpoint is measured."""
    few = ("--only", "gru_decoder_lm", "--tables", "2", "ptb=ptb")
    assert work.run("out", *few, FAIL="gru").returncode == 1
    save = work.folder / "out" / "ptb" / "gru_decoder_lm-seed1" / "checkpoints"
    epochs = "".join(
        f"epoch {epoch:03} | loss 1 | num_updates 9{epoch}\n"
        f"epoch {epoch:03} | valid on 'valid' subset | ppl {ppl} | num_updates 9{epoch}\n"
        for epoch, ppl in enumerate((9, 5, 6, 5), start=1)
    )
    (save / "train.log").write_text(epochs)
    done = work.run("out", *few, "--patience", "3")
    assert len(work.calls("fairseq-train")) == 1
    for name in ("trained.json", "result.json"):
        (save.parent / name).unlink()
    (save / "train.log").write_text(epochs)  # without what this training wrote
    done = work.run("out", *few, "--patience", "2")
    assert done.returncode == 0, done.stderr
    assert not work.calls("fairseq-train")
    found = result(work, "ptb/gru_decoder_lm-seed1")
    # an equal figure isn't better, and yet fairseq keeps the later checkpoint
    assert (found["stopped"], found["epochs"], found["best_epoch"]) == ("patience", 4, 4)
    (measured,) = work.calls("fairseq-vat", "evaluate")
    assert flag(measured, "--path").endswith("checkpoint_best.pt")


def test_runs_at_work_elsewhere_are_left_to_it(work):
    folder = work.folder / "out" / "ptb" / "gru_decoder_lm-seed1"
    few = ("--only", "gru_decoder_lm,lstm_decoder_lm", "--tables", "2", "ptb=ptb")
    with commands.locked(folder):
        done = work.run("out", *few)
    assert done.returncode == 0
    assert [flag(args, "--arch") for args in work.calls("fairseq-train")] == ["lstm_decoder_lm"]
    assert work.run("out", *few).returncode == 0
    assert [flag(args, "--arch") for args in work.calls("fairseq-train")] == ["gru_decoder_lm"]


def test_who_only_looks_keeps_nobody_out(tmp_path):
    assert not commands.is_locked(tmp_path / "none") and not (tmp_path / "none").exists()
    with commands.locked(tmp_path) as is_ours:
        assert is_ours and commands.is_locked(tmp_path)
    assert not commands.is_locked(tmp_path)
    with open(tmp_path / ".recipe.lock") as look:  # for a moment, as `is_locked` does
        fcntl.flock(look, fcntl.LOCK_SH)
        assert not commands.is_locked(tmp_path)
        ends = threading.Timer(0.02, fcntl.flock, (look, fcntl.LOCK_UN))
        ends.start()
        with commands.locked(tmp_path, wait=False) as is_ours:
            assert is_ours
        ends.join()


def test_minutes_end_it_and_the_next_call_goes_on(work):
    few = ("--only", "gru_decoder_lm", "--tables", "2", "ptb=ptb")
    done = work.run("out", *few, "--minutes", "0.0001")
    assert done.returncode == 0
    assert "0.0001 minutes are over: the same command goes on" in done.stderr
    assert "0 of 1 runs done; left: 1" in done.stderr
    assert not work.calls("fairseq-train")
    assert work.run("out", *few).returncode == 0
    assert len(work.calls("fairseq-train")) == 1


def test_minutes_end_table_7_too(work, monkeypatch):
    def stops(command, log, deadline):
        assert deadline is not None and "--record" in command
        raise commands.OutOfTime

    monkeypatch.setattr(vae_transformer_work, "json_of", stops)
    done = work.run("out", "--tables", "7", "--minutes", "9", "ptb=ptb")
    assert done.returncode == 0, done.stderr
    assert "9 minutes are over: the same command goes on" in done.stderr
    assert list((work.folder / "out" / "ptb").glob("time*.*")) == []


def test_minutes_end_a_training(work, monkeypatch):
    run_command = vae_transformer_work.run_command

    def stops(command, *args):
        if command[0] == "fairseq-train" and args[-1] is not None:
            raise commands.OutOfTime
        return run_command(command, *args)

    monkeypatch.setattr(vae_transformer_work, "run_command", stops)
    few = ("--only", "gru_decoder_lm", "--tables", "2", "ptb=ptb")
    done = work.run("out", *few, "--minutes", "9")
    assert done.returncode == 0 and "9 minutes are over" in done.stderr
    assert not (work.folder / "out" / "ptb" / "gru_decoder_lm-seed1" / "trained.json").exists()
    assert (work.folder / "out" / "results" / "tables.md").is_file()
    assert work.run("out", *few).returncode == 0


def test_what_failed_before_the_time_was_over_is_told(work, monkeypatch, capsys):
    def fails(recipe):
        recipe.failed.add("ptb")
        raise commands.OutOfTime

    monkeypatch.chdir(work.folder)
    monkeypatch.setattr(reproduce_vae_transformer.Recipe, "work", fails)
    few = ["--only", "gru_decoder_lm", "--tables", "2", "--minutes", "9", "ptb=ptb"]
    monkeypatch.setattr("sys.argv", ["reproduce_vae_transformer.py", "out", *few])
    with pytest.raises(SystemExit) as left:
        reproduce_vae_transformer.main()
    told = capsys.readouterr().err
    assert left.value.code == 1 and "some steps failed" in told and "9 minutes are over" in told
