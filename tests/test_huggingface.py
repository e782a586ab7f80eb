"""Hugging Face encoders as a baseline: their vectors, and folders that aren't one."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from helpers import huggingface
from helpers.text import WORDS
from safetensors.torch import load_file, save_file
from transformers import BatchEncoding

from fairseq_vat.errors import VATError
from fairseq_vat.hub.huggingface import HuggingFaceEncoder

SENTENCES = ["w1 w2 w3 w4 w5 w6 w7", "w9", "w3 w3 nonsense w0", "w5", ""]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    huggingface.save_bert(folder, WORDS)
    return folder


@pytest.fixture
def changed(bert, tmp_path):
    """A copy, to be damaged."""
    return shutil.copytree(bert, tmp_path / "copy")


@pytest.mark.parametrize("max_tokens", [1, 12, 1000])
def test_pooling_is_over_the_pieces_of_each_sentence_alone(bert, max_tokens):
    encoder = HuggingFaceEncoder(bert, max_tokens=max_tokens)
    pieces = encoder.subwords(SENTENCES)
    assert pieces[1] == [2, 13, 3]  # [CLS] w9 [SEP]
    found = encoder.embed(pieces, ("start", "mean", "sum"))
    for row, sentence in enumerate(pieces):
        with torch.no_grad():
            x_TC = encoder.model(torch.tensor([sentence])).last_hidden_state[0].numpy()
        for name, expected in {"start": x_TC[0], "mean": x_TC.mean(0), "sum": x_TC.sum(0)}.items():
            np.testing.assert_allclose(found[name][row], expected, atol=2e-6)
    assert encoder.unknown(pieces).tolist() == [0, 0, 1, 0, 0]
    assert not np.allclose(found["mean"][0], found["mean"][1], atol=1e-2)


def test_pairs_are_joined_with_a_type_for_each_sentence(bert):
    encoder = HuggingFaceEncoder(bert)
    firsts, seconds = ["w1 w2", "w3"], ["w5", "w4 w6 w7"]
    pieces, types = encoder.subwords(firsts, seconds), encoder.token_types(firsts, seconds)
    assert pieces == [[2, 5, 6, 3, 9, 3], [2, 7, 3, 8, 10, 11, 3]]
    assert types == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1, 1]]
    found = encoder.embed(pieces, ("mean",), types)["mean"]
    for row in range(2):
        with torch.no_grad():
            x_TC = encoder.model(
                torch.tensor([pieces[row]]), token_type_ids=torch.tensor([types[row]])
            ).last_hidden_state[0]
        np.testing.assert_allclose(found[row], x_TC.mean(0).numpy(), atol=2e-6)
    assert not np.allclose(found, encoder.embed(pieces, ("mean",))["mean"], atol=1e-2)


def test_no_sentences(bert):
    encoder = HuggingFaceEncoder(bert)
    assert encoder.embed(encoder.subwords([]))["mean"].shape == (0, 8)


@pytest.mark.parametrize(("said", "limit"), [(512, 16), (1e30, 16), (7, 7)])
def test_the_smaller_limit_counts(changed, said, limit):
    path = changed / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"model_max_length": said}
    path.write_text(json.dumps(settings))
    encoder = HuggingFaceEncoder(changed)
    (pieces,) = encoder.subwords([" ".join(WORDS)])
    assert len(pieces) == limit
    assert np.isfinite(encoder.embed([pieces])["mean"]).all()


def test_positions_that_start_after_the_padding(bert):
    """RoBERTa numbers them from the padding's index + 1, which BERT doesn't."""
    encoder = HuggingFaceEncoder(bert)
    encoder.tokenizer.model_max_length = 512
    assert encoder.max_positions == 16
    encoder.model.embeddings.position_embeddings.padding_idx = 1
    assert encoder.max_positions == 14


def test_a_sentence_longer_than_the_positions_is_cut_and_told(bert, caplog):
    encoder = HuggingFaceEncoder(bert)
    (pieces,) = encoder.subwords([" ".join(WORDS)])
    assert len(pieces) == huggingface.POSITIONS
    assert "1 of 1 sentences cut to 16 subwords" in caplog.text


@pytest.mark.parametrize(
    "more",
    [
        {"attn_implementation": "kernels-community/flash-attn2"},
        {"_attn_implementation_internal": "a/b"},
        {"text_config": [{"_attn_implementation": {"": "a/b:c"}}]},
    ],
)
def test_a_configuration_chooses_no_kernel(more, changed):
    """transformers would fetch one from the network, and run it."""
    config = json.loads((changed / "config.json").read_text())
    (changed / "config.json").write_text(json.dumps(config | more))
    with pytest.raises(VATError, match=r"config\.json: _?attn_imp.*: names a kernel"):
        HuggingFaceEncoder(changed)
    more = {"attn_implementation": "eager"}
    (changed / "config.json").write_text(json.dumps(config | more))
    HuggingFaceEncoder(changed)


def test_a_tokenizer_in_python_tells_of_a_cut_too(bert, caplog):
    """It tells only what is left of a sentence."""
    encoder = HuggingFaceEncoder(bert)
    fast = encoder.tokenizer

    class Slow:
        model_max_length = fast.model_max_length

        def __call__(self, *args, **options):
            return BatchEncoding(dict(fast(*args, **options)))

    encoder.tokenizer = Slow()
    pieces = encoder.subwords([" ".join(WORDS), WORDS[0]])
    assert [len(sentence) for sentence in pieces] == [huggingface.POSITIONS, 3]
    assert "1 of 2 sentences cut to 16 subwords" in caplog.text


def test_a_pooler_that_is_missing_and_half_precision(bert, changed):
    weights = load_file(changed / "model.safetensors")
    kept = {name: value.half() for name, value in weights.items() if "pooler" not in name}
    assert len(kept) < len(weights)
    save_file(kept, changed / "model.safetensors", {"format": "pt"})
    one, other = HuggingFaceEncoder(bert), HuggingFaceEncoder(changed)
    assert other.model.dtype == torch.float32
    vectors = [encoder.embed([[2, 9, 3]])["mean"] for encoder in (one, other)]
    np.testing.assert_allclose(*vectors, atol=0.02)


def configure(**values):
    def damage(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return damage


def remove(*names):
    def damage(folder):
        for name in names:
            (folder / name).unlink()

    return damage


def overwrite(name, data):
    return lambda folder: (folder / name).write_bytes(data)


def pickle_code(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"x": print}, folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("config.json"), "is not a Hugging Face model's folder: it has no config.json"),
        (overwrite("config.json", b"{"), "is not JSON"),
        (overwrite("config.json", b"{}"), "names no model_type"),
        (remove("tokenizer.json"), "has no tokenizer"),
        (overwrite("tokenizer.json", b"{}"), "transformers can't read"),
        (remove("model.safetensors"), "no file named model.safetensors"),
        (overwrite("model.safetensors", b"\x08"), "transformers can't read"),
        (configure(num_hidden_layers=2), r"not among the weights.*encoder\.layer\.1"),
        (configure(hidden_size=16), "have another shape, such as"),
        (configure(vocab_size=20), "have another shape, such as"),
        (configure(model_type="zork", auto_map={"AutoModel": "code.Model"}), "can't read"),
        (pickle_code, "[Ww]eights.only"),
    ],
)
def test_folders_that_are_wrong(changed, damage, message):
    damage(changed)
    with pytest.raises(VATError, match=message) as caught:
        HuggingFaceEncoder(changed)
    assert str(changed) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(VATError, match="none is not a Hugging Face model's folder"):
        HuggingFaceEncoder(tmp_path / "none")
