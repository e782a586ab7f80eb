"""``fairseq-vat classify`` on labels that a word decides, and on files that are wrong."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import random
import re

import pytest
from helpers import commands
from helpers.text import sentences

from fairseq_vat.cli import main as cli
from fairseq_vat.cli.tables import WIDTH
from fairseq_vat.errors import VATError
from fairseq_vat.evaluation.classify import classify as run_classify
from fairseq_vat.evaluation.labelled import LabelledFiles
from fairseq_vat.text import subwords
from fairseq_vat.text.columns import read_labelled

SPLITS = ("train", "valid", "test")
QUICK = ("--cpu", "--seeds", "2", "--pooling", "sum")


def write(folder, label_of, count=300):
    """Labelled toy sentences; returns the flags that name the files."""
    flags = []
    for seed, (name, share) in enumerate(zip(SPLITS, (1, 0.3, 0.3), strict=True)):
        lines = [f"{label_of(s)}\t{s}" for s in sentences(int(count * share), 10 + seed)]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        flags += [f"--{name}", str(folder / name)]
    return flags


def by_words(sentence):
    return "low" if {"w0", "w1", "w2", "w3", "w4"} & set(sentence.split()) else 'high "quoted"'


@pytest.fixture
def classify(subcommand):
    return subcommand("classify", *QUICK)


@pytest.fixture(scope="module")
def two_labels(data_dir, checkpoint, tmp_path_factory):
    """The folder of files with two labels, flags that name them, and what comes of them."""
    folder = tmp_path_factory.mktemp("two_labels")
    flags = write(folder, by_words)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        command = ["classify", str(data_dir), "--path", str(checkpoint), *QUICK, *flags, "--json"]
        assert cli.main(command) == 0
    return folder, flags, json.loads(output.getvalue())


def test_two_labels(classify, two_labels):
    folder, flags, found = two_labels
    assert found["protocol"] == "converged"
    assert found["standardized"]
    assert found["converged"] == [True, True]
    assert list(found["labels"]) == ['high "quoted"', "low"]
    assert found["examples"] == {"train": 300, "valid": 90, "test": 90}
    assert sum(found["labels"].values()) == 300
    assert found["latent_level"] == "token"
    assert found["pooling"] == "sum"
    assert found["unknown_share"] == dict.fromkeys(SPLITS, 0)
    for name in SPLITS:
        nothing, classifier = found["majority"][name], found["classifier"][name]
        assert classifier["accuracy"] > nothing["accuracy"] + 5
        assert classifier["loss"] < nothing["loss"] - 0.05
        assert classifier["loss_std"] >= 0
        regression = found["logistic_regression"][name]
        assert regression["accuracy"] > nothing["accuracy"] + 5
    assert found["logistic_regression"]["converged"]
    test = [by_words(*line.sentences) for line in read_labelled(folder / "test")]
    majority = max(found["labels"], key=found["labels"].get)
    share = 100 * test.count(majority) / len(test)
    assert found["majority"]["test"]["accuracy"] == pytest.approx(share)
    assert classify(*flags, "--json") == found  # nothing is left to chance
    assert not classify.warnings


def test_the_table_shows_the_same_figures(classify, two_labels):
    _, flags, found = two_labels
    table = classify(*flags)
    assert "300 train, 90 valid, 90 test" in table
    *_, losses, accuracies = table.split("\n\n")
    for text, figure, title, form in (
        (losses, "loss", "BCE, nats", "{:.3f}"),
        (accuracies, "accuracy", "accuracy, %", "{:.1f}"),
    ):
        head, *lines = text.strip().splitlines()
        assert re.split(r"\s{2,}", head.strip()) == [title, *SPLITS]
        assert max(map(len, lines)) <= WIDTH
        parts = [re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in lines]
        rows = {name: re.findall(r"[\d.]+", rest) for name, rest in parts}
        scores = (found["classifier"][name] for name in SPLITS)
        pairs = [(score[figure], score[f"{figure}_std"]) for score in scores]
        assert rows["classifier"] == [form.format(value) for pair in pairs for value in pair]
        for name, key in (
            ("logistic regression", "logistic_regression"),
            ("most frequent label", "majority"),
        ):
            assert rows[name] == [form.format(found[key][split][figure]) for split in SPLITS]


def test_labels_are_shared_out_as_by_probe(classify, subcommand, tmp_path):
    """Shares of the training file, and what its most frequent label comes to elsewhere."""
    flags = write(tmp_path, by_words)
    quick = ("--epochs", "2")
    probe = subcommand("probe", "--cpu", "--seeds", "1", "--hidden", "0", "--pooling", "sum")
    one, other = classify(*flags, *quick, "--json"), probe(*flags, "--json")
    assert one["labels"] == other["labels"] and one["examples"] == other["examples"]
    for name in ("valid", "test"):
        assert one["majority"][name]["accuracy"] == other["majority"][name]["accuracy"]
    one, other = classify(*flags, *quick), probe(*flags)
    shares, same = (re.search(r"training labels: (.*)", text)[1] for text in (one, other))
    assert shares == same and "%" in shares
    rows = [re.findall(r"^most frequent label .*", text, re.MULTILINE)[-1] for text in (one, other)]
    assert rows[0].split()[-2:] == rows[1].split()[-2:]


def test_in_python_it_is_a_function(classify, vat, tmp_path):
    flags = [*write(tmp_path, by_words), "--epochs", "2"]
    printed = classify(*flags, "--json")
    files = LabelledFiles.read({name: tmp_path / name for name in SPLITS}).in_subwords(vat)
    found = run_classify(vat, files, pooling="sum", seeds=2, epochs=2)
    assert found.keys() | {"checkpoint", "data"} == printed.keys()
    assert found == {name: printed[name] for name in found}
    # in whatever order the files come
    order = ("train", "test", "valid")
    files = LabelledFiles.read({name: tmp_path / name for name in order}).in_subwords(vat)
    other = run_classify(vat, files, pooling="sum", seeds=2, epochs=2)
    for name in ("classifier", "logistic_regression"):
        assert other[name]["test"] == pytest.approx(found[name]["test"])


def test_the_table_as_csv_is_nothing_else(classify, tmp_path):
    flags = [*write(tmp_path, by_words), "--epochs", "2"]
    losses, accuracies = classify(*flags, "--format", "csv").split("\n\n")
    score = classify(*flags, "--json")["logistic_regression"]["test"]
    for text, head, value in (
        (losses, "BCE, nats", f"{score['loss']:.3f}"),
        (accuracies, "accuracy, %", f"{score['accuracy']:.1f}"),
    ):
        rows = list(csv.DictReader(io.StringIO(text)))
        names = ["classifier", "logistic regression", "most frequent label"]
        assert [row[head] for row in rows] == names
        assert rows[1]["test"] == value


def test_the_paper_s_protocol_by_its_name(classify, tmp_path):
    flags = write(tmp_path, by_words)
    paper = ("--protocol", "paper", "--pooling", "mean")
    found, table = classify(*flags, "--json", *paper), classify(*flags, *paper)
    assert not found["standardized"]
    assert (found["lr"], found["epochs"], found["batch_size"]) == (1e-4, 20, 32)
    assert found["trained_epochs"] == [20, 20]
    assert found["converged"] == [None, None]
    assert "of 20, a fixed number: not trained until it has converged" in table
    # it hasn't left what knowing nothing gives, and the logistic regression has
    nothing = found["majority"]["train"]["accuracy"]
    assert found["classifier"]["train"]["accuracy"] < nothing + 3
    assert found["logistic_regression"]["train"]["accuracy"] > nothing + 5
    default = classify(*flags, "--json", "--pooling", "mean")
    assert default["classifier"]["train"]["accuracy"] > nothing + 5


def test_a_training_that_is_cut_off_says_so(classify, tmp_path):
    flags = [*write(tmp_path, by_words), "--epochs", "2"]
    assert classify(*flags, "--json")["converged"] == [False, False]
    assert "2 of 2 had NOT converged: give more --epochs" in classify(*flags)


def test_many_labels_and_one_seed(classify, tmp_path):
    flags = write(tmp_path, lambda sentence: f"length {len(sentence.split()) // 3}")
    found = classify(*flags, "--json", "--seeds", "1")
    assert list(found["labels"]) == [f"length {n}" for n in range(4)]
    test = found["classifier"]["test"]
    assert test["accuracy"] > found["majority"]["test"]["accuracy"] + 5
    assert test["accuracy_std"] is None
    assert "CE, nats" in classify(*flags, "--seeds", "1")


def test_labels_that_the_sentence_does_not_tell(classify, tmp_path):
    rng = random.Random(1)
    flags = write(tmp_path, lambda _: rng.choice("ab"), count=1000)
    found = classify(*flags, "--json", "--epochs", "3")
    assert found["classifier"]["test"]["loss"] == pytest.approx(math.log(2), abs=0.1)
    assert found["classifier"]["test"]["accuracy"] == pytest.approx(50, abs=8)


def test_draws_and_standardizing(classify, tmp_path):
    flags = write(tmp_path, by_words)
    mean = classify(*flags, "--json")
    drawn = classify(*flags, "--json", "--latents", "sample")
    assert drawn["latents"] == "sample"
    assert drawn["standardized"]
    assert drawn["classifier"] != mean["classifier"]
    assert drawn == classify(*flags, "--json", "--latents", "sample")
    raw = classify(*flags, "--json", "--no-standardize")
    assert mean["classifier"] != raw["classifier"]
    scores = [found["logistic_regression"]["train"] for found in (mean, raw)]
    assert scores[0] == pytest.approx(scores[1])  # standardized in both


def test_one_latent_a_sentence(classify, data_dir, tmp_path):
    flags = ("--arch", "vae_transformer", "--encoder-embed-dim", "16", "--decoder-embed-dim", "16")
    commands.train(data_dir, tmp_path, *flags, "--latent-dim", "4", "--max-update", "1")
    files = write(tmp_path, by_words, 50)
    path = tmp_path / "checkpoint_last.pt"
    found = [
        classify(*files, "--json", "--pooling", pooling, path=path) for pooling in ("sum", "start")
    ]
    assert found[0] == found[1]
    assert found[0]["latent_level"] == "sentence"
    assert found[0]["pooling"] is None
    assert found[0]["width"] == 4
    assert "features: means of the latents, standardized, width 4" in classify(*files, path=path)


def test_a_language_model_is_refused(classify, data_dir, tmp_path):
    flags = ("--arch", "transformer_decoder_lm", "--decoder-embed-dim", "16", "--max-update", "1")
    commands.train(data_dir, tmp_path, *flags)
    error = classify(*write(tmp_path, by_words, 20), path=tmp_path / "checkpoint_last.pt")
    assert "language model's, which has no latents" in error


def test_subwords_of_another_model_are_warned_of(classify, text_dir, tmp_path):
    model = subwords.train_sentencepiece(text_dir / "train", tmp_path / "spm", 40)
    files = write(tmp_path, by_words, 50)
    found = classify(*files, "--json", "--sentencepiece-model", str(model))
    assert found["unknown_share"]["train"] > 0.9
    assert classify.warnings.startswith("fairseq-vat: warning: ")
    assert f"of the pieces in {tmp_path / 'train'} are unknown" in classify.warnings


@pytest.mark.parametrize(
    ("split", "text", "message"),
    [
        ("train", "a\tw1\nno label here\n", ":2: no TAB; each line must be label<TAB>sentence"),
        ("valid", "a\tw1\nb\tw1\tw2\n", ":2: 3 columns; each line must be label<TAB>sentence"),
        ("train", "", " holds no line"),
        ("test", "\n \n", " holds no line"),
        ("train", "a\tw1\na\tw2\n", " has only the label 'a'; two at least are needed"),
        ("valid", "low\tw1\n\nmiddle\tw2\n", ":3: label 'middle' isn't in"),
        ("test", "other\tw1\n", "which has 'high \"quoted\"', 'low'"),
        ("test", "low\t \x00 \n", " has no line with a sentence in it"),
        ("train", "low\tw1\n\tw2\n", ":2: the label is empty"),
    ],
)
def test_files_that_are_wrong(classify, tmp_path, split, text, message):
    flags = write(tmp_path, by_words, 20)
    (tmp_path / split).write_text(text, encoding="utf-8")
    error = classify(*flags)
    assert error.startswith(str(tmp_path / split))
    assert message in error


def test_empty_sentences_are_left_out_and_counted(classify, text_dir, tmp_path):
    model = subwords.train_sentencepiece(text_dir / "train", tmp_path / "spm", 40)
    flags = [*write(tmp_path, by_words, 20), "--sentencepiece-model", str(model), "--json"]
    expected = classify(*flags)
    with (tmp_path / "valid").open("a", encoding="utf-8") as file:
        file.write("low\t\ufffd\nlow\t\n")  # normalisation leaves nothing of the first
    found = classify(*flags)
    assert (
        f"warning: {tmp_path / 'valid'}: 2 of 8 lines have an empty sentence and are left out, "
        "the first is line 7\n"
    ) in classify.warnings
    assert found.pop("left_out") == {"train": 0, "valid": 2, "test": 0}
    assert expected.pop("left_out") == {"train": 0, "valid": 0, "test": 0}
    assert found == expected


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train", "none.tsv"], "none.tsv: No such file"),
        (["--bpe", "nonsense"], "--bpe nonsense: must be one of"),
        (["--bpe", "sentencepiece"], "--sentencepiece-model is needed"),
        (["--sentencepiece-model", "none.model"], "file none.model not found"),
        (["--sentencepiece-model", __file__], "is not a sentencepiece model"),
        (["--bpe", "gpt2", "--sentencepiece-model", "x"], "is no setting of --bpe gpt2"),
        (["--path", "none.pt"], "checkpoint none.pt doesn't exist"),
        (["--epochs", "0"], "argument --epochs: must be at least 1, not 0"),
        (["--batch-size", "-1"], "argument --batch-size: must be at least 1, not -1"),
        (["--seeds", "0"], "argument --seeds: must be at least 1, not 0"),
        (["--lr", "0"], "argument --lr: must be above 0, not 0"),
        (["--lr", "nan"], "argument --lr: must be above 0, not nan"),
    ],
)
def test_flags_that_are_wrong(classify, tmp_path, flags, message):
    assert message in classify(*write(tmp_path, by_words, 20), *flags)


def test_a_data_directory_without_dictionary(classify, tmp_path):
    assert "has no dict.txt" in classify(*write(tmp_path, by_words, 20), data=tmp_path)


def test_read_labelled(tmp_path):
    path = tmp_path / "x.tsv"
    path.write_bytes(b'\xef\xbb\xbf very good \t "bare  quote\r\n\n0\tcaf\xe9\n')
    assert read_labelled(path) == [
        ("very good", ('"bare quote',), 1),
        ("0", ("caf\ufffd",), 3),
    ]
    path.write_bytes("0\tw1\n".encode("utf-16"))
    with pytest.raises(VATError, match="is UTF-16"):
        read_labelled(path)
