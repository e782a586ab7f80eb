"""The subcommands that move in latent space, and those that write and read latents."""

from __future__ import annotations

import io
import json
from unittest import mock

import numpy as np
import pytest

from fairseq_vat import VATModel, pretrained
from fairseq_vat.cli import main as cli
from fairseq_vat.cli import parts
from fairseq_vat.cli.tables import to_json
from fairseq_vat.cli.terminal import highlighted

LINES = ["w1 w2 w3", "", "w9 w8"]


@pytest.fixture
def run(data_dir, checkpoint, capsys):
    """A subcommand on standard input; its status, output and errors."""

    def run(name, *flags, text=""):
        every = [name, str(data_dir), "--path", str(checkpoint), "--cpu", *map(str, flags)]
        stdin = io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8")
        with mock.patch("sys.stdin", stdin):
            try:
                status = cli.main(every)
            except SystemExit as left:  # a wrong flag
                status = left.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_reconstruct_gives_a_line_for_every_line(run, vat):
    status, out, _ = run("reconstruct", "--beam", "2", text="\n".join(LINES) + "\n")
    assert status == 0
    assert out.split("\n") == [*vat.reconstruct(LINES, beam=2), ""]


def test_input_is_worked_on_in_parts(run, monkeypatch):
    """What is printed is the same."""
    commands = [
        ("reconstruct", "w1\n\nw2 w3\nw4\nw5\n"),
        ("sample", "w1\n\nw2 w3\nw4\nw5\n"),
        ("vary", "[w1]\n\nw2 [w3]\n[w1]\n\n"),
        ("interpolate", "w1\tw2\nw3\tw4\nw5\tw6\n"),
        ("arithmetic", "w1\tw2\tw3\nw3\tw4\tw5\nw1\tw1\tw1\n"),
    ]
    whole = [run(name, "--beam", "2", text=text) for name, text in commands]
    monkeypatch.setattr(parts, "AT_ONCE", 2)
    assert [run(name, "--beam", "2", text=text) for name, text in commands] == whole
    assert all(status == 0 and not error for status, _, error in whole)


