r"""Words of a sentence marked for drawing, and the subwords they become.

``Generative models have shown great [promise] in modeling complex distributions.``

Marks are an opening and a closing string, ``[`` and ``]`` unless others are chosen.  A backslash
before a mark makes it text, and ``\\`` is a backslash.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from fairseq_vat.errors import VATError


@dataclass(frozen=True)
class Marked:
    """A sentence without its marks, and where they were."""

    sentence: str
    # (start, end) of each marked stretch, in characters of `sentence`
    spans: tuple[tuple[int, int], ...]


def parse_marks(marks: str) -> tuple[str, str]:
    """Opening and closing mark from ``[]``, or from two strings with a space between them.

    Raises:
        VATError: for anything else, equal marks, and a backslash, which escapes.
    """
    parts = tuple(marks.split())
    if len(parts) == 1 and len(marks.strip()) == 2:
        parts = tuple(marks.strip())
    if len(parts) != 2 or parts[0] == parts[1] or "\\" in marks:
        raise VATError(
            f"marks {marks!r}: give an opening and a closing mark that differ, such as '[]', or "
            "two strings with a space between them, such as '<v> </v>'; no backslash"
        )
    return parts[0], parts[1]


def read_marked(text: str, marks: tuple[str, str]) -> Marked:
    """Take the marks out of a sentence.

    Raises:
        VATError: if a mark isn't closed or opened, or has nothing but white space in it, or if
            there are marks within marks.
    """
    opening, closing = marks
    # the longer one first: it may begin with the shorter
    either = "|".join(map(re.escape, sorted(marks, key=len, reverse=True)))
    token = re.compile(rf"\\(?P<escaped>\\|{either})|(?P<mark>{either})")
    spans: list[tuple[int, int]] = []
    sentence, start, last = "", None, 0
    for match in token.finditer(text):
        sentence += text[last : match.start()]
        last = match.end()
        if match["escaped"]:
            sentence += match["escaped"]
        elif match["mark"] == opening:
            if start is not None:
                raise VATError(f"{text!r}: {opening!r} within {opening!r}")
            start = len(sentence)
        else:
            if start is None:
                raise VATError(f"{text!r}: {closing!r} without {opening!r} before it")
            if not sentence[start:].strip():
                raise VATError(f"{text!r}: nothing between {opening!r} and {closing!r}")
            spans.append((start, len(sentence)))
            start = None
    if start is not None:
        raise VATError(f"{text!r}: {opening!r} without {closing!r} after it")
    return Marked(sentence + text[last:], tuple(spans))


def marked_subwords(
    marked: Marked, encode: Callable[[str], str], decode: Callable[[str], str]
) -> list[int]:
    """Numbers of the subwords, from 0, that have a character of a marked stretch in them.

    Subwords are matched to characters by how many characters other than white space come before
    them, so that any of fairseq's encoders will do. The text before a stretch goes through the
    encoder too: it may change characters, as a sentencepiece model's normalisation does. A subword
    that is a part of a character's bytes has the character in it.

    Returns:
        in ascending order; empty if the encoder leaves nothing of the marked stretches.
    """
    subwords = encode(marked.sentence).split()
    whole = _visible(decode(" ".join(subwords)))

    def after(count: int) -> int:
        text = _visible(decode(" ".join(subwords[:count])))
        # the beginning of a character's bytes is decoded as U+FFFD: the character isn't over
        while text.endswith("\ufffd") and whole[len(text) - 1 : len(text)] != "\ufffd":
            text = text[:-1]
        return len(text)

    ends = [after(count) for count in range(1, len(subwords) + 1)]
    starts = [0, *ends[:-1]]

    def before(position: int) -> int:
        return len(_visible(decode(encode(marked.sentence[:position]))))

    found: set[int] = set()
    for span in marked.spans:
        start, end = before(span[0]), before(span[1])
        for number, (first, last) in enumerate(zip(starts, ends, strict=True)):
            # a subword may be a word boundary alone, which belongs to the word after it, or bytes
            # of a character that ends in a later one
            if start < max(last, first + 1) and first < end:
                found.add(number)
    return sorted(found)


def _visible(text: str) -> str:
    """The characters other than white space."""
    return "".join(text.split())
