"""A checkpoint as SentEval's sentence encoder, called as SentEval calls it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from fairseq_vat.hub import adapters

SENTENCES = ["w1 w2 w3 w4 w5 w6 w7", "w9", "w3 w3 w8 w0 w1", "w5 w6", ""]


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
