"""Raw text to clean sentences: decoding, white space, sentence boundaries.  Pure Python."""

import gzip
import lzma
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
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
            raw = _checked_start(raw, name)
        yield raw.removesuffix(b"\n").removesuffix(b"\r")


def _open_bytes(path: str | os.PathLike) -> BinaryIO:
    name = os.fspath(path)
    if name.endswith(".xz"):
        return lzma.open(name, "rb")
    if name.endswith(".gz"):
        return gzip.open(name, "rb")
    return open(name, "rb")


# how files begin that aren't text, though their names may say so
_COMPRESSED = {
    b"\x1f\x8b": "gzip: its name must end in .gz",
    b"\xfd7zXZ\0": "xz: its name must end in .xz",
    b"BZh91AY&SY": "bzip2: give plain text, .gz or .xz",
    b"PK\x03\x04": "zip: give plain text, .gz or .xz",
    b"\x28\xb5\x2f\xfd": "zstd: give plain text, .gz or .xz",
}


def _checked_start(raw: bytes, path: str | os.PathLike) -> bytes:
    """A file's first line without a byte-order mark; raises `VATError` where it is no text."""
    for start, advice in _COMPRESSED.items():
        if raw.startswith(start):
            raise VATError(f"{path} is compressed with {advice}")
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
