"""The README's commands run as printed: what a user copies must work."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import commands
import pytest

from fairseq_vat.cli.main import build_parser

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def printed(program: str) -> list[list[str]]:
    """The flags of every command of a program in the README."""
    found = []
    for block in BLOCKS:
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] == program:
                found.append(words[1:])
    return found


def without_plugin(flags: list[str], data: Path, checkpoint: Path) -> list[str]:
    """The flags as the in-process drivers want them, on toy data."""
    assert flags[0] == "DATA"
    at = flags.index("--user-dir")
    assert flags[at + 1] == "fairseq_vat"
    flags = flags[1:at] + flags[at + 2 :]
    return [str(checkpoint) if f == "checkpoints/checkpoint_last.pt" else f for f in flags]


@pytest.mark.parametrize("number", range(len(printed("fairseq-train"))))
def test_train(number, data_dir, checkpoint, tmp_path):
    flags = without_plugin(printed("fairseq-train")[number], data_dir, checkpoint)
    small = ("--save-dir", str(tmp_path), "--max-update", "2", "--encoder-layers", "1")
    log = commands.train(data_dir, tmp_path, *flags, *small)
    assert commands.stats(log)[-1]["num_updates"] == "2"


def test_evaluate_and_classify_parse():
    for flags in printed("fairseq-vat"):
        args = build_parser().parse_args(flags)
        assert callable(args.run)


def test_validate_and_generate(data_dir, checkpoint):
    (flags,) = printed("fairseq-validate")
    log = commands.validate(data_dir, checkpoint, *without_plugin(flags, data_dir, checkpoint))
    assert "elbo_ppl" in commands.stats(log)[-1]
    (flags,) = printed("fairseq-generate")
    output = commands.generate(data_dir, checkpoint, *without_plugin(flags, data_dir, checkpoint))
    assert {len(found) for found in commands.hypotheses(output).values()} == {4}


def test_files_it_names_are_there():
    text = (ROOT / "README.md").read_text()
    names = re.findall(r"\]\(((?!http)[^)#]+)\)", text) + re.findall(r"scripts/[\w.]+", text)
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_flags_and_presets_it_names_exist(capsys):
    text = (ROOT / "README.md").read_text()
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--help"])
    helped = capsys.readouterr().out
    for name in set(re.findall(r"`fairseq-vat ([\w-]+)", text)):
        assert name in helped
