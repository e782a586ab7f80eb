"""GPT-2's byte-level vocabulary for fairseq: token ids as the dictionary's symbols.

The ids, written as decimal numbers, are what fairseq's own ``--bpe gpt2`` turns text into and back
from, so generation needs nothing of ours.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fairseq.data.encoders.gpt2_bpe_utils import Encoder, bytes_to_unicode

from fairseq_vat.errors import VATError
from fairseq_vat.files import atomic_path, read_json_object

# What of config.json makes the architecture, with the values it has where it doesn't say.
ARCHITECTURE = {
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_inner": None,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "initializer_range": 0.02,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "bos_token_id": 50256,
    "eos_token_id": 50256,
}

# fairseq reads merges.txt without its first line and without what follows the last line break
_HEADER = "#version: 0.2"


def read_config(directory: str | os.PathLike) -> dict[str, Any]:
    """The architecture of the GPT-2 in a directory, under the names in `ARCHITECTURE`."""
    directory = Path(directory)
    if not directory.is_dir():
        raise VATError(f"{directory} is not a GPT-2 directory: there is no such directory")
    config = read_json_object(directory / "config.json")
    if config is None:
        raise VATError(f"{directory} is not a GPT-2 directory: it has no config.json")
    if config.get("model_type") != "gpt2":
        raise VATError(
            f"{directory} is not a GPT-2 directory: its config.json has model_type "
            f"{config.get('model_type')!r}, not 'gpt2'"
        )
    if config.get("tie_word_embeddings") is False:
        raise VATError(
            f"{directory}/config.json: tie_word_embeddings is false; only a GPT-2 whose output "
            "layer is its embedding can be used"
        )
    return check_config(config, f"{directory}/config.json")


_MOST_LAYERS = 1000


def check_config(config: dict[str, Any], where: str) -> dict[str, Any]:
    """The architecture's values of a GPT-2 configuration, with defaults; `VATError` if wrong."""
    found = {name: config.get(name, default) for name, default in ARCHITECTURE.items()}
    for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head"):
        if not _is_number(found[name], 1):
            raise VATError(f"{where}: {name} must be a number from 1, not {found[name]!r}")
    if found["n_layer"] > _MOST_LAYERS:  # a file's number alone would take hours
        raise VATError(f"{where}: n_layer {found['n_layer']}: more than {_MOST_LAYERS}")
    if found["n_embd"] % found["n_head"]:
        raise VATError(
            f"{where}: n_embd {found['n_embd']} can't be divided by n_head {found['n_head']}"
        )
    # one id stands for both in GPT-2, so either tells the other
    for name, other in (("bos_token_id", "eos_token_id"), ("eos_token_id", "bos_token_id")):
        found[name] = found[other] if found[name] is None else found[name]
        if not _is_number(found[name], 0) or found[name] >= found["vocab_size"]:
            raise VATError(
                f"{where}: {name} must be from 0 to {found['vocab_size'] - 1}, its vocabulary, "
                f"not {found[name]!r}"
            )
    return found


