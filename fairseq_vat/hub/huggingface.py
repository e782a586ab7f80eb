"""Sentence vectors of a Hugging Face encoder in a local folder, as a baseline.

Shape legend: N sentences asked for, B of a batch, T subwords of a sentence, C width.
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.data import data_utils
from torch import Tensor, nn
from tqdm import tqdm

from fairseq_vat.compat.packages import import_transformers, quiet_transformers
from fairseq_vat.errors import VATError
from fairseq_vat.files import read_json_object
from fairseq_vat.latent.choices import POOLINGS

logger = logging.getLogger(__name__)

# tokenizers without a limit of their own give a number far over this
_NO_LIMIT = 1_000_000
_USUAL_LIMIT = 512  # BERT's
_MOST_LAYERS = 1000
_TOKENIZER_FILES = ("tokenizer.json", "vocab.*", "*.model")


class HuggingFaceEncoder:
    """An encoder and its tokenizer.

    Nothing is loaded but tensors, no code of the folder's is run, and nothing comes from the
    network.

    Args:
        directory: with config.json, weights and the tokenizer's files.

    Raises:
        VATError: if transformers isn't installed, or the folder isn't an encoder's.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        device: str | torch.device = "cpu",
        max_tokens: int = 8192,
    ):
        self.directory, self.max_tokens = os.fspath(directory), max_tokens
        _check_config(self.directory)
        transformers = import_transformers("hf")
        options = {"local_files_only": True, "trust_remote_code": False}
        with _reading(transformers, self.directory):
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(self.directory, **options)
            model, report = transformers.AutoModel.from_pretrained(
                self.directory,
                **options,
                weights_only=True,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # named below
            )
        # the pooler, trained for another end, isn't used here and often isn't saved
        wrong = sorted(name for name in report["missing_keys"] if "pooler" not in name)
        wrong += [name for name, *_ in report["mismatched_keys"]]
        if wrong:
            raise VATError(
                f"{self.directory}: {len(wrong)} of the tensors that config.json speaks of are "
                f"not among the weights, or have another shape, such as {wrong[0]}"
            )
        config = model.config
        if getattr(config, "is_encoder_decoder", False) or not hasattr(config, "hidden_size"):
            raise VATError(f"{self.directory}: {config.model_type} isn't an encoder of text alone")
        if self.tokenizer.pad_token is None:
            raise VATError(f"{self.directory}: its tokenizer has no token for padding")
        known = model.get_input_embeddings().num_embeddings
        if max(self.tokenizer.get_vocab().values(), default=0) >= known:
            raise VATError(f"{self.directory}: its tokenizer has more subwords than its model")
        limit, fewest = self.tokenizer.model_max_length, self.tokenizer.num_special_tokens_to_add()
        if not isinstance(limit, (int, float)) or not limit > fewest:
            raise VATError(
                f"{self.directory}: its tokenizer's model_max_length must be a number above "
                f"{fewest}, not {limit!r}"
            )
        self.model = model.to(device).eval()

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def width(self) -> int:
        """C."""
        return self.model.config.hidden_size

    @property
    def max_positions(self) -> int:
        """Subwords of the longest sentence, [CLS] and [SEP] or what stands for them included."""
        limits = [self.tokenizer.model_max_length]
        embeddings = getattr(self.model, "embeddings", None)
        positions = getattr(embeddings, "position_embeddings", None)
        if positions is not None:
            # RoBERTa and its like number positions from the one after the padding's
            first = 0 if positions.padding_idx is None else positions.padding_idx + 1
            limits.append(positions.num_embeddings - first)
        elif getattr(self.model.config, "max_position_embeddings", None):
            limits.append(self.model.config.max_position_embeddings)
        limit = min(limits)
        return limit if limit < _NO_LIMIT else _USUAL_LIMIT

    def subwords(
        self, sentences: Sequence[str], seconds: Sequence[str] | None = None
    ) -> list[list[int]]:
        """The sentences' subwords, special ones included, cut (with a warning) to the positions.

        Of pairs, with `seconds`, both sentences' as the tokenizer joins them.
        """
        if not sentences:
            return []
        found = self._tokenized(sentences, seconds)
        if found.encodings is None:  # a tokenizer in Python, which tells of nothing
            whole = self._tokenized(sentences, seconds, truncation=False)["input_ids"]
            cut = sum(len(sentence) > self.max_positions for sentence in whole)
        else:
            cut = sum(bool(one.overflowing) for one in found.encodings)
        if cut:
            logger.warning(
                f"{self.directory}: {cut:,} of {len(sentences):,} sentences cut to "
                f"{self.max_positions:,} subwords"
            )
        return found["input_ids"]

    def token_types(
        self, sentences: Sequence[str], seconds: Sequence[str]
    ) -> list[list[int]] | None:
        """Which of a pair's sentences each of its subwords is of; None: the model has no types."""
        return self._tokenized(sentences, seconds).get("token_type_ids")

    def _tokenized(
        self, sentences: Sequence[str], seconds: Sequence[str] | None, truncation: bool = True
    ) -> Any:
        return self.tokenizer(
            list(sentences),
            None if seconds is None else list(seconds),
            truncation=truncation,
            max_length=self.max_positions if truncation else None,
            verbose=False,
            return_attention_mask=False,
        )

    def unknown(self, subwords: Sequence[Sequence[int]]) -> np.ndarray:
        """How many of each sentence's subwords are unknown, (N,)."""
        unk = self.tokenizer.unk_token_id
        return np.array([sum(subword == unk for subword in sentence) for sentence in subwords], int)

    @torch.no_grad()
    def embed(
        self,
        subwords: Sequence[Sequence[int]],
        poolings: Sequence[str] = POOLINGS,
        token_types: Sequence[Sequence[int]] | None = None,
    ) -> dict[str, np.ndarray]:
        """One vector a sentence, (N, C), for every pooling, from the last layer's output.

        Args:
            poolings: ``start`` is the first subword's output ([CLS] in BERT), ``mean`` and ``sum``
                are over all subwords but padding, [CLS] and [SEP] included.
        """
        found = {name: np.zeros((len(subwords), self.width), np.float32) for name in poolings}
        with tqdm(
            total=len(subwords), unit=" sentences", delay=1, leave=False, disable=None
        ) as progress:
            sizes = np.array([len(sentence) for sentence in subwords], dtype=np.int64)
            for rows in data_utils.batch_by_size(
                np.argsort(sizes, kind="stable"),
                num_tokens_fn=sizes.__getitem__,
                max_tokens=max(self.max_tokens, sizes.max(initial=1)),
            ):
                types = None if token_types is None else [token_types[row] for row in rows]
                vectors = self.vectors(self.model, [subwords[row] for row in rows], types)
                for name in found:
                    found[name][rows] = vectors[name].cpu().numpy()
                progress.update(len(rows))
        return found

    def vectors(
        self,
        model: nn.Module,
        subwords: Sequence[Sequence[int]],
        token_types: Sequence[Sequence[int]] | None = None,
    ) -> dict[str, Tensor]:
        """One batch's vectors, (B, C), for every pooling, with gradients."""
        columns = {"input_ids": subwords, "token_type_ids": token_types}
        padded = self.tokenizer.pad(
            {name: column for name, column in columns.items() if column is not None},
            padding_side="right",
            return_attention_mask=True,
            return_tensors="pt",
        ).to(self.device)
        return _pooled(model(**padded).last_hidden_state, padded["attention_mask"])


