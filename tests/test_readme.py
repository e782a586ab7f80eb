"""The README's commands run as printed, and those of docs/ parse: what a user copies must work."""

from __future__ import annotations

import re
import shlex
from functools import partial
from pathlib import Path

import pytest
from fairseq import options
from helpers import commands

from fairseq_vat.cli.main import build_parser

ROOT = Path(__file__).parent.parent
TRAINING = ROOT / "docs/training.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def printed(program: str, page: Path = ROOT / "README.md") -> list[list[str]]:
    """The flags of every command of a program on a page, its shell variables put in."""
    found = []
    text = "\n".join(re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL))
    assignment = re.compile(r'^(\w+)="([^"]*)"$', re.MULTILINE)
    variables = {name: " ".join(value.split()) for name, value in assignment.findall(text)}
    for line in assignment.sub("", text).replace("\\\n", " ").splitlines():
        line = re.sub(r"\$(\w+)", lambda match: variables.get(match[1], match[0]), line)
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|>;")
        lexer.whitespace_split = True
        commands_of_line = [[]]
        for word in lexer:
            if set(word) <= set("|>;"):
                commands_of_line.append([])
            else:
                commands_of_line[-1].append(word)
        found += [words[1:] for words in commands_of_line if words[:1] == [program]]
    return found


def without_plugin(flags: list[str], data: Path, checkpoint: Path) -> list[str]:
    """The flags as the in-process drivers want them, on toy data."""
    assert flags[0] == "DATA"
    at = flags.index("--user-dir")
    assert flags[at + 1] == "fairseq_vat"
    flags = flags[1:at] + flags[at + 2 :]
    return [str(checkpoint) if f == "checkpoints/checkpoint_last.pt" else f for f in flags]


TRAININGS = [*printed("fairseq-train"), *printed("fairseq-train", TRAINING)]


@pytest.mark.parametrize("number", range(len(TRAININGS)))
def test_train(number, data_dir, checkpoint, tmp_path):
    flags = without_plugin(TRAININGS[number], data_dir, checkpoint)
    small = ("--save-dir", str(tmp_path), "--max-update", "2", "--encoder-layers", "1")
    log = commands.train(data_dir, tmp_path, *flags, *small)
    assert commands.stats(log)[-1]["num_updates"] == "2"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_our_subcommands_parse(page):
    for flags in printed("fairseq-vat", page):
        if flags == ["--help"]:
            continue
        args, further = build_parser().parse_known_args(flags)
        assert callable(args.run)
        assert not further or args.takes_further_flags


FAIRSEQ = {
    "fairseq-train": options.get_training_parser,
    "fairseq-validate": options.get_validation_parser,
    "fairseq-generate": options.get_generation_parser,
    "fairseq-interactive": partial(options.get_generation_parser, interactive=True),
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_fairseq_s_commands_parse(page):
    for program, parser in FAIRSEQ.items():
        for flags in printed(program, page):
            if "..." not in flags:
                flags = ["1" if flag == "W" else flag.replace("$PWD/", "") for flag in flags]
                options.parse_args_and_arch(parser(), flags)


def test_its_python_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    found = {}
    exec(code, found)
    assert len(found["vectors"]) == 2 and found["latents"].mean.size(0) == 1


def test_validate_and_generate(data_dir, checkpoint):
    (flags,) = printed("fairseq-validate", TRAINING)
    log = commands.validate(data_dir, checkpoint, *without_plugin(flags, data_dir, checkpoint))
    assert "elbo_ppl" in commands.stats(log)[-1]
    (flags,) = printed("fairseq-generate")
    output = commands.generate(data_dir, checkpoint, *without_plugin(flags, data_dir, checkpoint))
    assert {len(found) for found in commands.hypotheses(output).values()} == {4}


def test_files_it_names_are_there():
    text = (ROOT / "README.md").read_text()
    names = re.findall(r"\]\(((?!http)[^)#]+)\)", text) + re.findall(r"scripts/[\w.]+", text)
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_subcommands_it_names_exist(capsys):
    text = (ROOT / "README.md").read_text()
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--help"])
    helped = capsys.readouterr().out
    for name in set(re.findall(r"`fairseq-vat ([\w-]+)", text)):
        assert name in helped


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"])
def test_modules_it_names_are_there(page):
    """As ``fairseq_vat.room.module``, with a name in it or not, or as a file."""
    for name in re.findall(r"\bfairseq_vat((?:[./]\w+)+)", page.read_text(encoding="utf-8")):
        parts = re.split(r"[./]", name.removesuffix(".py"))[1:]
        places = [ROOT.joinpath("fairseq_vat", *parts[: len(parts) - n]) for n in range(2)]
        found = [place for place in places if place.is_dir() or place.with_suffix(".py").is_file()]
        assert found and found[0] != ROOT / "fairseq_vat", f"fairseq_vat{name}"
