"""Commands and locks of the VAE-Transformer's recipe."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import vae_transformer_commands as commands
from helpers.scripts import SCRIPTS


def test_a_command_that_outlives_its_script_keeps_the_folder(tmp_path):
    code = """
import sys
from pathlib import Path
import vae_transformer_commands as commands
with commands.locked(Path("run")):
    stays = "echo $$ > pid.new; mv pid.new pid; exec sleep 60"
    commands.run_command(["sh", "-c", stays], Path("log"))
"""
    script = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{SCRIPTS}:{SCRIPTS.parent}"},
    )
    while not (tmp_path / "pid").exists():
        assert script.poll() is None
        time.sleep(0.01)
    command = int((tmp_path / "pid").read_text())
    script.kill()
    script.wait()
    try:
        with commands.locked(tmp_path / "run", wait=False) as is_ours:
            assert not is_ours
    finally:
        os.kill(command, signal.SIGKILL)
    with commands.locked(tmp_path / "run") as is_ours:
        assert is_ours


def test_a_command_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "LOOK", 0.1)
    command = ["sleep", "60"]
    assert commands.run_command(command, tmp_path / "log", watch=lambda: True)
    with pytest.raises(commands.OutOfTime):
        commands.run_command(command, tmp_path / "log", deadline=time.monotonic() + 0.3)
    assert not commands.run_command(["true"], tmp_path / "log", deadline=time.monotonic() + 60)
    with pytest.raises(commands.StepFailed, match="sh failed: it said nothing"):
        commands.run_command(["sh", "-c", "exit 3"], tmp_path / "log")
