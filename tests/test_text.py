"""Cleaning of raw text and the sentence splitter."""

import bz2
import gzip
import lzma

import pytest
from sentence_boundaries import split_sentences

from fairseq_vat.errors import VATError
from fairseq_vat.text.lines import (
    CleaningReport,
    clean_line,
    decode_line,
    read_lines,
)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  a\t b \r\n", "a b"),
        ("nul\x00in", "nul in"),
        ("one\u2028two\u2029three\x85four\x0bfive\x1csix", "one two three four five six"),
        ("no\u00a0break\u3000space", "no break space"),
        ("lost \ufffd letter", "lost \ufffd letter"),
        ("half \ud800 pair", "half \ufffd pair"),
        ("\x00\t \u2028", ""),
        ("naïve 猫 👍", "naïve 猫 👍"),
    ],
)
def test_clean_line(raw, clean):
    assert clean_line(raw) == clean


def test_decode_line_replaces_what_is_not_utf8():
    assert decode_line("£1".encode("latin-1")) == "\ufffd1"


def test_read_lines_cleans_and_counts(tmp_path):
    path = tmp_path / "raw.txt"
    path.write_bytes(
        b"\xef\xbb\xbffirst\r\n"  # a byte-order mark and a Windows line end: nothing to report
        b"\n \t \n"
        b"\xa31 million\n"
        b"nul\x00here and\x0bthere\n"
        b"inner\rreturn\n" + "a\u2028b\n".encode() + b"tab\tstop\nno line end"
    )
    report = CleaningReport()
    assert list(read_lines(path, report)) == [
        "first",
        "\ufffd1 million",
        "nul here and there",
        "inner return",
        "a b",
        "tab stop",
        "no line end",
    ]
    assert report == CleaningReport(lines=9, empty=2, invalid_utf8=1, control_characters=3)
    assert report.kept == 7


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_read_lines_decompresses(tmp_path, suffix, compress):
    whole = compress("".join(f"line {i}\n" for i in range(5000)).encode())
    path = tmp_path / f"text{suffix}"
    path.write_bytes(whole)
    assert len(list(read_lines(path))) == 5000
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VATError, match="can't be decompressed"):
        list(read_lines(path))


def test_read_lines_names_utf16(tmp_path):
    path = tmp_path / "utf16.txt"
    path.write_bytes("Hello.\n".encode("utf-16"))
    with pytest.raises(VATError, match="iconv"):
        list(read_lines(path))


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, bz2.compress])
def test_read_lines_names_what_is_compressed(compress, tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(compress(b"Hello.\n"))
    with pytest.raises(VATError, match=r"text\.txt is compressed with (gzip|xz|bzip2): "):
        list(read_lines(path))


@pytest.mark.parametrize(
    "sentences",
    [
        ["One sentence.", "Another one!", "A third?", "4 is a number."],
        ["Mr. Smith met Dr. Jones in St. Albans.", "They talked."],
        ["Growth was 3.5 per cent.", "Prices rose by $1.2bn."],
        ["J. R. R. Tolkien wrote it.", "He was English."],
        ["The U.S. Senate met.", "It voted."],
        ["He lives in the U.S.", "The house is old."],
        ["Apple Inc. chief Steve Jobs spoke.", "Shares of Apple Inc.", "The market rose."],
        ['"I am quite confident," said Claxton.', '"But I take each race as it comes."', "Yes."],
        ["(It was closed.)", "Then it opened."],
        ["See No. 5 and Fig. 3 for more.", "She said no.", "Then she left."],
        ["He waited...", "Nothing came."],
        ["“Curly quotes.”", "\u2018Single ones.\u2019", "Élan follows."],
        ["1. The first item"],
        ["He met e.g. Germans at 5 p.m. on Monday."],
    ],
)
def test_split_sentences(sentences):
    assert split_sentences("  ".join(sentences)) == sentences


def test_split_sentences_of_nothing():
    assert split_sentences(" \n ") == []
