"""Checkpoints: what is in them, and files that only look like one."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile

import pytest
import torch
from fairseq_cli import generate
from helpers import commands
from helpers.checkpoints import refused
from helpers.processes import Forked

from fairseq_vat.errors import explain


def test_a_checkpoint_loads_with_weights_only_and_without_allow_listing(checkpoint):
    """In a process that knows neither fairseq nor the plugin."""
    code = "import sys, torch; torch.load(sys.argv[1], weights_only=True)['model']"
    subprocess.run([sys.executable, "-c", code, str(checkpoint)], check=True)


def test_a_missing_checkpoint_is_named(data_dir, tmp_path):
    line = refused(commands.generate, data_dir, tmp_path / "none.pt")
    assert line.startswith(f"--path: model file not found: {tmp_path}/none.pt")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_cut_off_checkpoint_is_named(data_dir, checkpoint, tmp_path, share):
    path = tmp_path / "cut.pt"
    content = checkpoint.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    for command in (commands.generate, commands.validate):
        assert f"checkpoint {path} " in refused(command, data_dir, path)


def test_a_run_does_not_start_over_a_cut_off_checkpoint(data_dir, checkpoint, tmp_path):
    path = tmp_path / "checkpoint_last.pt"
    path.write_bytes(checkpoint.read_bytes()[:5000])
    assert f"{path} is cut off or damaged" in refused(commands.train, data_dir, tmp_path)
    assert [*tmp_path.glob("*.pt")] == [path]
    assert path.stat().st_size == 5000


class Malicious:
    """A pickle that would make a directory when loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("legacy", [True, False])
def test_a_malicious_checkpoint_is_refused(data_dir, checkpoint, tmp_path, legacy):
    state = torch.load(checkpoint, weights_only=True)
    state["extra_state"]["epoch"] = Malicious(tmp_path / "harm")
    path = tmp_path / "checkpoint_last.pt"
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    for command in (commands.generate, commands.validate):
        assert f"checkpoint {path} is refused" in refused(command, data_dir, path)
    # where training saves there are zip archives alone
    says = f"{path} is cut off or damaged" if legacy else f"checkpoint {path} is refused"
    assert says in refused(commands.train, data_dir, tmp_path)
    assert not (tmp_path / "harm").exists()


def test_a_file_of_another_kind_is_refused(data_dir, tmp_path):
    bare = tmp_path / "bare.pt"
    bare.write_bytes(pickle.dumps({"model": 1}))
    archive = tmp_path / "archive.pt"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("hello", "world")
    for path in (bare, archive):
        assert f"checkpoint {path} " in refused(commands.generate, data_dir, path)


def test_other_mistakes_that_fairseq_does_not_explain(data_dir, checkpoint, tmp_path):
    bpe = ("--bpe", "sentencepiece")
    line = refused(commands.generate, data_dir, checkpoint, *bpe)
    assert line == "--sentencepiece-model is needed and was not given"
    for command in (
        commands.generate,
        lambda *args: commands.interactive(*args[:2], b"", *args[2:]),
    ):
        line = refused(command, data_dir, checkpoint, "--sampling", "--nbest", "1")
        assert line == "--sampling requires --nbest to be equal to --beam"
    assert refused(commands.generate, data_dir, checkpoint, "--sampling-topk", "5") == (
        "--sampling-topk requires --sampling"
    )
    missing = ("--sentencepiece-model", "none.model")
    line = refused(commands.generate, data_dir, checkpoint, *bpe, *missing)
    assert line == "--sentencepiece-model: file none.model not found"


def test_a_mistake_told_by_a_spawned_process():
    text = "-- Process 1 terminated\nTraceback ...\nfairseq_vat.errors.VATError: --prior-std is 0\n"
    assert (
        explain(type("ProcessRaisedException", (Exception,), {})(text), None) == "--prior-std is 0"
    )


def test_commands_print_one_line_and_exit_with_1(data_dir, checkpoint, tmp_path, monkeypatch):
    """In a process, for the exception hook."""
    flags = [*commands.PLUGIN_FLAGS, "--path", str(checkpoint), "--latent-samples", "2"]
    monkeypatch.setattr(sys, "argv", ["fairseq-generate", str(data_dir), *flags])
    status, output = Forked(tmp_path / "output", generate.cli_main).wait()
    assert status == 1
    assert output.splitlines()[-1] == (
        "fairseq_vat: error: --latent-samples needs --latent-sampling: without it latents aren't "
        "drawn"
    )
    assert "Traceback" not in output