def _pooled(x_BTC: Tensor, mask_BT: Tensor) -> dict[str, Tensor]:
    sum_BC = (x_BTC * mask_BT.unsqueeze(-1)).sum(dim=1)
    mean_BC = sum_BC / mask_BT.sum(dim=1, keepdim=True)
    return {"start": x_BTC[:, 0], "mean": mean_BC, "sum": sum_BC}


def _check_config(directory: str) -> None:
    path = Path(directory) / "config.json"
    config = read_json_object(path)
    if config is None:
        raise VATError(
            f"{directory} is not a Hugging Face model's folder: it has no config.json; give one "
            "that AutoModel.save_pretrained wrote"
        )
    if "model_type" not in config:
        raise VATError(f"{path} names no model_type, as a Hugging Face model's does")
    try:
        kernel = _kernel(config)
    except RecursionError:
        raise VATError(f"{path} is nested without end") from None
    if kernel is not None:  # transformers would fetch it and run its code
        raise VATError(f"{path}: {kernel}: names a kernel of the network's; leave it out")
    layers = config.get("num_hidden_layers", 0)
    if isinstance(layers, (int, float)) and layers > _MOST_LAYERS:  # would take hours
        raise VATError(f"{path}: num_hidden_layers {layers}: more than {_MOST_LAYERS}")
    # without them transformers makes a tokenizer to which everything is unknown
    if not any(found for pattern in _TOKENIZER_FILES for found in path.parent.glob(pattern)):
        raise VATError(
            f"{directory} has no tokenizer (none of {', '.join(_TOKENIZER_FILES)}); give a folder "
            "that AutoTokenizer.save_pretrained wrote to, too"
        )


def _kernel(config: Any) -> str | None:
    """A setting, or one inside another, that names an implementation by its address."""
    if isinstance(config, list):
        return next((found for item in config if (found := _kernel(item))), None)
    for name, value in config.items() if isinstance(config, dict) else ():
        if name.endswith("_implementation") or name.startswith("_attn_implementation"):
            if "/" in json.dumps(value):
                return f"{name} {json.dumps(value)[:60]}"
        elif found := _kernel(value):
            return found
    return None


@contextlib.contextmanager
def _reading(transformers: Any, directory: str) -> Iterator[None]:
    """`quiet_transformers`, and one line for whatever goes wrong."""
    try:
        with quiet_transformers(transformers):
            yield
    except Exception as error:  # of what kind depends on the file and transformers' release
        reason = " ".join(str(error).split())[:200]
        raise VATError(
            f"{directory}: transformers can't read an encoder there ({reason})"
        ) from error
