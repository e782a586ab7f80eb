"""``fairseq-vat probe`` on labels that a word decides, stopped and gone on with, and misused."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import commands, huggingface
from helpers.text import WORDS, sentences
from safetensors.torch import load_file, save_file

from fairseq_vat.cli import main as cli
from fairseq_vat.errors import VATError
from fairseq_vat.evaluation.labelled import LabelledFiles
from fairseq_vat.evaluation.probe import Probe, SavedRuns, splits_of
from fairseq_vat.evaluation.probed_encoders import CheckpointEncoder, PretrainedEncoder
from fairseq_vat.files import sha256
from fairseq_vat.hub.huggingface import HuggingFaceEncoder
from fairseq_vat.hub.interface import VATHubInterface
from fairseq_vat.hub.loading import load_model
from fairseq_vat.text.columns import read_labelled

FILES = ("train", "valid", "test")
QUICK = ("--cpu", "--json", "--seeds", "1", "--epochs", "8", "--lr", "0.003", "--pooling", "sum")


def by_words(sentence):
    return "low" if {"w0", "w1", "w2", "w3", "w4"} & set(sentence.split()) else 'high "quoted"'


def write(path, label_of=by_words, count=150, seed=10):
    lines = [f"{label_of(s)}\t{s}" for s in sentences(count, seed)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def three(folder, label_of=by_words):
    """Flags that name a training, a validation and a test file."""
    counts = zip(FILES, (240, 40, 60), strict=True)
    return [
        part
        for seed, (name, count) in enumerate(counts)
        for part in (f"--{name}", write(folder / name, label_of, count, 10 + seed))
    ]


@pytest.fixture
def probe(data_dir, checkpoint, capsys):
    def run(*flags, path=checkpoint, data=data_dir, quick=QUICK, status=0):
        capsys.readouterr()
        try:
            found = cli.main(["probe", str(data), "--path", str(path), *quick, *map(str, flags)])
        except SystemExit as stop:  # of a flag that is refused while parsing
            found = stop.code
        captured = capsys.readouterr()
        assert found == status or (status and found == 2), captured.err
        if found:
            assert not captured.out
            assert captured.err.count("\n") == 1
            return re.sub("^fairseq-vat( probe)?: error: ", "", captured.err).strip()
        run.warnings = captured.err
        return json.loads(captured.out) if "--json" in quick else captured.out

    return run


@pytest.fixture
def count_runs(monkeypatch):
    """The runs that are trained, by mode and seed; one more than `stop` interrupts."""
    trained = []
    train = Probe.run

    def counting(self, mode, pooling, parts, seed, on_batch):
        if len(trained) == counting.stop:
            raise KeyboardInterrupt
        trained.append((mode, seed))
        return train(self, mode, pooling, parts, seed, on_batch)

    counting.stop = None
    monkeypatch.setattr(Probe, "run", counting)
    return SimpleNamespace(trained=trained, function=counting)


def test_features_and_fine_tuning(probe, tmp_path, checkpoint):
    flags = [*three(tmp_path), "--mode", "features", "finetune", "--seeds", "2"]
    before = sha256(checkpoint)
    found = probe(*flags)
    assert sha256(checkpoint) == before
    assert found["examples"] == {"train": 240, "valid": 40, "test": 60}
    assert found["left_out"] == {"train": 0, "valid": 0, "test": 0}
    assert [(r["mode"], r["pooling"]) for r in found["results"]] == [
        ("features", "sum"),
        ("finetune", "sum"),
    ]
    features, fine_tuned = found["results"]
    for part in ("valid", "test"):
        nothing = found["majority"][part]["accuracy"]
        assert features[part]["accuracy"] > nothing + 5
        assert fine_tuned[part]["accuracy"] > nothing + 15
        assert fine_tuned[part]["accuracy"] > 90
        accuracies = [run[part]["accuracy"] for run in features["runs"]]
        assert features[part]["accuracy"] == pytest.approx(sum(accuracies) / 2)
        assert features[part]["accuracy_std"] == pytest.approx(
            abs(accuracies[0] - accuracies[1]) / 2**0.5
        )
    labels = [line.partition("\t")[0] for line in (tmp_path / "test").read_text().splitlines()]
    trained = [line.partition("\t")[0] for line in (tmp_path / "train").read_text().splitlines()]
    assert found["labels"] == {label: trained.count(label) for label in set(trained)}
    share = 100 * labels.count(max(trained, key=trained.count)) / len(labels)
    assert found["majority"]["test"]["accuracy"] == pytest.approx(share)
    assert found["majority"]["test"]["accuracy_std"] == 0
    assert all(1 <= run["epoch"] <= 8 for run in fine_tuned["runs"])
    again = [r["runs"] for r in probe(*flags[:-1], "1")["results"]]  # nothing is left to chance
    assert again == [result["runs"][:1] for result in (features, fine_tuned)]


def test_cross_validation_and_the_table(probe, tmp_path):
    flags = ["--cv", write(tmp_path / "all", count=240), "--folds", "4", "--max-folds", "2"]
    flags += ["--mode", "finetune", "--epochs", "12", "--save", tmp_path / "runs.json"]
    found = probe(*flags)
    (result,) = found["results"]
    assert [run["seed"] for run in result["runs"]] == [1, 1]
    assert (found["folds"], found["folds_run"]) == (4, 2)
    assert result["test"]["accuracy"] > found["majority"]["test"]["accuracy"] + 15
    table = probe(*flags, quick=[flag for flag in QUICK if flag != "--json"]).splitlines()
    assert "sentences: 240, 4-fold cross-validation; labels: " in table[1]
    assert "folds run: 2 of 4; seeds: 1; dense layer: 16, sigmoid" in table[2]
    mean, deviation = result["test"]["accuracy"], result["test"]["accuracy_std"]
    assert table[-2].startswith("fine-tuned, sum ")
    assert table[-2].endswith(f" {mean:.1f} ± {deviation:.1f}")
    assert table[-1].startswith("most frequent label ")


def test_without_valid_a_tenth_is_held_out_and_without_test_there_is_none(probe, tmp_path):
    found = probe("--train", write(tmp_path / "train"))
    (result,) = found["results"]
    assert result["test"] is None
    assert found["majority"]["test"] is None
    right = result["valid"]["accuracy"] * 15 / 100  # of 15 sentences
    assert right == pytest.approx(round(right), abs=1e-6)


def test_the_tenth_is_another_one_for_each_seed(tmp_path):
    (tmp_path / "train").write_text("a\tw1\nb\tw1\n" * 30, encoding="utf-8")
    files = LabelledFiles.read({"train": tmp_path / "train"})
    parts = [some[0]["valid"].tolist() for some in splits_of(files, seeds=3).values()]
    assert len({tuple(sorted(part)) for part in parts}) == 3
    assert {len(part) for part in parts} == {6}


@pytest.mark.parametrize("pooling", ["start", "mean", "sum"])
def test_vectors_are_pooled_as_asked_for(vat, pooling):
    text = sentences(12, 3)
    encoder = CheckpointEncoder(vat, text)
    work = Probe(encoder, torch.arange(12) % 2, ["start", "mean", "sum"])
    expected = vat.embed(text, pooling)
    np.testing.assert_allclose(work.features[pooling].numpy(), expected, atol=1e-5)
    with torch.no_grad():
        some = encoder.vectors(vat.model.encoder, torch.tensor([7, 2]), pooling)
    np.testing.assert_allclose(some.numpy(), expected[[7, 2]], atol=1e-5)


def test_folds_and_checkpoint_belong_to_saved_runs(probe, tmp_path, checkpoint):
    flags = ["--cv", write(tmp_path / "all", count=60), "--mode", "finetune", "--epochs", "1"]
    flags += ["--max-folds", "1", "--save", tmp_path / "runs.json"]
    probe(*flags, "--folds", "4")
    assert "made with another --folds (4, now 5)" in probe(*flags, "--folds", "5", status=1)
    probe(*flags, "--folds", "4", path=checkpoint.parent)  # a folder is its checkpoint
    state = torch.load(checkpoint, weights_only=True)
    state["model"]["encoder.head.mean.weight"] += 1
    torch.save(state, tmp_path / "another.pt")
    error = probe(*flags, "--folds", "4", path=tmp_path / "another.pt", status=1)
    assert "made with another checkpoint" in error


def test_stopped_and_gone_on_with(probe, tmp_path, count_runs):
    flags = ["--train", write(tmp_path / "train", count=60), "--mode", "finetune", "features"]
    flags += ["--seeds", "2", "--epochs", "1"]
    whole = probe(*flags)
    assert count_runs.trained == [
        (mode, seed) for mode in ("finetune", "features") for seed in (1, 2)
    ]
    save = tmp_path / "deep" / "runs.json"
    count_runs.trained.clear()
    count_runs.function.stop = 3
    assert probe(*flags, "--save", save, status=130) == "fairseq-vat: interrupted"
    assert len(json.loads(save.read_text())["runs"]) == 3
    count_runs.trained.clear()
    assert probe(*flags, "--save", save) == whole  # the last one only
    assert count_runs.trained == [("features", 2)]
    count_runs.function.stop = 1
    assert probe(*flags, "--save", save) == whole
    # one more mode, pooling or seed is something to add; another training is another file's
    assert "interrupted" in probe(*flags, "--save", save, "--seeds", "3", status=130)
    kept = save.read_text()
    for change, name in (
        (["--hidden", "4"], "--hidden (None, now 4)"),
        (["--lr", "0.5"], "--lr (0.003, now 0.5)"),
        (["--train", write(tmp_path / "other", count=60, seed=3)], "sentences or labels"),
    ):
        error = probe(*flags, "--save", save, *change, status=1)
        assert error.startswith(f"--save {save}: its runs were made with another {name}")
    assert save.read_text() == kept


def test_two_at_once_keep_each_other_s_runs(tmp_path):
    path = str(tmp_path / "runs.json")
    first, second = SavedRuns(path, {"--seeds": 1}), SavedRuns(path, {"--seeds": 1})
    first.add("a", {"epoch": 1})
    second.add("b", {"epoch": 2})
    assert SavedRuns(path, {"--seeds": 1}).runs == {"a": {"epoch": 1}, "b": {"epoch": 2}}


@pytest.mark.parametrize(
    "text", ["", "not JSON", '{"settings": {}}', "[]", "1", '{"settings": [], "runs": {}}']
)
def test_a_file_that_is_not_one_of_runs_stays(probe, tmp_path, text):
    save = tmp_path / "mine.json"
    save.write_text(text)
    error = probe("--train", write(tmp_path / "train"), "--save", save, status=1)
    assert error == f"--save {save}: is there and holds no runs of probe; name another file"
    assert save.read_text() == text


def test_pairs_are_joined_by_the_end_of_sentence(probe, tmp_path, checkpoint, data_dir):
    path = tmp_path / "pairs"
    path.write_text("no\tw1 w2\tw3\nyes\tw3\tw1 w2\n", encoding="utf-8")
    loaded = load_model(checkpoint, data_dir, "cpu")
    vat = VATHubInterface(loaded.cfg, loaded.task, loaded.model)
    pieces = LabelledFiles.read({"cv": path}, 2).in_subwords(vat).all_pieces
    assert pieces == ["w1 w2 </s> w3", "w3 </s> w1 w2"]
    tokens, symbols = CheckpointEncoder(vat, pieces).sources[0], loaded.task.source_dictionary
    assert tokens.tolist() == [
        symbols.bos(),
        *(symbols.index(word) for word in ("w1", "w2")),
        symbols.eos(),
        symbols.index("w3"),
        symbols.eos(),
    ]
    # what decides is in the second sentence
    pairs = zip(sentences(240, 1), sentences(240, 2), strict=True)
    text = [f"{by_words(two)}\t{one}\t{two}" for one, two in pairs]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    found = probe("--train", path, "--pairs", "--mode", "finetune", "--epochs", "10")
    assert found["pairs"]
    (result,) = found["results"]
    assert result["valid"]["accuracy"] > found["majority"]["valid"]["accuracy"] + 10


def bert(folder):
    huggingface.save_bert(folder, WORDS)
    return folder


def test_a_hugging_face_encoder_beside(probe, tmp_path, count_runs):
    folder = bert(tmp_path / "tiny")
    flags = [*three(tmp_path), "--mode", "features", "finetune", "--hf-lr", "0.01"]
    flags += ["--save", tmp_path / "runs.json"]
    alone = probe(*flags)
    before = sha256(folder / "model.safetensors")
    count_runs.trained.clear()
    found = probe(*flags, "--hf", folder)
    assert count_runs.trained == [("features", 1), ("finetune", 1)]  # those of the encoder alone
    assert sha256(folder / "model.safetensors") == before
    assert found["results"][:2] == alone["results"]
    (described,) = found["hf"]
    assert (described["name"], described["width"], described["unknown_share"]) == ("tiny", 8, 0)
    assert (found["hidden"], found["hf_hidden"]) == (16, [8])
    features, fine_tuned = found["results"][2:]
    assert [result["encoder"] for result in (features, fine_tuned)] == ["tiny", "tiny"]
    nothing = found["majority"]["test"]["accuracy"]
    assert fine_tuned["test"]["accuracy"] > nothing + 15  # its random weights alone tell little
    table = probe(*flags, "--hf", folder, quick=[flag for flag in QUICK if flag != "--json"])
    assert f"tiny: {folder}: vectors of width 8; 0.0% of the pieces unknown; dense" in table
    row = next(line for line in table.splitlines() if line.startswith("tiny, fine-tuned, sum "))
    assert row.split()[-1] == f"{fine_tuned['test']['accuracy']:.1f}"
    # other weights are another encoder
    count_runs.trained.clear()
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] += 1
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    probe(*flags, "--hf", folder)
    assert count_runs.trained == [("features", 1), ("finetune", 1)]


def test_pairs_of_a_hugging_face_encoder(probe, tmp_path):
    encoder = HuggingFaceEncoder(bert(tmp_path / "tiny"))
    firsts, seconds = sentences(20, 1), sentences(20, 2)
    probed = PretrainedEncoder("tiny", encoder, firsts, seconds)
    vectors = probed.embed(["mean"])["mean"]
    with torch.no_grad():
        some = probed.vectors(probed.module, torch.tensor([3, 0]), "mean")
    torch.testing.assert_close(some, vectors[[3, 0]], atol=1e-5, rtol=0)
    text = [f"{by_words(two)}\t{one}\t{two}\n" for one, two in zip(firsts, seconds, strict=True)]
    (tmp_path / "pairs").write_text("".join(text), encoding="utf-8")
    flags = ["--train", tmp_path / "pairs", "--pairs", "--mode", "finetune", "--epochs", "1"]
    found = probe(*flags, "--hf", tmp_path / "tiny")
    assert found["results"][1]["encoder"] == "tiny"
    error = probe(*flags, "--hf", tmp_path / "tiny", "--hf-lr", "1e30", status=1)
    assert error.startswith("tiny: finetune, sum, seed 1: the training diverged")
    assert error.endswith("give a smaller --hf-lr")


def test_one_latent_a_sentence(probe, data_dir, tmp_path):
    flags = ("--arch", "vae_transformer", "--encoder-embed-dim", "16", "--decoder-embed-dim", "16")
    commands.train(data_dir, tmp_path, *flags, "--latent-dim", "4", "--max-update", "1")
    files = ["--train", write(tmp_path / "train", count=60), "--pooling", "start", "sum"]
    found = probe(
        *files, "--mode", "finetune", "--hidden", "0", path=tmp_path / "checkpoint_last.pt"
    )
    (result,) = found["results"]  # all poolings are one
    assert result["pooling"] is None
    assert (found["hidden"], found["activation"]) == (0, None)


@pytest.mark.parametrize("pairs", [False, True])
def test_empty_sentences_are_left_out_and_counted(probe, tmp_path, pairs):
    second, flags = ("\tw7", ["--pairs"]) if pairs else ("", [])
    lines = [f"{by_words(s)}\t{s}{second}" for s in sentences(60, 1)]
    path = tmp_path / "cr"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    expected = probe("--train", path, *flags)
    lines[20:20] = [f"low\t{second}", f"low\t \x00 {second}"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = probe("--train", path, *flags)
    assert probe.warnings == (
        f"fairseq-vat: warning: {path}: 2 of 62 lines have an empty sentence and are left out, "
        "the first is line 21\n"
    )
    assert found.pop("left_out") == {"train": 2}
    assert expected.pop("left_out") == {"train": 0}
    assert found == expected
    path.write_text(f"low\t{second}\nhigh\t{second}\n", encoding="utf-8")
    assert probe("--train", path, *flags, status=1) == f"{path} has no line with a sentence in it"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give --train, with --valid and --test where there are any, or else --cv"),
        (["--train", "{a}", "--cv", "{a}"], "give --train, with"),
        (["--cv", "{a}", "--test", "{a}"], "--test goes with --train"),
        (["--train", "{a}", "--folds", "3"], "--folds goes with --cv"),
        (["--train", "{a}", "--max-folds", "3"], "--max-folds goes with --cv"),
        (["--cv", "{a}", "--folds", "1"], "argument --folds: must be at least 2, not 1"),
        (
            ["--cv", "{a}", "--folds", "500"],
            "{a}: 500 folds: the most frequent label has fewer examples (",
        ),
        (["--train", "{a}", "--seeds", "0"], "argument --seeds: must be at least 1, not 0"),
        (["--train", "{a}", "--hidden", "-1"], "argument --hidden: must be at least 0, not -1"),
        (["--train", "{a}", "--lr", "nan"], "argument --lr: must be above 0, not nan"),
        (["--train", "{a}", "--hf-lr", "0"], "argument --hf-lr: must be above 0, not 0"),
        (["--train", "{a}", "--hf", "none"], "none is not a Hugging Face model's folder"),
        (["--train", "{a}", "--pairs"], ":1: 2 columns; each line must be label<TAB>sentence<TAB>"),
        (["--train", "{a}", "--test", "{b}"], "{b}:1: label 'rare' isn't in {a}, which has"),
        (["--train", "{b}"], "{b} has only the label 'rare'"),
        (["--cv", "{c}"], "{c}: label 'rare' has too few lines: a part"),
        (["--train", "{a}", "--mode", "finetune", "--lr", "1e30"], "give a smaller --lr"),
        (["--train", "{d}"], "{d}: no label has two examples, one of them to hold out"),
        (["--train", "none.tsv"], "none.tsv: No such file"),
        (["--train", "{a}", "--path", "none.pt"], "checkpoint none.pt doesn't exist"),
    ],
)
def test_mistakes_are_named(probe, tmp_path, flags, message):
    files = {"a": write(tmp_path / "a", count=20), "b": str(tmp_path / "b")}
    files["c"] = write(tmp_path / "c", count=40)
    files["d"] = str(tmp_path / "d")
    (tmp_path / "d").write_text("low\tw1\nhigh\tw9\n", encoding="utf-8")
    (tmp_path / "b").write_text("rare\tw1\n", encoding="utf-8")
    with (tmp_path / "c").open("a", encoding="utf-8") as file:
        file.write("rare\tw1\n")
    error = probe(*(flag.format(**files) for flag in flags), status=1)
    assert message.format(**files) in error


def test_start_tokens_that_the_model_does_not_have(probe, data_dir, tmp_path):
    commands.train(data_dir, tmp_path, "--no-start-token", "--max-update", "1")
    flags = ["--train", write(tmp_path / "train", count=20), "--pooling", "start"]
    error = probe(*flags, path=tmp_path / "checkpoint_last.pt", status=1)
    assert error == "--pooling start: the model was trained with --no-start-token"


def test_read_labelled_of_pairs(tmp_path):
    path = tmp_path / "pairs"
    path.write_text(' yes \tone  "quoted\ttwo\n\nno\ta\t \n', encoding="utf-8")
    assert read_labelled(path, 2) == [("yes", ('one "quoted', "two"), 1), ("no", ("a", ""), 3)]
    for text, message in (
        ("\tone\ttwo\n", ":1: the label is empty"),
        ("a b c\n", ":1: no TAB; each line must be label<TAB>sentence<TAB>sentence"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(VATError, match=message):
            read_labelled(path, 2)
