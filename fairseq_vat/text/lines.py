"""Raw text to clean sentences: decoding, white space, sentence boundaries.  Pure Python."""

from __future__ import annotations

import gzip
import lzma
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import BinaryIO

from fairseq_vat.errors import VATError

# Everything that a line-based tool may take for a line break or a separator, or choke on:
# C0 and C1 control characters (NUL and tab with them) and Unicode's line and paragraph separators.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# The same without tab: tabs are ordinary in text files and not worth a warning.
_REPORTED_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
# Halves of surrogate pairs can't be written as UTF-8; they come from Python callers, not files.
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass
class CleaningReport:
    """What `read_lines` met in a file; all counts are of lines."""

    lines: int = 0
    empty: int = 0
    invalid_utf8: int = 0
    control_characters: int = 0

    @property
    def kept(self) -> int:
        """Lines that had text in them."""
        return self.lines - self.empty

    def as_dict(self) -> dict[str, int]:
        """The counts under their names, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.lines:,} lines: {self.empty:,} empty ones dropped, {self.invalid_utf8:,} with "
            f"invalid UTF-8 (put right with U+FFFD), {self.control_characters:,} with NUL or "
            "control characters (made spaces)"
        )


def clean_line(line: str) -> str:
    """One line of text with single spaces and nothing that breaks a line-based tool.

    Control characters (NUL and tab with them) and Unicode line separators become spaces, runs of
    any white space become one space, and the ends are stripped.  U+FFFD stays: it says that
    something was there.
    """
    line = _SURROGATE.sub("\ufffd", _CONTROL.sub(" ", line))
    return " ".join(line.split())


def decode_line(raw: bytes) -> str:
    """Bytes of one line as text; what is not UTF-8 becomes U+FFFD."""
    return raw.decode("utf-8", errors="replace")


def read_lines(path: str | os.PathLike, report: CleaningReport | None = None) -> Iterator[str]:
    r"""Yield a text file's lines, cleaned, without the empty ones.

    Only ``\n`` ends a line (a ``\r`` before it goes with it), so a file keeps as many lines here as
    ``wc -l`` counts.  Files ending in ``.gz`` and ``.xz`` are decompressed.

    Args:
        path: the file; UTF-8, with or without a byte-order mark.
        report: where to count what was met.
    """
    report = CleaningReport() if report is None else report
    for raw in read_raw_lines(path):
        line = _clean_and_count(raw, report)
        if line:
            yield line


def read_raw_lines(path: str | os.PathLike) -> Iterator[bytes]:
    r"""Yield a file's lines as they are, without their ends and a byte-order mark.

    Files and line ends are as in `read_lines`.
    """
    with _open_bytes(path) as file:
        try:
            yield from raw_lines(file, path)
        except (lzma.LZMAError, zlib.error, gzip.BadGzipFile, EOFError) as error:
            raise VATError(
                f"{path} can't be decompressed ({error}); give the whole file, or plain text"
            ) from error


def raw_lines(file: BinaryIO, name: str | os.PathLike) -> Iterator[bytes]:
    """`read_raw_lines` of an open file; `name` is for errors."""
    for number, raw in enumerate(file):
        if number == 0:
            raw = _without_byte_order_mark(raw, name)
        yield raw.removesuffix(b"\n").removesuffix(b"\r")


def _open_bytes(path: str | os.PathLike) -> BinaryIO:
    name = os.fspath(path)
    if name.endswith(".xz"):
        return lzma.open(name, "rb")
    if name.endswith(".gz"):
        return gzip.open(name, "rb")
    return open(name, "rb")


def _without_byte_order_mark(raw: bytes, path: str | os.PathLike) -> bytes:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise VATError(
            f"{path} is UTF-16, not UTF-8; convert it with "
            f"'iconv -f UTF-16 -t UTF-8 {path} > NEW_FILE'"
        )
    return raw.removeprefix(b"\xef\xbb\xbf")


def _clean_and_count(raw: bytes, report: CleaningReport) -> str:
    report.lines += 1
    try:
        line = raw.decode("utf-8")
    except UnicodeDecodeError:
        report.invalid_utf8 += 1
        line = decode_line(raw)
    if _REPORTED_CONTROL.search(line):
        report.control_characters += 1
    line = clean_line(line)
    if not line:
        report.empty += 1
    return line


# Character classes: quotes and brackets that may stand before a sentence and after its stop.
OPENING = "[\"'\u2018\u201c(\\[]"
CLOSING = "[\"'\u2019\u201d)\\]]"

_BOUNDARY = re.compile(rf"(?P<stop>[.!?…]+)(?P<close>{CLOSING}*)\s+(?={OPENING}*(?P<next>\w+))")
_INITIALS = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Always followed by a name, so never the end of a sentence.
_TITLES = _words(
    "Mr Mrs Ms Messrs Dr Prof Rev Rt Hon St Gen Sen Rep Gov Lt Col Maj Sgt Capt Cmdr Adm Pres "
    "Mt Ft vs v e.g i.e cf viz"
)
# Followed by a number where they are abbreviations ("No. 5"), by anything where they are words.
_BEFORE_NUMBERS = _words(
    "No Nos no nos Fig Figs fig Vol vol Ch ch Sec Art para paras p pp "
    "Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec"
)
# Within a sentence or at its end: only the next word can tell ("Inc. The ..." and "Inc. chief").
_EITHER = _words("Inc Ltd Co Corp Bros Plc plc Jr Sr etc al approx est dept Dept")
_STARTERS = _words(
    "A An And As At Both But By Despite Earlier Even For From He Her His However I If In It Its "
    "Last Meanwhile More Most Mr Mrs Ms My Now On One Or Our She Since So Some That The Their "
    "Then There These They This Those Though To Under We What When While Who With Yet You"
)


def split_sentences(text: str) -> list[str]:
    """Split English prose into sentences by rule.

    A sentence ends at ``.``, ``!``, ``?`` or an ellipsis, with the quotes and brackets that close
    after it, before white space and a capital or a digit, which may stand behind an opening quote.
    Titles, initials, abbreviations and numbered headings are looked at more closely.

    Args:
        text: a paragraph, or several; white space is made single spaces.
    """
    text = clean_line(text)
    sentences = []
    start = 0
    for match in _BOUNDARY.finditer(text):
        if _ends_sentence(text[start : match.start()], match):
            sentences.append(text[start : match.end()].strip())
            start = match.end()
    rest = text[start:].strip()
    return [*sentences, rest] if rest else sentences


def _ends_sentence(before: str, match: re.Match) -> bool:
    following = match["next"]
    if not (following[0].isupper() or following[0].isdigit()):
        return False
    if match["stop"] != "." or match["close"]:
        return True
    word = re.sub(f"^{OPENING}+", "", before.rsplit(None, 1)[-1]) if before else ""
    if word in _TITLES:
        return False
    if word in _BEFORE_NUMBERS:
        return not following[0].isdigit()
    if word.isdigit() and word == before.strip():  # "3. The third item" is one sentence
        return False
    if word in _EITHER or _INITIALS.fullmatch(word):
        return following in _STARTERS
    return True
