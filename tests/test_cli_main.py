"""The ``fairseq-vat`` command: its subcommands, its errors, its exit statuses."""

import errno
import json
import os
import random
import re
import shlex
import subprocess
import sys
from types import SimpleNamespace

import demo_text
import pytest
import sentencepiece
from helpers.processes import locked_by_another

from fairseq_vat import __version__
from fairseq_vat.cli import main as cli
from fairseq_vat.errors import VATError
from fairseq_vat.files import atomic_path
from fairseq_vat.text.subwords import SentencepieceVocabulary
from fairseq_vat.text.tokenization import tokenize


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefghijklm", k=rng.randint(2, 5))) for _ in range(200)]
    path = tmp_path_factory.mktemp("own") / "text.txt"
    lines = [" ".join(rng.choices(words, k=rng.randint(4, 12))) + "." for _ in range(600)]
    path.write_text("\n".join([*lines, "", "nul \x00 byte here"]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def splits(text):
    folder = text.parent / "splits"
    assert demo_text.main([str(folder), "--input", str(text)]) == 0
    return folder


def _tokenize(splits, out, *more):
    names = ("train", "valid", "test")
    files = [item for name in names for item in (f"--{name}", str(splits / f"{name}.txt"))]
    return ["tokenize", *files, "--output", str(out), *more]


def test_demo_text_is_deterministic(text, splits, tmp_path, capsys):
    assert demo_text.main([str(tmp_path), "--input", str(text)]) == 0
    printed = capsys.readouterr().out
    assert "601 lines" not in printed
    assert "602 lines: 1 empty" in printed
    assert "1 with NUL" in printed
    for name in ("train", "valid", "test"):
        assert (tmp_path / f"{name}.txt").read_bytes() == (splits / f"{name}.txt").read_bytes()


def test_tokenize_makes_and_reuses(splits, tmp_path, capsys):
    command = _tokenize(splits, tmp_path, "--vocab-size", "128", "--max-pieces", "30")
    assert cli.main(command) == 0
    assert "training with 128 symbols" in capsys.readouterr().out
    files = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("[!.]*")}
    assert set(files) == {
        "dict.txt",
        "sentencepiece.json",
        "sentencepiece.model",
        "test.pieces",
        "tokenize.json",
        "train.pieces",
        "valid.pieces",
    }
    assert len((tmp_path / "dict.txt").read_text(encoding="utf-8").splitlines()) == 128 - 4
    longest = max(len(line.split()) for line in (tmp_path / "train.pieces").open(encoding="utf-8"))
    assert longest <= 30

    assert cli.main(command) == 0
    assert "up to date" in capsys.readouterr().out
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("[!.]*")} == files

    # One missing file is made again, with the model that is there.
    (tmp_path / "dict.txt").unlink()
    assert cli.main(command) == 0
    assert (tmp_path / "sentencepiece.model").stat().st_mtime_ns == files["sentencepiece.model"]
    assert (tmp_path / "dict.txt").exists()

    assert cli.main(_tokenize(splits, tmp_path, "--vocab-size", "96", "--max-pieces", "30")) == 0
    assert len((tmp_path / "dict.txt").read_text(encoding="utf-8").splitlines()) == 96 - 4


def test_tokenize_from_python(splits, tmp_path):
    texts = {name: splits / f"{name}.txt" for name in ("train", "valid", "test")}
    told = []
    found = tokenize(texts, tmp_path, vocab_size=96, tell=told.append)
    assert found == json.loads((tmp_path / "tokenize.json").read_text(encoding="utf-8"))
    assert found["dictionary"] == 96 and len(told) == 8
    assert tokenize(texts, tmp_path, vocab_size=96, tell=told.append) == found
    assert "up to date" in told[-1]