def test_text_may_begin_with_a_dash(checkpoint, capsys):
    command = ["reconstruct", str(checkpoint), "--cpu", "--json", "- w1 w2 .", "w3"]
    assert cli.main(command) == 0
    lines = [json.loads(line)["sentence"] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["- w1 w2 .", "w3"]


@pytest.mark.parametrize(
    "words", [["w1", "--", "-h w2", "--json"], ["-have w1"], ["--", "-Yes"], ["w1\u00a0w2"]]
)
def test_text_that_looks_like_flags(words, capsys):
    command = ["reconstruct", "vat-small", "--cpu", "--json", *words]
    assert cli.main(command) == 0
    lines = [json.loads(line)["sentence"] for line in capsys.readouterr().out.splitlines()]
    assert lines == [word.replace("\u00a0", " ") for word in words if word != "--"]


def test_text_that_looks_like_flags_without_its_sign(capsys):
    with pytest.raises(SystemExit):
        cli.main(["reconstruct", "vat-small", "-Yes"])
    assert "-Yes; -- goes before text that begins so" in capsys.readouterr().err


def test_a_model_without_a_name_is_not_the_packaged_one(tmp_path, capsys):
    """Such as of a variable of the shell's that isn't set."""
    (tmp_path / "text").write_text("w1\n")
    for command in (["prior", ""], ["embed", "", "--input", "text", "--output", "x.npy"]):
        assert cli.main([part.replace("text", str(tmp_path / "text")) for part in command]) == 1
        assert "checkpoint '' doesn't exist" in capsys.readouterr().err


@pytest.mark.parametrize(("encoding", "text"), [("ascii", r"\u00e9\ud83d\ude00"), ("utf-8", "é😀")])
def test_json_in_a_terminal_s_characters(encoding, text, monkeypatch):
    written = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")
    monkeypatch.setattr("sys.stdout", written)
    print(to_json({"a": "é😀"}), flush=True)
    line = written.buffer.getvalue().decode(encoding)
    assert line == f'{{"a": "{text}"}}\n'
    assert json.loads(line) == {"a": "é😀"}


def test_max_len_b(run, vat):
    flags = ("--beam", "2", "--max-len-b", "2")
    _, out, _ = run("reconstruct", *flags, text="w1 w2 w3\n")
    assert out.splitlines() == vat.reconstruct(["w1 w2 w3"], beam=2, max_len_b=2)
    assert 0 < len(out.split()) <= 2 < len(vat.reconstruct(["w1 w2 w3"], beam=2)[0].split())
    for name in ("sample", "interpolate"):
        _, out, _ = run(name, *flags, "--json", text="w1 w2 w3" + "\tw4" * (name != "sample"))
        texts = [text for found in json.loads(out).values() if isinstance(found, list)
                 for text in found]  # fmt: skip
        assert texts
        assert all(len(text.split()) <= 2 for text in texts)
    status, _, err = run("reconstruct", "--max-len-b", "0", text="w1\n")
    assert (status, err.count("\n")) == (2, 1)
    assert "argument --max-len-b: must be at least 1, not 0" in err


def test_text_in_other_subwords_is_warned_of(run, tmp_path):
    for name, flags, text in (
        ("reconstruct", (), "{0} {1}\n"),
        ("vary", (), "{0} [{1}]\n"),
        ("interpolate", (), "{0}\t{1}\n"),
        ("embed", ("--output", tmp_path / "v.npy"), "{0} {1}\n"),
    ):
        status, _, err = run(name, *flags, text=text.format("what", "ever"))
        assert status == 0
        assert "100% of the pieces in standard input are unknown to the model" in err
        assert "unknown" not in run(name, *flags, text=text.format("w1", "w2"))[2]


def test_standard_input_that_is_closed(data_dir, checkpoint, capsys):
    with mock.patch("sys.stdin", None):
        assert cli.main(["vary", str(data_dir), "--path", str(checkpoint)]) == 1
    assert capsys.readouterr().err == (
        "fairseq-vat: error: standard input is closed: give TEXT or --input FILE\n"
    )


def test_text_on_the_command_line(run, vat, checkpoint, data_dir, capsys, tmp_path):
    expected = vat.reconstruct(["w1 w2 w3", "w9 w8"], beam=2)
    assert run("reconstruct", "--beam", "2", "w1 w2 w3", "w9 w8")[1].splitlines() == expected
    way = run("interpolate", "--beam", "2", "--json", "w1 w2", "w3")[1]
    assert json.loads(way)["second"] == "w3"
    assert run("embed", "w1", "w2", "w3", "--output", tmp_path / "v.npy")[1].endswith("3 x 16\n")
    assert run("prior", "--samples", "2")[0] == 0
    for name, words, message in (
        ("interpolate", ("w1", "w2", "w3"), "2 sentences are needed, not 3"),
        ("interpolate", ("w1", ""), "the command line:1: 2 sentences with tabs between them are"),
        ("sample", ("w1", "--input", "x"), "--input: there is text on the command line too"),
        ("sample", ("w1", "--inptu", "x"), "unrecognized arguments: --inptu"),
    ):
        status, _, err = run(name, *words)
        assert status and message in err and err.count("\n") == 1


def test_the_packaged_model_is_meant_where_none_is_named(tmp_path, monkeypatch, capsys):
    assert pretrained.packaged_models() == ["vat-small"]
    sentence = "The committee will meet again on Friday."
    for words in ([sentence], ["vat-small", sentence], ["--cpu", sentence]):
        assert cli.main(["reconstruct", *words]) == 0
        assert capsys.readouterr().out == sentence + "\n"
    vat = VATModel.from_pretrained("vat-small", device="cpu")
    assert len(vat.sample_prior(2, seed=1)) == 2
    assert cli.main(["reconstruct", "Hello"]) == 1
    assert "before a text of one word give MODEL" in capsys.readouterr().err
    # it is no data of a checkpoint that is named, nor a second name
    assert cli.main(["reconstruct", sentence, "--path", "vat-small"]) == 0
    assert cli.main(["reconstruct", sentence, "--path", "nowhere.pt", "--data", "x"]) == 1
    assert "checkpoint nowhere.pt doesn't exist" in capsys.readouterr().err
    # what is there comes first
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vat-small").mkdir()
    assert cli.main(["reconstruct", "vat-small", sentence]) == 1
    assert "vat-small is a folder without" in capsys.readouterr().err


def test_what_changed_is_marked_on_a_terminal(monkeypatch):
    texts = ("The cat sat down here.", "The dog sat here.")
    assert highlighted(*texts) == texts[1]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    marked = highlighted(*texts)
    assert "\033[1;32mdog\033[0m" in marked and "\033[9;90mdown\033[0m" in marked
    monkeypatch.setenv("NO_COLOR", "1")
    assert highlighted(*texts) == texts[1]


def test_a_byte_order_mark_is_no_text(run, vat):
    _, out, _ = run("reconstruct", "--beam", "2", text="\ufeffw1 w2 w3\n")
    assert out.splitlines() == vat.reconstruct(["w1 w2 w3"], beam=2)


def test_sample_and_vary(run, vat, tmp_path):
    flags = ("--samples", "3", "--temperature", "4", "--beam", "2", "--json")
    (tmp_path / "text").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    _, out, _ = run("sample", "--input", tmp_path / "text", *flags)
    found = [json.loads(line) for line in out.splitlines()]
    assert [line["sentence"] for line in found] == LINES
    assert [line["samples"] for line in found] == vat.sample(LINES, 3, temperature=4, beam=2)
    assert [line["mean"] for line in found] == vat.reconstruct(LINES, beam=2)

    text = "w1 {w2} w3\n"
    _, out, _ = run("vary", *flags, "--marks", "{}", text=f"\n{text}")
    empty, out = out.split("\n", 1)  # a result for each line
    assert json.loads(empty) == {"sentence": "", "mean": "", "samples": [""] * 3}
    expected = vat.vary(["w1 {w2} w3"], 3, temperature=4, beam=2, marks="{}")[0]
    assert json.loads(out)["samples"] == expected
    assert json.loads(out)["mean"] == vat.reconstruct(["w1 w2 w3"], beam=2)[0]
    _, out, _ = run("vary", *flags[:-1], "--marks", "{}", text=text)
    assert out.splitlines()[0] == "sentence    w1 {w2} w3"
    counts = [line[:12].strip() for line in out.splitlines()[2:]]
    assert sum(int(count.partition(" x")[2] or 1) for count in counts) == 3


@pytest.mark.parametrize("marks", ["x", "[[", "[ ] {", "\\\\ ]"])
def test_marks_that_are_none_are_not_the_input_s_fault(run, marks):
    for text in ("w1 [w2]\n", "w1\n"):
        status, out, err = run("vary", "--marks", marks, text=text)
        assert (status, out) == (1, "") and err.count("\n") == 1
        assert err.startswith(f"fairseq-vat: error: marks {marks!r}: give an opening and a closing")


def test_interpolate_and_arithmetic(run, vat):
    _, out, _ = run("interpolate", "--steps", "3", "--beam", "2", text="w1 w2\tw3 w4 w5\n")
    way = vat.interpolate(["w1 w2"], ["w3 w4 w5"], steps=3, beam=2)[0]
    assert out.splitlines() == [
        "first   w1 w2",
        *(f"{t:<8}{text}" for t, text in zip(("0.00", "0.50", "1.00"), way, strict=True)),
        "second  w3 w4 w5",
    ]
    _, out, _ = run("arithmetic", "--beam", "2", text="w1 w2\tw3\tw4\n")
    assert out.splitlines() == vat.arithmetic(["w1 w2"], ["w3"], ["w4"], beam=2)


def test_arithmetic_of_two_files(run, vat, tmp_path):
    source, target = ["w1 w2", "w3"], ["w4 w5 w6", "w7", "w8 w8"]
    (tmp_path / "from").write_text("\n".join(source) + "\n\n", encoding="utf-8")
    (tmp_path / "to").write_text("\n".join(target) + "\n", encoding="utf-8")
    (tmp_path / "none").write_text("\n\n", encoding="utf-8")
    files = ("--from", tmp_path / "from", "--to", tmp_path / "to")
    flags = (*files, "--scale", "-30", "--pooling", "start", "--beam", "2", "--max-len-b", "9")
    text = "\n".join(LINES) + "\n"
    expected = vat.shift(
        LINES, vat.direction(source, target, "start"), scale=-30, beam=2, max_len_b=9
    )
    assert expected != vat.reconstruct(LINES, beam=2, max_len_b=9)
    status, out, _ = run("arithmetic", *flags, text=text)
    assert (status, out.split("\n")[:-1]) == (0, expected)
    _, out, _ = run("arithmetic", *flags, "--json", text=text)
    assert [json.loads(line) for line in out.splitlines()] == [
        {"sentence": sentence, "result": text}
        for sentence, text in zip(LINES, expected, strict=True)
    ]
    for wrong, message in (
        (files[:2], "--from and --to: give both"),
        (("--scale", "2"), "--scale is of --from and --to"),
        (("--from", tmp_path / "none", *files[2:]), "none has no sentence: give a line at least"),
        ((*files, "--scale", "nan"), "--scale: must be a finite number, not nan"),
    ):
        status, out, err = run("arithmetic", *wrong, text=text)
        assert status and not out
        assert message in err


def test_prior(run, vat):
    _, out, _ = run("prior", "--samples", "3", "--beam", "2", "--length", "4")
    assert out.splitlines() == vat.sample_prior(3, length=4, beam=2)


def test_embed_encode_decode(run, vat, tmp_path):
    text = "\n".join(LINES) + "\n"
    status, out, _ = run("embed", "--pooling", "sum", "--output", tmp_path / "v.npy", text=text)
    assert (status, out) == (0, f"{tmp_path / 'v.npy'}: 3 x 16\n")
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy"), vat.embed(LINES, "sum"))

    run("encode", "--output", tmp_path / "z.npz", text=text)
    with np.load(tmp_path / "z.npz") as latents:
        assert latents["mask"].sum(axis=1).tolist() == [5, 2, 4]
        assert latents["mean"].shape == latents["logvar"].shape == (3, 5, 16)
    _, out, _ = run("decode", "--input", tmp_path / "z.npz", "--beam", "2")
    plain = vat.reconstruct(LINES, beam=2)
    found = out.split("\n")[:3]
    assert [found[0], found[2]] == [plain[0], plain[2]]
    _, out, _ = run("decode", "--input", tmp_path / "z.npz", "--beam", "2", "--json")
    assert [json.loads(line) for line in out.splitlines()] == [{"text": text} for text in found]


@pytest.mark.parametrize(
    ("command", "text", "message"),
    [
        (["reconstruct"], "", "standard input is empty"),
        (
            ["vary"],
            "[w1]\n\nw1 w2\n",
            "standard input:3: 'w1 w2': no word is marked; put [ and ] around",
        ),
        (["vary"], "w1 [w2\n", "'[' without ']' after it"),
        (["vary"], "\n\n", "empty lines only"),
        (["interpolate"], "w1\tw2\nw3\n", "standard input:2: 2 sentences with tabs between"),
        (["interpolate"], "w1\tw2\nw3\t\n", "standard input:2: 2 sentences with tabs between"),
        (["interpolate"], "w1\tw2\t\n", "are needed, not 3"),
        (["interpolate", "--steps", "1"], "w1\tw2\n", "--steps: must be at least 2, not 1"),
        (["sample", "--temperature", "0"], "w1\n", "--temperature: must be above 0, not 0"),
        (["arithmetic"], "w1\tw2\n", "standard input:1: 3 sentences"),
        (["sample", "--input", "nowhere.txt"], "", "nowhere.txt: No such file"),
        (["embed", "--output", "v.txt"], "w1\n", "must end in .npy"),
        (["embed", "--output", "none/v.npy"], "w1\n", "the folder of none/v.npy doesn't exist"),
        (["prior", "--length", "9999"], "", "must be from 1 to"),
    ],
)
def test_mistakes(run, tmp_path, monkeypatch, command, text, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(*command, text=text)
    assert status == (2 if "error: argument " in err else 1)
    assert out == ""
    assert message in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_decode_refuses_what_holds_no_latents(run, tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    (tmp_path / "text.npz").write_text("text", encoding="utf-8")
    np.save(tmp_path / "number.npy", np.float32(3))
    np.save(tmp_path / "words.npy", np.array([["a", "b"]]))
    np.save(tmp_path / "complex.npy", np.ones((2, 16), dtype=complex))
    np.savez(tmp_path / "bytes.npz", mean=np.array([b"abc"]), mask=np.array([True]))
    for name, header in (("brackets", "(" * 5000), ("shape", f"{{'shape': ({10**23}, 8)}}")):
        content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
        (tmp_path / f"{name}.npy").write_bytes(content)
    files = ("objects.npy", "other.npz", "text.npz", "number.npy", "words.npy", "complex.npy")
    files += ("bytes.npz", "brackets.npy", "shape.npy")
    for name in files:
        status, _, err = run("decode", "--input", tmp_path / name)
        assert status == 1
        assert "isn't a .npz of 'fairseq-vat encode'" in err
    np.save(tmp_path / "wide.npy", np.zeros((2, 3, 5)))
    assert "needs (P, 16)" in run("decode", "--input", tmp_path / "wide.npy")[2]
    np.save(tmp_path / "far.npy", np.full((2, 3, 16), 1e38))
    assert "aren't finite, or too large" in run("decode", "--input", tmp_path / "far.npy")[2]
