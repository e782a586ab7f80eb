"""A checkpoint that needs nothing beside it, and the small folder to give away."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers import commands

from fairseq_vat.cli.main import main
from fairseq_vat.errors import VATError
from fairseq_vat.hub.interface import VATHubInterface, from_pretrained
from fairseq_vat.hub.loading import build_bpe, checkpoint_of, load_model
from fairseq_vat.hub.packing import pack
from fairseq_vat.recipes.prepare import prepare
from fairseq_vat.text.pieces import check_subwords

TEXTS = ["w1 w2 w3", "w4", "w30 w5 w5"]


@pytest.fixture(scope="module")
def data(text_dir, tmp_path_factory):
    """The toy text in sentencepiece's subwords, of which the data directory tells."""
    out = tmp_path_factory.mktemp("prepared")
    texts = {split: text_dir / split for split in ("train", "valid", "test")}
    return prepare(texts, out, vocab_size=40, workers=1)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    commands.train(data, folder, "--max-update", "30", "--kl-weight", "0.01")
    return folder


@pytest.fixture(scope="module")
def alone(trained, tmp_path_factory):
    """The checkpoint's file, moved away from everything."""
    return shutil.copy(
        trained / "checkpoint_last.pt", tmp_path_factory.mktemp("alone") / "some name.pt"
    )


def with_flags(trained, data):
    """The same model with everything named."""
    loaded = load_model(trained / "checkpoint_last.pt", data, "cpu")
    model = data / "sentencepiece.model"
    return VATHubInterface(
        *(loaded.cfg, loaded.task, loaded.model),
        build_bpe("sentencepiece", sentencepiece_model=model),
    )


def test_it_is_the_model_with_everything_named(trained, data, alone):
    expected = with_flags(trained, data)
    for place in (alone, trained):
        vat = from_pretrained(place, device="cpu")
        assert np.array_equal(vat.embed(TEXTS), expected.embed(TEXTS))
        for method in ("reconstruct", "sample"):
            assert getattr(vat, method)(TEXTS, max_len_b=20) == getattr(expected, method)(
                TEXTS, max_len_b=20
            )
    lengths = np.bincount(data_sizes(expected))
    assert np.array_equal(vat.task.training_lengths.numpy(), lengths)
    assert len(vat.sample_prior(5, max_len_b=20)) == 5


def data_sizes(vat):
    vat.task.load_dataset("train")
    return vat.task.dataset("train").tgt_sizes


def test_commands_ask_for_nothing_else(alone, trained, data, capsys):
    def run(*words):
        assert main([*map(str, words)]) == 0
        return capsys.readouterr().out

    (trained.parent / "lines").write_text("\n".join(TEXTS) + "\n")
    further = ["--input", trained.parent / "lines", "--max-len-b", "20", "--cpu"]
    expected = run("reconstruct", data, "--path", trained / "checkpoint_last.pt", *further)
    assert run("reconstruct", alone, *further) == expected
    assert run("reconstruct", trained, *further) == expected
    assert run("reconstruct", alone, "--data", data, *further) == expected
    found = json.loads(run("evaluate", alone, "--data", data, "--json", "--no-bleu", "--cpu"))
    old = run("evaluate", data, "--path", alone, "--json", "--no-bleu", "--cpu")
    assert found == json.loads(old)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["reconstruct", "nothing", "--input", "lines"],
            "checkpoint nothing doesn't exist: give one, or the",
        ),
        (
            ["reconstruct", ".", "--input", "lines"],
            r"checkpoint \. is a folder without checkpoint_last\.pt or model\.pt",
        ),
        (["evaluate", "x.pt"], "--data is needed"),
        (["embed", "x", "--path", "y", "--data", "z", "--output", "v.npy"], "leave one out"),
    ],
)
def test_mistakes(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pt").write_bytes(b"")
    (tmp_path / "lines").write_text("w1\n")
    assert main(words) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    with pytest.raises(VATError, match=message):
        raise VATError(error)


def test_a_checkpoint_without_a_dictionary_needs_data(alone, tmp_path):
    state = torch.load(alone, weights_only=True)
    for name in ("symbols", "subwords", "lengths"):
        del state["task_state"][name]
    torch.save(state, tmp_path / "old.pt")
    with pytest.raises(VATError, match="of an earlier version: give the data directory"):
        load_model(tmp_path / "old.pt")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("symbols", 3),
        ("symbols", "w1 1\nw1 1\n"),
        ("symbols", "w1 1\n"),
        ("lengths", None),
        ("lengths", torch.zeros(3)),
        ("subwords", {"bpe": "sentencepiece", "files": {"sentencepiece_model": "/etc/passwd"}}),
    ],
)
def test_a_damaged_vocabulary_is_told(name, value, alone, tmp_path):
    state = torch.load(alone, weights_only=True)
    state["task_state"][name] = value
    torch.save(state, tmp_path / "damaged.pt")
    with pytest.raises(VATError, match="the checkpoint's"):
        load_model(tmp_path / "damaged.pt")


