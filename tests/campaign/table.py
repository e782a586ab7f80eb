"""The table: one line is an input.

    name | what is done to its files | command | what is expected

The second part is of `spoil`, and may be empty. A command is what a user types; its first word may
be one of `commands.SHORT`. It runs in a folder of its own with what `material` made. It may begin
with NAME=VALUE and end with ``< FILE``, ``> FILE`` or ``>&-``. What is expected is

    error FRAGMENT      one line on standard error that has the fragment, and a status above 0
    warning FRAGMENT    on standard error or in the log; the command goes on
    accepted            a status of 0
    known REASON        it can't be better than it is, and why

``@name = one ; two`` on a line of its own makes each line with ``@name`` as many inputs.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from campaign.spoil import unescaped

TABLES = Path(__file__).parent / "tables"
KINDS = ("error", "warning", "accepted", "known")


@dataclass(frozen=True)
class Input:
    """A line of the table."""

    group: str
    name: str
    spoil: str
    words: list[str]
    kind: str
    fragment: str
    stdin: str | None = None
    stdout: str | None = None
    environment: dict[str, str] = field(default_factory=dict)


def read_tables() -> list[Input]:
    """All inputs of all tables."""
    return [item for path in sorted(TABLES.glob("*.txt")) for item in read_table(path)]


def read_table(path: Path) -> list[Input]:
    """The inputs of one; its name is their group.

    Raises:
        ValueError: for a line that isn't an input.
    """
    inputs, words = [], {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if made := re.match(r"@(\w+) = (.*)", line):
            words[made[1]] = [part.strip() for part in made[2].split(" ; ")]
            continue
        try:
            inputs += [_input(path.stem, one) for one in _all(line, words)]
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from error
    return inputs


def _all(line: str, words: dict[str, list[str]]) -> list[str]:
    used = re.search("@(" + "|".join(words) + r")\b", line) if words else None
    if used is None:
        return [line]
    return [
        one
        for value in words[used[1]]
        for one in _all(re.sub(rf"@{used[1]}\b", lambda _: value, line), words)  # noqa: B023
    ]


def _input(group: str, line: str) -> Input:
    parts = [part.strip() for part in re.split(r"(?<= )\|(?= |$)", line)]
    if len(parts) != 4:
        raise ValueError(f"4 parts with ' | ' between them are needed, not {len(parts)}")
    name, spoil, command, expected = parts
    kind, _, fragment = expected.partition(" ")
    if kind not in KINDS or (kind != "accepted" and not fragment):
        raise ValueError(f"{expected!r}: must be {', '.join(KINDS)}, with what it says")
    words, environment, ends = shlex.split(command), {}, {}
    while "=" in words[0]:
        key, _, value = words.pop(0).partition("=")
        environment[key] = value
    if words[-1] == ">&-":
        words[-1:], ends["stdout"] = [], "-"
    for sign, name_of in (("<", "stdin"), (">", "stdout")):
        if sign in words[-2:-1]:
            ends[name_of] = unescaped(words[-1])
            words[-2:] = []
    words = [unescaped(word) for word in words]
    return Input(
        group, name, spoil, words, kind, unescaped(fragment), environment=environment, **ends
    )
