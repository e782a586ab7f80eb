"""A checkpoint as others' sentence encoder, called as their toolkits call it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from fairseq_vat.errors import VATError
from fairseq_vat.hub import adapters

SENTENCES = ["w1 w2 w3 w4 w5 w6 w7", "w9", "w3 w3 w8 w0 w1", "w5 w6", ""]
# what MTEB 2 gives beside the data loader, and MTEB 1 beside the sentences
MTEB_2 = {"task_metadata": SimpleNamespace(name="x"), "hf_split": "test", "hf_subset": "default"}
MTEB_1 = {"task_name": "x", "prompt_type": None}


@pytest.fixture(scope="module")
def encoder(vat):
    return adapters.SentenceEncoder(vat)


def assert_close(one, other):
    np.testing.assert_allclose(one, other, atol=2e-6)


@pytest.mark.parametrize("pooling", ["mean", "sum", "start"])
def test_senteval(vat, pooling):
    prepare, batcher = adapters.senteval(vat, pooling)
    params = SimpleNamespace(batch_size=2)
    words = [sentence.split() for sentence in SENTENCES]
    assert prepare(params, words) is None
    # as in senteval.sts: batch by batch, then all below each other
    found = np.vstack([batcher(params, words[row : row + 2]) for row in range(0, 5, 2)])
    assert found.dtype == np.float32
    assert_close(found, vat.embed([*SENTENCES[:4], "."], pooling))


def test_senteval_with_a_detokeniser(vat):
    _, batcher = adapters.senteval(vat, join=lambda words: " ".join(words).replace(" 1", "1"))
    assert_close(batcher({}, [["w", "1", "w2"]]), vat.embed(["w1 w2"]))


def test_encode_is_embed(vat, encoder):
    expected = vat.embed(SENTENCES)
    found = encoder.encode(SENTENCES)
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float32
    assert_close(found, expected)
    assert_close(encoder.encode(sentences=SENTENCES, batch_size=1), expected)
    assert_close(encoder.encode(np.array(SENTENCES), batch_size=3, **MTEB_1), expected)
    assert_close(encoder.encode(SENTENCES, show_progress_bar=False, precision="float32"), expected)
    assert_close(encoder.encode_query(SENTENCES), expected)
    assert_close(encoder.encode_document(SENTENCES, prompt_name=None), expected)
    assert_close(encoder.encode(SENTENCES[0]), expected[0])
    assert encoder.encode([]).shape == (0, 16)
    assert encoder.get_sentence_embedding_dimension() == 16
    assert_close(
        adapters.SentenceEncoder(vat, "sum").encode(SENTENCES), vat.embed(SENTENCES, "sum")
    )


def test_batches_are_as_large_as_asked(encoder, monkeypatch):
    sizes = []
    whole = encoder.vat.model.encoder.forward

    def counted(tokens, lengths):
        sizes.append(len(tokens))
        return whole(tokens, lengths)

    monkeypatch.setattr(encoder.vat.model.encoder, "forward", counted)
    encoder.encode(SENTENCES, batch_size=2)
    encoder.encode(SENTENCES)
    assert sizes == [2, 2, 1, 5]


class Texts(Dataset):
    """As MTEB's: rows are dictionaries, which the loader puts together column by column."""

    def __len__(self):
        return len(SENTENCES)

    def __getitem__(self, row):
        return {"id": str(row), "text": SENTENCES[row], "title": "w0"}


def test_mteb_s_data_loader(vat, encoder):
    loader = DataLoader(Texts(), batch_size=2)
    found = encoder.encode(loader, **MTEB_2, prompt_type="query", batch_size=2)
    assert_close(found, vat.embed(SENTENCES))
    rows = [Texts()[row] for row in range(5)]  # not put together
    assert_close(encoder.encode(rows, **MTEB_2), vat.embed(SENTENCES))
    # MTEB looks for these, and takes None for a model that it doesn't know
    assert encoder.mteb_model_meta is None
    assert encoder.similarity_fn_name == "cosine"


def test_what_is_given_back(vat, encoder):
    expected = vat.embed(SENTENCES)
    tensor = encoder.encode(SENTENCES, convert_to_tensor=True)
    assert isinstance(tensor, torch.Tensor)
    assert tensor.device == encoder.device == torch.device("cpu")
    assert not tensor.requires_grad
    assert_close(tensor, expected)
    several = encoder.encode(SENTENCES, convert_to_numpy=False)
    assert isinstance(several, list)
    assert_close(torch.stack(several), expected)
    assert encoder.encode("w1", convert_to_numpy=False).shape == (16,)
    unit = encoder.encode(SENTENCES, normalize_embeddings=True)
    assert_close(unit, expected / np.linalg.norm(expected, axis=1, keepdims=True))


def test_similarity(encoder):
    one, other = encoder.encode(SENTENCES), encoder.encode(SENTENCES[:2])
    lengths = np.linalg.norm(one, axis=1)[:, None] * np.linalg.norm(other, axis=1)
    assert_close(encoder.similarity(one, other), one @ other.T / lengths)
    assert_close(encoder.similarity(list(one), torch.tensor(other)), one @ other.T / lengths)
    assert_close(encoder.similarity_pairwise(one[:2], other), [1, 1])
    assert encoder.similarity(one[0], other[1]).shape == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"precision": "int8"}, ValueError, "precision='int8': must be 'float32'"),
        ({"prompt": "query: "}, ValueError, "prompt='query: '"),
        ({"output_value": "token_embeddings"}, ValueError, "output_value="),
        ({"truncate_dim": 8}, ValueError, "truncate_dim=8"),
        ({"batch_sise": 8}, TypeError, "no argument 'batch_sise'"),
        ({"sentences": ["w1"]}, TypeError, "needs inputs"),
    ],
)
def test_settings_that_are_not_to_be_had(encoder, arguments, error, message):
    with pytest.raises(error, match=message):
        encoder.encode(["w1"], **arguments)


def test_inputs_without_text(vat, encoder):
    with pytest.raises(TypeError, match="needs inputs"):
        encoder.encode()
    with pytest.raises(ValueError, match="a batch of image has no text"):
        encoder.encode([{"image": ["x"]}])
    with pytest.raises(ValueError, match="int '3': must be a sentence"):
        encoder.encode([3])
    with pytest.raises(VATError, match="'max': must be one of"):
        adapters.SentenceEncoder(vat, "max").encode(["w1"])
