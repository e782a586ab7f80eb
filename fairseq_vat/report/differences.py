"""Where two sentences differ, word by word."""

from difflib import SequenceMatcher
from typing import NamedTuple

# with fewer words in common than this share of the longer sentence, what is left out says nothing
_ALIKE = 0.5


class Run(NamedTuple):
    """Neighbouring words of one kind."""

    kind: str  # ``same``, ``new`` (in the second sentence only) or ``missing`` (in the first only)
    text: str


def differences(before: str, after: str) -> list[Run]:
    """The words of `after` in their order, with those of `before` that it lacks in between.

    Words are what white space separates; text without any is compared by characters.
    Where less than half is in common, what is missing is left out: a reader would only see two
    sentences woven into each other.
    """
    joint = separator(before, after)
    one, other = (before.split(), after.split()) if joint else (before, after)
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    common = sum(block.size for block in matcher.get_matching_blocks())
    show_missing = common >= _ALIKE * max(len(one), len(other))
    runs = []
    for operation, i, j, k, m in matcher.get_opcodes():
        if operation == "equal":
            runs.append(Run("same", joint.join(other[k:m])))
            continue
        if i < j and show_missing:
            runs.append(Run("missing", joint.join(one[i:j])))
        if k < m:
            runs.append(Run("new", joint.join(other[k:m])))
    return runs


def separator(before: str, after: str) -> str:
    """What stands between the runs of `differences`: a space, or nothing between characters."""
    return " " if " " in before.strip() or " " in after.strip() else ""
