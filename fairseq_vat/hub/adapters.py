"""A checkpoint as the sentence encoder of SentEval, sentence-transformers or MTEB.

None of them needs to be installed. Shape legend: N sentences, L latent width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fairseq_vat.hub.interface import VATHubInterface

# what SentEval's own examples put in the place of a sentence without words
_EMPTY = "."

# Of sentence-transformers' encode: what would change the result and has one value here.
_FIXED = {
    "prompt_name": None,
    "prompt": None,
    "output_value": "sentence_embedding",
    "precision": "float32",
    "truncate_dim": None,
    "device": None,
    "pool": None,
}
# What can't change it: how the work is split, and what MTEB (1 and 2) says of the task at hand.
_WITHOUT_EFFECT = {
    *("chunk_size", "task_metadata", "task_name", "hf_split", "hf_subset", "prompt_type"),
}


def senteval(
    vat: VATHubInterface,
    pooling: str = "mean",
    join: Callable[[Sequence[str]], str] = " ".join,
) -> tuple[Callable[[Any, Any], None], Callable[[Any, Sequence[Sequence[str]]], np.ndarray]]:
    """The functions ``prepare(params, samples)`` and ``batcher(params, batch)`` of SentEval.

    A batch is a list of sentences that are lists of words; the batcher gives one vector a
    sentence, (N, L). A sentence without words is read as a full stop, as in SentEval's examples.

    Args:
        vat: the model.
        pooling: ``mean``, ``sum`` or ``start``, as for `VATHubInterface.embed`.
        join: makes a sentence of its words. SentEval's texts are tokenised; a model of untokenised
            text reads them better with a detokeniser here.
    """

    def prepare(params: Any, samples: Any) -> None:
        """Nothing: the vocabulary is the model's."""

    def batcher(params: Any, batch: Sequence[Sequence[str]]) -> np.ndarray:
        sentences = [join(words) if len(words) else _EMPTY for words in batch]
        return vat.embed(sentences, pooling)

    return prepare, batcher


class SentenceEncoder:
    """A model with the interface of ``SentenceTransformer``, which is also MTEB's.

    Args:
        vat: the model.
        pooling: ``mean``, ``sum`` or ``start``, as for `VATHubInterface.embed`.
    """

    # MTEB takes any object with this attribute for an encoder; None leaves its records unnamed, and
    # an `mteb.ModelMeta` set here names them
    mteb_model_meta: Any = None
    similarity_fn_name = "cosine"

    def __init__(self, vat: VATHubInterface, pooling: str = "mean"):
        self.vat, self.pooling = vat, pooling

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.vat.device

    def get_sentence_embedding_dimension(self) -> int:
        """L."""
        return self.vat.model.encoder.latent_dim

    def encode(
        self,
        inputs: str | Iterable[Any] | None = None,
        *,
        sentences: str | Iterable[Any] | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        normalize_embeddings: bool = False,
        **kwargs: Any,
    ) -> np.ndarray | Tensor | list[Tensor]:
        """One vector a sentence, (N, L), in the order of the sentences; of a lone string (L,).

        Args:
            inputs: a sentence; sentences; or, as from MTEB's data loaders, batches of them:
                mappings whose ``text`` is a sentence or a list of them.
            sentences: the older name of `inputs`.
            batch_size: at most so many sentences at a time (a batch also has at most the model's
                ``max_tokens``). No result depends on it, but for the rounding of sums.
            show_progress_bar: False hides the bar, which else shows on terminals.
            convert_to_numpy: False gives a list of N tensors.
            convert_to_tensor: give one tensor, on the model's device, instead of an array.
            normalize_embeddings: scale every vector to length 1 (a vector of zeros stays).
            **kwargs: MTEB's and sentence-transformers' others. What describes the task is left
                unused; what would change the result has to have its default value.

        Raises:
            ValueError: for a setting that isn't to be had, or an input that has no text.
            TypeError: for an argument that neither of the two has, or inputs given twice or not.
        """
        if (inputs is None) == (sentences is None):
            raise TypeError("encode() needs inputs")
        inputs = sentences if inputs is None else inputs
        _check_settings(kwargs)
        texts = [inputs] if isinstance(inputs, str) else list(_texts(inputs))
        posteriors = self.vat.embed_posteriors(
            texts, (self.pooling,), batch_size, show_progress_bar is not False
        )
        vectors_NL = posteriors[self.pooling].mean.float()
        if normalize_embeddings:
            vectors_NL = F.normalize(vectors_NL, dim=-1)
        found = vectors_NL[0] if isinstance(inputs, str) else vectors_NL
        if convert_to_tensor:
            return found.to(self.device)
        if convert_to_numpy:
            return found.numpy()
        return found if isinstance(inputs, str) else list(found)

    def encode_query(self, inputs: Any, **kwargs: Any) -> Any:
        """`encode`: the model knows no prompts."""
        return self.encode(inputs, **kwargs)

    encode_document = encode_query

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """The cosines of all pairs of two sets of vectors, (N1, N2)."""
        return _unit(embeddings1) @ _unit(embeddings2).t()

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """The cosines of vectors at the same place, (N,)."""
        return (_unit(embeddings1) * _unit(embeddings2)).sum(dim=-1)


def _unit(vectors: Any) -> Tensor:
    """Vectors, (N, L), of length 1, whatever they are kept in; a lone one is a set of one."""
    found = torch.as_tensor(np.asarray(vectors) if isinstance(vectors, list) else vectors)
    return F.normalize(torch.atleast_2d(found.float()), dim=-1)


def _check_settings(given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if name in _WITHOUT_EFFECT:
            continue
        if name not in _FIXED:
            raise TypeError(f"encode() has no argument {name!r}")
        if value is not None and value != _FIXED[name]:
            raise ValueError(f"{name}={value!r}: must be {_FIXED[name]!r}")


def _texts(inputs: Iterable[Any]) -> Iterator[str]:
    """The sentences in a list of them, or in batches that are mappings."""
    for item in inputs:
        if isinstance(item, Mapping):
            if "text" not in item:
                raise ValueError(f"a batch of {', '.join(map(str, item))} has no text to encode")
            yield from _texts([item["text"]] if isinstance(item["text"], str) else item["text"])
        elif isinstance(item, str):
            yield item
        else:
            raise ValueError(f"{type(item).__name__} {str(item)[:40]!r}: must be a sentence")