class GPT2Vocabulary:
    """The vocabulary of a GPT-2 directory.

    Args:
        directory: with config.json and vocab.json and merges.txt, or a tokenizer.json that holds
            both (which is all that newer releases of transformers save).

    Attributes:
        symbols: the dictionary's, the ids of all tokens but the end of text, in their order. All
            of them and not those of the training text, so that any other text has its symbols
            too, and a data set its dictionary in common with every other.

    Raises:
        VATError: if the directory isn't a GPT-2's, or its vocabulary isn't byte-level.
    """

    def __init__(self, directory: str | os.PathLike):
        config = read_config(directory)
        self._vocab, self._merges = _read_vocabulary(Path(directory))
        _check_vocabulary(Path(directory), self._vocab, self._merges, config["vocab_size"])
        special = {config["bos_token_id"], config["eos_token_id"]}
        self.symbols = [str(i) for i in sorted(self._vocab.values()) if i not in special]
        self._encoder = Encoder(self._vocab, self._merges)

    def encode(self, lines: list[str]) -> list[list[str]]:
        """Token ids of every line, as `fairseq-interactive --bpe gpt2` would make them."""
        return [[str(i) for i in self._encoder.encode(line)] for line in lines]

    def write(self, vocab_json: str | os.PathLike, merges_txt: str | os.PathLike) -> None:
        """Write the files for ``--gpt2-encoder-json`` and ``--gpt2-vocab-bpe``.

        fairseq drops the first line of merges.txt, whatever it is, and a last one that has no line
        break, and reads vocab.json in the locale's encoding: these copies lose nothing.
        """
        with atomic_path(vocab_json) as temporary:
            temporary.write_text(json.dumps(self._vocab) + "\n", encoding="ascii")
        with atomic_path(merges_txt) as temporary:
            lines = [_HEADER, *(" ".join(pair) for pair in self._merges)]
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")

    def digest(self) -> str:
        """SHA-256 of what decides how text is encoded."""
        value = json.dumps([sorted(self._vocab.items()), self._merges, self.symbols])
        return hashlib.sha256(value.encode()).hexdigest()


def _read_vocabulary(directory: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    vocab = read_json_object(directory / "vocab.json")
    merges = directory / "merges.txt"
    if vocab is not None and merges.is_file():
        # fairseq's own reading of it would take a merge for the header if there is none
        try:
            lines = merges.read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError:
            raise VATError(f"{merges} isn't UTF-8; give GPT-2's merges.txt") from None
        lines = lines[1:] if lines[0].startswith("#version") else lines
        return vocab, [tuple(line.split()) for line in lines if line.strip()]
    tokenizer = read_json_object(directory / "tokenizer.json")
    if tokenizer is None:
        missing = "vocab.json" if vocab is None else "merges.txt"
        raise VATError(f"{directory} is not a GPT-2 directory: it has no {missing}")
    model = tokenizer.get("model")
    model = model if isinstance(model, dict) else {}
    if model.get("type") != "BPE" or "ByteLevel" not in json.dumps(tokenizer.get("pre_tokenizer")):
        raise VATError(f"{directory}/tokenizer.json is not a byte-level BPE, as GPT-2's is")
    if not isinstance(model.get("vocab"), dict) or not isinstance(model.get("merges"), list):
        raise VATError(f"{directory}/tokenizer.json has no vocab and merges, as GPT-2's has")
    pairs = [pair.split() if isinstance(pair, str) else pair for pair in model["merges"]]
    if not all(isinstance(pair, list) for pair in pairs):
        raise VATError(f"{directory}/tokenizer.json has merges that aren't pairs of tokens")
    return model["vocab"], [tuple(pair) for pair in pairs]


def _check_vocabulary(
    directory: Path, vocab: dict[str, int], merges: list[tuple[str, ...]], size: int
) -> None:
    """Everything that would otherwise end encoding in the middle of a text."""
    ids = list(vocab.values())
    if not all(_is_number(i, 0) and i < size for i in ids) or len(set(ids)) != len(ids):
        raise VATError(
            f"{directory}: its vocabulary must give every token its own id, from 0 to {size - 1}, "
            "the vocab_size of config.json"
        )
    check_encoding(str(directory), vocab, merges)


def check_encoding(where: str, vocab: Mapping[str, int], merges: Iterable[Sequence[str]]) -> None:
    """Raise `VATError` for a vocabulary that text can't be encoded with: a KeyError, there."""
    missing = [symbol for symbol in bytes_to_unicode().values() if symbol not in vocab]
    if missing:
        raise VATError(
            f"{where}: its vocabulary is not byte-level: {len(missing)} of the 256 bytes have "
            f"no token, {missing[0]!r} for one"
        )
    for pair in merges:
        if len(pair) != 2 or "".join(pair) not in vocab:
            raise VATError(
                f"{where}: merges and vocabulary don't belong together: {' '.join(pair)!r} "
                "makes no token"
            )


def _is_number(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
