"""A checkpoint as a module of sentence-transformers, where that is installed."""

from __future__ import annotations

import json
import sys
from unittest import mock

import numpy as np
import pytest
import torch
from helpers import commands

from fairseq_vat.errors import VATError
from fairseq_vat.hub.interface import from_pretrained
from fairseq_vat.hub.packing import write_packed

SENTENCES = ["w1 w2 w3 w4 w5 w6 w7", "w9", "w3 w3 w8 w0 w1", "w5 w6", ""]


def test_it_says_what_is_missing():
    with (
        mock.patch.dict(sys.modules, {"sentence_transformers": None}),
        mock.patch.dict(sys.modules),
        pytest.raises(VATError, match=r"pip install 'fairseq_vat\[sentence-tr"),
    ):
        sys.modules.pop("fairseq_vat.hub.sentence_transformers", None)
        import fairseq_vat.hub.sentence_transformers  # noqa: F401


def test_a_model_in_memory_is_packed(good, checkpoint, tmp_path):
    vat = from_pretrained(checkpoint, device="cpu")
    before = vat.embed(SENTENCES)
    with torch.no_grad():  # trained further
        vat.model.encoder.body.embed_tokens.weight *= 1.5
    expected = vat.embed(SENTENCES)
    assert not np.allclose(before, expected)
    write_packed(good | {"cfg": vat.cfg}, vat.model, tmp_path, half=False)
    packed = from_pretrained(tmp_path, device="cpu")
    assert np.array_equal(packed.embed(SENTENCES), expected)


@pytest.fixture(scope="module")
def toolkit():
    try:
        import torchaudio  # noqa: F401
    except ImportError:
        pass
    except OSError:  # of another build than torch's; a user would uninstall it
        sys.modules["torchaudio"] = None
    return pytest.importorskip("sentence_transformers")


@pytest.fixture(scope="module")
def encoder_class(toolkit):
    from fairseq_vat.hub.sentence_transformers import VATEncoder

    return VATEncoder


@pytest.fixture(scope="module")
def encoder(toolkit, encoder_class, checkpoint):
    return toolkit.SentenceTransformer(modules=[encoder_class(checkpoint)], device="cpu")


def assert_close(one, other):
    np.testing.assert_allclose(one, other, atol=2e-6)


@pytest.mark.parametrize("pooling", ["mean", "sum", "start"])
def test_encode_is_embed(vat, toolkit, encoder_class, checkpoint, pooling):
    module = encoder_class(checkpoint.parent, pooling)
    encoder = toolkit.SentenceTransformer(modules=[module], device="cpu")
    expected = vat.embed(SENTENCES, pooling)
    assert_close(encoder.encode(SENTENCES), expected)
    assert_close(encoder.encode(SENTENCES, batch_size=2), expected)
    assert_close(encoder.encode(SENTENCES[0]), expected[0])
    unit = encoder.encode(SENTENCES, normalize_embeddings=True)
    assert_close(unit, expected / np.linalg.norm(expected, axis=1, keepdims=True))
    assert encoder.encode([]).shape[0] == 0
    assert module.get_embedding_dimension() == 16


def test_one_latent_a_sentence(data_dir, toolkit, encoder_class, tmp_path):
    flags = ("--arch", "vae_transformer", "--encoder-embed-dim", "16", "--decoder-embed-dim", "16")
    commands.train(data_dir, tmp_path, *flags, "--max-update", "2")
    encoder = toolkit.SentenceTransformer(modules=[encoder_class(tmp_path)], device="cpu")
    expected = from_pretrained(tmp_path, device="cpu").embed(SENTENCES)
    assert_close(encoder.encode(SENTENCES), expected)
    (latents, *_) = encoder.encode(SENTENCES, output_value="token_embeddings")
    assert_close(latents, expected[:1])