def test_text_without_its_subwords_is_refused(trained, data):
    loaded = load_model(trained, data, "cpu")
    vat = VATHubInterface(loaded.cfg, loaded.task, loaded.model)
    with pytest.raises(VATError, match="the dictionary has sentencepiece subwords: give --sente"):
        vat.embed(["w1 w2"])
    subwords = VATHubInterface.of(loaded).apply_bpe("w1 w2")
    assert vat.embed([subwords]).shape == (1, 16)
    with pytest.raises(VATError, match="give --sentencepiece-model"):
        commands.interactive(data, trained / "checkpoint_last.pt", b"w1 w2\n")


def test_words_need_none(built_model):
    task, _ = built_model
    check_subwords(["any words"], task.source_dictionary)


def test_a_packed_model_is_the_model(trained, data, tmp_path, caplog):
    path = pack(trained, tmp_path / "packed")
    assert sorted(file.name for file in path.parent.iterdir()) == [
        *("README.md", "dict.txt", "model.pt", "sentencepiece.model", "subwords.json"),
    ]
    assert path.stat().st_size < (trained / "checkpoint_last.pt").stat().st_size / 2
    state = torch.load(path, weights_only=True)
    assert {value.dtype for value in state["model"].values()} == {torch.float16}
    assert str(trained) not in str(state) and str(data) not in str(state)
    packed, original = (from_pretrained(place, device="cpu") for place in (path.parent, trained))
    assert packed.reconstruct(TEXTS, max_len_b=20) == original.reconstruct(TEXTS, max_len_b=20)
    assert np.allclose(packed.embed(TEXTS), original.embed(TEXTS), atol=0.02)
    assert commands.hypotheses(commands.generate(data, path, "--gen-subset", "test"))
    card = path.parent / "README.md"
    assert f'from_pretrained("{path.parent.name}")' in card.read_text()
    assert "in half precision" in card.read_text() and "and its subwords" in card.read_text()
    pack(trained, path.parent, half=False)
    assert "in single precision" in card.read_text()
    card.write_text("my own")
    pack(trained, path.parent)
    assert card.read_text() == "my own"
    assert f"{card}: is another's, and stays as it is" in caplog.text


def test_a_packed_language_model(data_dir, tmp_path):
    """Of words, where another model's subwords were."""
    lm = ("--arch", "transformer_decoder_lm", "--decoder-embed-dim", "16", "--max-update", "1")
    commands.train(data_dir, tmp_path / "run", *lm)
    out = tmp_path / "packed"
    out.mkdir()
    (out / "subwords.json").write_text('{"bpe": "words"}')
    pack(tmp_path / "run", out)
    card = (out / "README.md").read_text()
    assert "reconstruct" not in card and "`fairseq-vat evaluate packed --data DATA`" in card
    assert "its subwords" not in card and not (out / "subwords.json").exists()


def test_what_is_beyond_half_precision_is_not_packed(alone, tmp_path):
    state = torch.load(alone, weights_only=True)
    state["model"]["encoder.body.embed_tokens.weight"][5] = 1e6
    torch.save(state, tmp_path / "large.pt")
    with pytest.raises(VATError, match=r"embed_tokens\.weight has values that aren't finite"):
        pack(tmp_path / "large.pt", tmp_path / "packed")
    assert not (tmp_path / "packed").exists()
    assert pack(tmp_path / "large.pt", tmp_path / "packed", half=False).exists()


def test_a_folder_s_checkpoint(trained, tmp_path):
    assert checkpoint_of(trained) == str(trained / "checkpoint_last.pt")
    (tmp_path / "model.pt").write_bytes(b"")
    assert checkpoint_of(tmp_path) == str(tmp_path / "model.pt")