def test_tokenize_with_a_given_model(splits, tmp_path, capsys):
    assert cli.main(_tokenize(splits, tmp_path / "first", "--vocab-size", "64")) == 0
    given = ("--sentencepiece-model", str(tmp_path / "first/sentencepiece.model"))
    assert cli.main(_tokenize(splits, tmp_path / "second", *given)) == 0
    for name in ("dict.txt", "train.pieces", "sentencepiece.model"):
        first, second = (tmp_path / folder / name for folder in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
    capsys.readouterr()
    assert cli.main(_tokenize(splits, tmp_path / "third", *given, "--vocab-size", "72")) == 1
    assert "give 64" in capsys.readouterr().err
    coverage = ("--character-coverage", "1")
    assert cli.main(_tokenize(splits, tmp_path / "fourth", *given, *coverage)) == 1
    assert "--character-coverage is of a new model's training" in capsys.readouterr().err
    with locked_by_another(tmp_path / "fifth"):
        assert cli.main(_tokenize(splits, tmp_path / "fifth", *given)) == 1
    assert "another run is at work there" in capsys.readouterr().err


def test_a_model_whose_sentences_begin_like_text_is_refused(splits, tmp_path):
    sentencepiece.SentencePieceTrainer.train(
        input=str(splits / "train.txt"),
        model_prefix=str(tmp_path / "bare"),
        vocab_size=64,
        add_dummy_prefix=False,
        minloglevel=2,
    )
    with pytest.raises(VATError, match=r"bare\.model: its sentences don't begin with"):
        SentencepieceVocabulary(tmp_path / "bare.model")


def test_tokenize_refuses_what_leaves_nothing(splits, tmp_path, capsys):
    command = _tokenize(splits, tmp_path, "--vocab-size", "64", "--max-pieces", "1")
    assert cli.main(command) == 1
    assert "no sentence is left" in capsys.readouterr().err
    assert not (tmp_path / "tokenize.json").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["plot", "missing.log", "--output", "x"], "missing.log: No such file"),
        (["show", "--mean", "."], "generate-SUBSET.txt"),
    ],
)
def test_errors_are_one_line(command, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(command) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("fairseq-vat: error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_tracebacks_are_there_for_who_asks(monkeypatch, capsys):
    command = ["reconstruct", "none.pt", "--input", "none.txt"]
    monkeypatch.setenv("FAIRSEQ_VAT_DEBUG", "0")
    assert cli.main(command) == 1
    monkeypatch.setenv("FAIRSEQ_VAT_DEBUG", "1")
    with pytest.raises(FileNotFoundError):
        cli.main(command)


def test_wrong_usage_exits_with_2(capsys):
    for command, message in (
        ([], "fairseq-vat: error: the following arguments are required: COMMAND"),
        (["no-such-command"], "fairseq-vat: error: argument COMMAND: invalid choice"),
        (["plot"], "fairseq-vat plot: error: the following arguments are required: RUN, --output"),
        (["show", "--mean", "x", "--every", "0"],
         "fairseq-vat show: error: argument --every: must be at least 1, not 0"),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as caught:
            cli.main(command)
        assert caught.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith(message) and error.count("\n") == 1


def test_every_subcommand_has_help(capsys):
    listing = cli.build_parser().format_help()
    names = re.findall(r"^  (\w+) {2,}\w", listing.partition("commands (")[2], re.MULTILINE)
    assert len(names) >= sum(map(len, cli.SUBCOMMANDS.values()))
    assert {"tokenize", "show", "evaluate", "interpolate", "isotropy", "sts"} <= set(names)
    assert all(f"\n{title}:\n" in listing for title in cli.SUBCOMMANDS)
    for name in names:
        with pytest.raises(SystemExit) as caught:
            cli.main([name, "--help"])
        assert caught.value.code == 0
        text = capsys.readouterr().out
        assert f"usage: fairseq-vat {name}" in text and "SUPPRESS" not in text
        assert max(map(len, text.splitlines())) <= 100
        example = text.rpartition("\nexample:\n")[2].rpartition(" | ")[2]
        args, further = cli.build_parser().parse_known_args(shlex.split(example)[1:])
        assert f"fairseq-vat {name} " in example and callable(args.run)
        assert not further or args.takes_further_flags


def test_a_flag_of_fairseq_s_before_the_experiment_is_told(capsys):
    assert cli.main(["train", "--max-update", "3", "vat_small", "data", "folder"]) == 1
    assert "PRESET 3: must be one of" in capsys.readouterr().err


def test_one_name_for_one_thing():
    """Earlier names go on working."""
    parse = cli.build_parser().parse_args
    texts = ["--train", "a", "--valid", "b", "--test", "c"]
    for command in (["tokenize", *texts], ["prepare", *texts], ["plot", "train.log"]):
        for flag in ("--output", "--out"):
            assert parse([*command, flag, "folder"]).output == "folder"
    for flag in ("--sentences", "--first"):
        assert parse(["evaluate", "model", flag, "7"]).sentences == 7
    for flag in ("--examples", "-n"):
        assert parse(["show", "--mean", "x", flag, "7"]).examples == 7


@pytest.mark.parametrize(
    ("command", "flag", "values"),
    [
        ("sts", "--sts", ["a", "b"]),
        ("sts --sts x", "--hf", ["a", "b"]),
        ("sts --sts x", "--pooling", ["start", "sum"]),
        ("isotropy", "--text", ["a", "b"]),
        ("probe", "--mode", ["features", "finetune"]),
        ("probe", "--pooling", ["mean", "sum"]),
        ("probe", "--hf", ["a", "b"]),
    ],
)
def test_lists_of_values(command, flag, values, tmp_path, capsys):
    name, *more = command.split()
    parse = cli.build_parser().parse_args
    for written in (values, [",".join(values)], [values[0], flag, values[1]]):
        for line in (
            [name, "MODEL", *more, flag, *written],
            [name, flag, *written, *more, "--cpu", "MODEL"],
        ):
            args = parse(line)
            assert getattr(args, flag[2:]) == values and args.model == "MODEL"
    # as the last value MODEL would be one, and that is said
    with pytest.raises(SystemExit) as left:
        parse([name, *more, flag, *values, "MODEL"])
    error = capsys.readouterr().err
    assert left.value.code == 2 and error.count("\n") == 1
    assert flag in error and "MODEL" in error and "before" in error


def test_a_path_with_a_comma(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a,b").touch()
    args = cli.build_parser().parse_args(["sts", "MODEL", "--sts", "a,b", "c,d"])
    assert args.sts == ["a,b", "c", "d"]


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"fairseq-vat {__version__}\n"


@pytest.fixture
def ending_with(monkeypatch):
    """Make the command end with an exception."""

    def set_exception(exception):
        def run(args):
            raise exception

        parser = SimpleNamespace(parse_known_args=lambda argv: (SimpleNamespace(run=run), []))
        monkeypatch.setattr(cli, "build_parser", lambda: parser)

    return set_exception


def test_interrupt_exits_with_130(ending_with, capsys):
    ending_with(KeyboardInterrupt())
    assert cli.main([]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_reader_that_went_away_is_no_traceback(ending_with, monkeypatch):
    ending_with(BrokenPipeError())
    read_end, write_end = os.pipe()
    with os.fdopen(read_end), os.fdopen(write_end, "w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        assert cli.main([]) == 1


def _generated(path, outputs, latents=(), sentence="The cat sat on the mat."):
    lines = [f"T-0\t{sentence}", *(f"D-0\t-0.1\t{output}" for output in outputs)]
    lines += [f"I-0\tlatents: {name}" for name in latents]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize("arguments", [["train", "--presets"], ["prior", "--samples", "1"]])
def test_a_closed_standard_output_is_one_line(arguments, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout", None)
    assert cli.main(arguments) == 1
    told = capsys.readouterr().err
    assert told == "fairseq-vat: error: standard output is closed: nothing can be printed\n"


def test_a_file_too_large_is_named(tmp_path):
    def write(error):
        with atomic_path(tmp_path / "x.npy"):
            raise error

    for error in (OSError("9 requested and 3 written"), RuntimeError("PytorchStreamWriter failed")):
        with pytest.raises(OSError, match=r"is the disk full\?: '.*x\.npy'"):
            write(error)
    with pytest.raises(OSError, match=r"No space left on device: '.*x\.npy'"):
        write(OSError(errno.ENOSPC, "No space left on device"))
    assert not list(tmp_path.iterdir())
    with pytest.raises(IsADirectoryError, match=str(tmp_path)), atomic_path(tmp_path):
        pytest.fail("a folder is no place for a file's content")


def test_show(tmp_path, capsys):
    mean, samples = tmp_path / "mean.txt", tmp_path / "samples.txt"
    _generated(mean, ["The cat sat on the mat."], ["mean"])
    drawn = ["The cat sat on the hat.", "The cat sat on the mat."]
    _generated(samples, drawn, ["draw 1", "draw 2"])
    command = ["show", "--mean", str(mean), "--samples", str(samples)]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert "from mean     The cat sat on the mat.\nsample 1      The cat sat on the hat." in printed
    assert "1 sentences: BLEU 100.0, 100.0% equal" in printed
    assert cli.main([*command, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["sentences"][0]["samples"][0].endswith("hat.")
    assert shown["figures"]["samples"]["distinct_per_sentence"] == 2
    samples.write_text("T-0\tAnother one.\nD-0\t-0.1\tx\n", encoding="utf-8")
    assert cli.main(command) == 1
    assert "differ in sentence 0" in capsys.readouterr().err


def test_show_says_from_mean_of_what_is_from_the_mean(tmp_path, capsys):
    mean, samples, unknown = (tmp_path / name for name in ("mean", "samples", "unknown"))
    _generated(mean, ["One."], ["mean"])
    _generated(samples, ["One."], ["draw 1"])
    _generated(unknown, ["One."])
    assert cli.main(["show", "--mean", str(samples)]) == 1
    assert "with --latent-sampling" in capsys.readouterr().err
    assert cli.main(["show", "--mean", str(mean), "--samples", str(mean)]) == 1
    assert "without --latent-sampling" in capsys.readouterr().err
    assert cli.main(["show", "--mean", str(unknown), "--samples", str(unknown)]) == 0
    captured = capsys.readouterr()
    assert "\nhypothesis    One.\nhypothesis 1  One.\n" in captured.out
    assert not re.search(r"from mean|from the mean|sample 1|Samples", captured.out)
    assert "warning" in captured.err and captured.err.count("\n") == 1
    assert cli.main(["show", "--mean", str(mean), "--samples", str(samples)]) == 0
    assert not capsys.readouterr().err


def test_show_names_bleu_of_pieces_and_marks_the_unknown(tmp_path, capsys):
    path = tmp_path / "mean"
    pieces = "\u2581The \u2581cat \u2581s at \u2581on \u2581the \u2581mat ."
    _generated(path, [pieces], ["mean"], pieces)
    assert cli.main(["show", "--mean", str(path)]) == 0
    captured = capsys.readouterr()
    assert "1 sentences: BLEU of pieces 100.0" in captured.out and "--post-process" in captured.err
    assert cli.main(["show", "--mean", str(path), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["figures"]["mean"]) == {
        *("sentences", "bleu_of_pieces", "exact_match")
    }
    _generated(path, ["Caf<unk> Noir"], ["mean"], "Caf<<unk>> Noir")
    assert cli.main(["show", "--mean", str(path)]) == 0
    assert "Caf\u2047 Noir\nfrom mean     Caf<unk> Noir\n" in capsys.readouterr().out


def test_show_every_nth(tmp_path, capsys):
    lines = [
        f"{kind}-{i}\t{score}s {i}" for i in range(7) for kind, score in (("T", ""), ("D", "-1\t"))
    ]
    path = tmp_path / "mean.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert cli.main(["show", "--mean", str(path), "--every", "3", "-n", "2", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [sentence["id"] for sentence in shown["sentences"]] == [0, 3]


def test_commands_begin_without_scikit_learn(checkpoint, monkeypatch):
    monkeypatch.setenv("WHOLE_FAIRSEQ", "1")  # else tests' processes are spared it in any case
    code = (
        "import sys; from fairseq_vat.cli.main import main; "
        "assert main(['reconstruct', sys.argv[1], 'w1 w2', '--cpu']) == 0; "
        "assert 'fairseq' in sys.modules and 'sklearn' not in sys.modules"
    )
    command = [sys.executable, "-c", code, str(checkpoint)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout, done.stderr