def test_tokens_are_the_latents(vat, toolkit, encoder):
    latents = encoder.encode(SENTENCES, output_value="token_embeddings")
    for found, posterior in zip(latents, vat.posteriors(SENTENCES), strict=True):
        assert_close(found, posterior.mean)
    from sentence_transformers.models import Pooling

    pooling = Pooling(16, "max")
    pooled = toolkit.SentenceTransformer(modules=[encoder[0], pooling], device="cpu")
    expected = [posterior.mean.max(dim=0).values for posterior in vat.posteriors(SENTENCES)]
    assert_close(pooled.encode(SENTENCES), torch.stack(expected))


def test_a_prompt_is_text_before(encoder):
    assert_close(encoder.encode(["w3 w4"], prompt="w1 w2 "), encoder.encode(["w1 w2 w3 w4"]))


def test_long_sentences_are_cut(vat, encoder):
    room = encoder.max_seq_length - 2  # start token and end
    one, other = (" ".join(["w1"] * words) for words in (room, room + 5))
    assert_close(encoder.encode([other]), encoder.encode([one]))
    assert_close(encoder.encode([one]), vat.embed([one]))
    longest = encoder.max_seq_length
    encoder.max_seq_length = 4
    assert_close(encoder.encode(["w1 w2 w3"]), vat.embed(["w1 w2"]))
    for wrong in (2, longest + 1):
        with pytest.raises(VATError, match=rf"must be from 3 to {longest}, the model's positions"):
            encoder.max_seq_length = wrong
    encoder.max_seq_length = longest


def test_saving(toolkit, encoder_class, checkpoint, tmp_path):
    encoder = toolkit.SentenceTransformer(modules=[encoder_class(checkpoint, "sum")], device="cpu")
    encoder.max_seq_length = 16
    with torch.no_grad():  # trained further
        encoder[0].vat.model.encoder.body.embed_tokens.weight *= 1.5
    expected = encoder.encode(SENTENCES)
    assert not np.allclose(expected, from_pretrained(checkpoint).embed(SENTENCES, "sum"))
    encoder.save(str(tmp_path / "saved"))
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert {"modules.json", "model.pt", "dict.txt", "vat_encoder_config.json"} <= names
    config = json.loads((tmp_path / "saved" / "vat_encoder_config.json").read_text())
    assert config == {"pooling": "sum", "max_seq_length": 16}
    loaded = toolkit.SentenceTransformer(
        str(tmp_path / "saved"), trust_remote_code=True, device="cpu", local_files_only=True
    )
    assert np.array_equal(loaded.encode(SENTENCES), expected)
    module = encoder_class.load(tmp_path / "saved")
    assert module.max_seq_length == loaded.max_seq_length == 16
    alone = toolkit.SentenceTransformer(modules=[module], device="cpu")
    assert np.array_equal(alone.encode(SENTENCES), expected)
    # over itself, and by this package's own means
    loaded.save(str(tmp_path / "saved"))
    vat = from_pretrained(tmp_path / "saved", device="cpu")
    assert_close(vat.embed(SENTENCES, "sum"), expected)


def test_gradients_reach_the_encoder(encoder):
    encoder.zero_grad()
    encoder(encoder[0].preprocess(SENTENCES))["sentence_embedding"].square().sum().backward()
    gradient = encoder[0].vat.model.encoder.body.embed_tokens.weight.grad
    assert gradient.norm() > 0


def test_its_evaluator(vat, encoder):
    from scipy.stats import spearmanr
    from sentence_transformers.evaluation import EmbeddingSimilarityEvaluator

    firsts, seconds, scores = SENTENCES[:4], ["w1 w2 w3", "w8", "w3 w8", "w7"], [0.9, 0.1, 0.5, 0.3]
    evaluator = EmbeddingSimilarityEvaluator(firsts, seconds, scores, main_similarity="cosine")
    one, other = vat.embed(firsts), vat.embed(seconds)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    expected = spearmanr((one * other).sum(axis=1) / lengths, scores).statistic
    assert encoder.evaluate(evaluator)["spearman_cosine"] == pytest.approx(expected)


def test_mistakes(encoder_class, checkpoint, tmp_path):
    with pytest.raises(VATError, match="'max': must be one of"):
        encoder_class(checkpoint, "max")
    with pytest.raises(VATError, match="doesn't exist"):
        encoder_class(tmp_path / "nothing")
