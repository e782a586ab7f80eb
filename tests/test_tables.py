"""Tables, and flags whose values are checked while they are parsed."""

from __future__ import annotations

import argparse
import re

import pytest

from fairseq_vat.cli.flags import Parser, above, at_least, between, output_file
from fairseq_vat.cli.tables import FORMATS, MISSING, WIDTH, add_format_flag, prose, table
from fairseq_vat.errors import VATError

COLUMNS = (("name", "", ""), ("kl", "KL", ".2f"), ("none", "none", "d"), ("count", "n", ",d"))
ROWS = [
    {"name": "a, b", "kl": 1.0, "none": None, "count": 1234, "unused": 5},
    {"name": "c|d", "kl": "2.00 ± 0.10", "count": None},
]


def test_columns_are_named_and_numbers_to_the_right():
    assert table(ROWS, COLUMNS).splitlines() == [
        "|      |          KL |     n |",
        "|:-----|------------:|------:|",
        "| a, b |        1.00 | 1,234 |",
        f"| c\\|d | 2.00 ± 0.10 |     {MISSING} |",
    ]


def test_a_row_of_dashes_is_left_out():
    rows = [*ROWS, {"name": "nothing", "unused": 1}]
    for style in FORMATS:
        assert table(rows, COLUMNS, style) == table(ROWS, COLUMNS, style)


def test_a_wide_table_becomes_several():
    columns = [("name", "name", ""), *((str(n), f"column {n}", ".1f") for n in range(20))]
    rows = [{"name": name, **{str(n): n * 1e6 for n in range(20)}} for name in ("one", "another")]
    parts = [part.splitlines() for part in table(rows, columns, "plain").split("\n\n")]
    assert len(parts) > 2 and max(len(line) for part in parts for line in part) <= WIDTH
    for row, name in enumerate(["name", "one", "another"]):
        cells = [cell for part in parts for cell in re.split(r"\s{2,}", part[row].strip())[1:]]
        assert all(part[row].startswith(name) for part in parts)
        assert cells == [f"column {n}" if row == 0 else f"{n * 1e6:.1f}" for n in range(20)]
    # one column beside the names can't be split, and files are for programs
    assert "\n\n" not in table([{"name": 200 * "x", "0": 1.0}], columns[:2], "plain")
    assert all("\n\n" not in table(rows, columns, style) for style in ("csv", "latex", "github"))


def test_formats():
    assert table(ROWS, COLUMNS, "csv") == f',KL,n\n"a, b",1.00,"1,234"\nc|d,2.00 ± 0.10,{MISSING}'
    latex = table(ROWS, COLUMNS, "latex")
    assert latex.startswith("\\begin{tabular}{lrr}") and "none" not in latex
    assert table(ROWS, COLUMNS, "plain").splitlines()[1].split() == ["a,", "b", "1.00", "1,234"]
    assert table([], COLUMNS) == table([{"other": 1}], COLUMNS) == ""
    parser = Parser()
    add_format_flag(parser)
    assert parser.parse_args([]).format == "plain"
    assert [bool(prose(style, "text")) for style in FORMATS] == [True, False, False, True]


@pytest.mark.parametrize(
    ("kind", "right", "wrong", "message"),
    [
        (at_least(1), 1, "0", "must be at least 1, not 0"),
        (at_least(1), 7, "1.5", "must be a whole number, not '1.5'"),
        (at_least(0.5, float), 0.5, "0.4", "must be at least 0.5, not 0.4"),
        (above(0), 1e-9, "0", "must be above 0, not 0"),
        (above(0), 2, "inf", "must be above 0, not inf"),
        (above(0, 1), 1, "1.1", "must be above 0 and at most 1, not 1.1"),
        (between(0, 1), 0, "nan", "must be from 0 to 1, not nan"),
        (between(2, 3, int), 3, "4", "must be from 2 to 3, not 4"),
        (between(0, 1), 1, "x", "must be a number, not 'x'"),
        (output_file(".npy"), "a.npy", "a.txt", "must end in .npy, not a.txt"),
    ],
)
def test_checked_values(kind, right, wrong, message, capsys):
    parser = Parser(prog="program")
    parser.add_argument("--flag", type=kind)
    assert parser.parse_args(["--flag", str(right)]).flag == right
    with pytest.raises(SystemExit) as left:
        parser.parse_args(["--flag", wrong])
    assert left.value.code == 2
    assert capsys.readouterr().err == f"program: error: argument --flag: {message}\n"


def test_a_folder_is_no_file_to_write(tmp_path):
    (tmp_path / "x.npy").mkdir()
    with pytest.raises(argparse.ArgumentTypeError, match=r"x\.npy is a folder"):
        output_file(".npy")(str(tmp_path / "x.npy"))


@pytest.mark.parametrize("error", [VATError("what\nis wrong"), FileNotFoundError(2, "gone", "f")])
def test_errors_of_scripts_are_one_line(error, capsys):
    parser = Parser(prog="program")
    assert isinstance(parser, argparse.ArgumentParser)
    with pytest.raises(SystemExit) as left, parser.one_line_errors():
        raise error
    told = "what is wrong" if isinstance(error, VATError) else "f: gone"
    assert left.value.code == 1
    assert capsys.readouterr().err == f"program: error: {told}\n"
