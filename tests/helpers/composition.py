"""fairseq's configuration from flags, composed once for flags that differ in their values alone.

fairseq has Hydra compose the configuration of every command: a third of a second, most of what a
small one takes. What a value is set in doesn't depend on the value, so a composition is kept for
the next command with the same groups and keys, and Hydra's own parser reads the values. Hydra,
which looks through all of the stack for its caller, is then not even initialized.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental import compose as hydra_compose
from hydra.experimental import initialize_config_module
from omegaconf import DictConfig, OmegaConf

_kept: dict[tuple[str, ...], tuple[list[str], DictConfig]] = {}


@contextlib.contextmanager
def initialize(config_path: str) -> Iterator[None]:
    """In place of Hydra's in `fairseq.dataclass.utils`, where `compose` does it if need be."""
    yield


def _compose(config_name: str, **how: Any) -> DictConfig:
    with initialize_config_module("fairseq.config"):
        return hydra_compose(config_name, **how)


def compose(config_name: str, overrides: list[str], **how: Any) -> DictConfig:
    """In place of Hydra's in `fairseq.dataclass.utils`."""
    keys = [text.partition("=")[0] for text in overrides]
    # a key without a dot is a group, whose choice decides which keys there are
    names = (key if "." in key else text for key, text in zip(keys, overrides, strict=True))
    kind = (config_name, *names)
    if kind not in _kept:
        cfg = _compose(config_name, overrides=overrides, **how)
        _kept[kind] = overrides, copy.deepcopy(cfg)
        return cfg
    before, cfg = _kept[kind]
    cfg = copy.deepcopy(cfg)
    parser = OverridesParser.create()
    for key, text, old in zip(keys, overrides, before, strict=True):
        if text == old:
            continue
        value = parser.parse_override(text).value()
        if isinstance(value, dict):  # would be merged with the one before
            return _compose(config_name, overrides=overrides, **how)
        OmegaConf.update(cfg, key, value)
    return cfg
