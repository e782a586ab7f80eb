"""A ``transformers.GPT2Model`` with cross-attention, from a directory or from its configuration."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

from torch import nn

from fairseq_vat.compat.packages import import_transformers, quiet_transformers
from fairseq_vat.errors import VATError
from fairseq_vat.text.gpt2_vocabulary import check_config, read_config

_FILES = ("model.safetensors", "pytorch_model.bin")


def pretrained(
    directory: str | os.PathLike,
    dropout: float = 0.1,
    attention_dropout: float = 0.1,
    checkpoint_activations: bool = False,
) -> nn.Module:
    """GPT-2 with a directory's weights, in single precision; its cross-attention is random.

    Args:
        directory: config.json and model.safetensors or pytorch_model.bin, of which nothing but
            tensors is loaded, and nothing from the network.
        dropout: of embeddings and of every layer's output, in training.
        attention_dropout: of attention weights.
        checkpoint_activations: recompute activations in the backward pass, to save memory.

    Raises:
        VATError: if transformers isn't installed, or the directory isn't a GPT-2's.
    """
    architecture = read_config(directory)
    names = [*_FILES, *(f"{name}.index.json" for name in _FILES)]
    if not any((Path(directory) / name).is_file() for name in names):
        raise VATError(
            f"{directory} is not a GPT-2 directory: it has neither {' nor '.join(_FILES)}"
        )
    transformers = import_transformers("gpt2")
    from safetensors import SafetensorError  # comes with transformers

    where = f"{directory}/config.json"
    config = _config(transformers, architecture, where, dropout, attention_dropout)
    try:
        with quiet_transformers(transformers):
            # safetensors where there are any; torch's files with weights_only
            gpt2, found = transformers.GPT2Model.from_pretrained(
                directory, config=config, local_files_only=True, output_loading_info=True
            )
    except (OSError, RuntimeError, ValueError, pickle.UnpicklingError, SafetensorError) as error:
        raise VATError(
            f"{directory}: GPT-2's weights can't be read or don't fit its config.json "
            f"({' '.join(str(error).split())[:200]})"
        ) from error
    missing = sorted(name for name in found["missing_keys"] if "cross" not in name)
    if missing:
        raise VATError(
            f"{directory}: GPT-2's weights lack {len(missing)} of its tensors, such as {missing[0]}"
        )
    # whatever they are stored in: with --fp16 it is fairseq that makes them half
    return _finished(gpt2.float(), checkpoint_activations)


def fresh(
    config_json: str,
    dropout: float = 0.1,
    attention_dropout: float = 0.1,
    checkpoint_activations: bool = False,
) -> nn.Module:
    """GPT-2 with random weights, which a checkpoint's will replace."""
    try:
        values = json.loads(config_json)
    except (ValueError, RecursionError) as error:
        raise VATError(f"--gpt2-config is not JSON ({error})") from error
    if not isinstance(values, dict):
        raise VATError("--gpt2-config is not a JSON object")
    architecture = check_config(values, "--gpt2-config")
    transformers = import_transformers("gpt2")
    config = _config(transformers, architecture, "--gpt2-config", dropout, attention_dropout)
    try:
        gpt2 = transformers.GPT2Model(config)
    except Exception as error:  # of what kind depends on the value
        reason = " ".join(str(error).split())[:200]
        raise VATError(f"--gpt2-config: there is no GPT-2 of these values ({reason})") from error
    return _finished(gpt2, checkpoint_activations)


def _config(
    transformers: Any,
    architecture: dict[str, Any],
    where: str,
    dropout: float,
    attention_dropout: float,
) -> Any:
    # the architecture alone: what else a config.json says (of outputs, of caches) must not act
    try:
        config = transformers.GPT2Config(
            **architecture,
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=attention_dropout,
            add_cross_attention=True,
        )
        transformers.activations.ACT2FN[config.activation_function]
    except Exception as error:  # of what kind depends on transformers' release
        reason = " ".join(str(error).split())[:200]
        raise VATError(
            f"{where}: transformers can't make a GPT-2 of these values ({reason})"
        ) from error
    return config


def _finished(gpt2: nn.Module, checkpoint_activations: bool) -> nn.Module:
    if checkpoint_activations:
        gpt2.gradient_checkpointing_enable({"use_reentrant": False})
    return gpt2
