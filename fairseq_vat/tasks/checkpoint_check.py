"""Whether a checkpoint is one of this plugin, told before fairseq builds anything of it.

fairseq evaluates strings of its configuration as Python (``conv_feature_layers`` of wav2vec2,
``decoder_layers`` of fconv_lm, ``wer_args`` of ctc, ``adam_betas``), and a checkpoint brings the
configuration, so one with nothing but harmless tensors can run code by the class that it names.
Here the classes must be the plugin's own, which evaluate nothing, and every value must be of its
setting's declared type and range.
"""

from __future__ import annotations

import ast
import functools
import math
import re
from argparse import Namespace
from dataclasses import fields, is_dataclass
from enum import Enum
from types import UnionType
from typing import Any, Union, get_args, get_origin

from fairseq import models, tasks
from fairseq.data import Dictionary
from fairseq.dataclass.configs import FairseqConfig
from fairseq.registry import REGISTRIES
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fairseq_vat.criterions.token_kl_cross_entropy import TokenKLCrossEntropy
from fairseq_vat.errors import VATError
from fairseq_vat.models.config import check_config
from fairseq_vat.models.vat_transformer import VATModel
from fairseq_vat.tasks.checkpoint_parts import check_no_attributes, check_parts, told
from fairseq_vat.tasks.variational_lm import VariationalLMTask

# files that a training read and whose content the checkpoint holds: nobody needs to open them
_FILES_READ = ("encoder_embed_path", "decoder_embed_path", "gpt2_dir")
# settings of fairseq's optimizers and schedulers that it evaluates where they are strings
_EVALUATED = re.compile(r"(betas|_eps|2lr)$")
# out of the data directory
_ELSEWHERE = re.compile(r"^/|(^|/)\.\.(/|$)")
# of optimizers that have no dataclass fairseq keeps argparse's whole result
_MAY_BE_NAMESPACE = ("optimizer", "lr_scheduler")


def check_checkpoint(path: str, state: Any) -> None:
    """Raise `VATError` unless a checkpoint's content can be given to fairseq.

    Files that the training read are taken out of the model's configuration: their content is in
    the weights, and a checkpoint doesn't choose what is opened.

    Args:
        path: the checkpoint, for the message.
        state: what ``torch.load(..., weights_only=True)`` gave; its ``cfg`` is plain data.

    Raises:
        VATError: for one that isn't of this plugin's architectures, task and criterion, that has
            a setting this version doesn't know, a value of another type or out of range, an
            interpolation, or objects beside tensors and plain data.
    """
    try:
        check_no_attributes(state, "it", {"_metadata"})  # torch's, of parameters alone
    except VATError as error:
        raise VATError(f"checkpoint {path} is refused: {error}") from None
    cfg = state.get("cfg") if isinstance(state, dict) else None
    if isinstance(state, dict) and state.get("args") is not None:
        raise VATError(
            f"checkpoint {path} is refused: its configuration is of fairseq's old kind (args), "
            "which no checkpoint of this plugin has"
        )
    if not (isinstance(cfg, dict) and isinstance(state.get("model"), dict)):
        raise VATError(
            f"checkpoint {path} is no checkpoint of fairseq's: it holds no model and configuration"
        )
    try:
        check_parts(state)
        kinds = _kinds(cfg)
        _check_sections(cfg, {name: dataclass for name, (_, dataclass) in kinds.items()})
        for name in _FILES_READ:
            if name in cfg["model"]:
                cfg["model"][name] = None
        if _ELSEWHERE.search(str(cfg["task"].get("train_subset"))):
            raise VATError(f"cfg.task.train_subset is {told(cfg['task']['train_subset'])}")
        _check_ranges(cfg, kinds)
        for name in ("encoder_layers", "decoder_layers"):
            if (count := cfg["model"][name]) > max(100, len(state["model"])):  # takes too long
                raise VATError(f"cfg.model.{name} is {count}, more than it has parameters")
    except RecursionError:
        raise VATError(f"checkpoint {path} is refused: its data is nested without end") from None
    except (VATError, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        raise VATError(f"checkpoint {path} is refused: {reason}") from None


def _kinds(cfg: dict[str, Any]) -> dict[str, tuple[type, type]]:
    """The classes that model, task and criterion name, with their dataclasses."""
    names = {section: _name(cfg.get(section)) for section in ("model", "task", "criterion")}
    model = models.ARCH_MODEL_REGISTRY.get(names["model"])
    model = model or models.MODEL_REGISTRY.get(names["model"])
    criterions = REGISTRIES["criterion"]
    found = {
        "model": (VATModel, model, getattr(model, "__dataclass", None)),
        "task": (
            VariationalLMTask,
            tasks.TASK_REGISTRY.get(names["task"]),
            tasks.TASK_DATACLASS_REGISTRY.get(names["task"]),
        ),
        "criterion": (
            TokenKLCrossEntropy,
            criterions["registry"].get(names["criterion"]),
            criterions["dataclass_registry"].get(names["criterion"]),
        ),
    }
    for ours, kind, dataclass in found.values():
        if kind is None or dataclass is None or not issubclass(kind, ours):
            raise VATError(
                f"it is of architecture {told(names['model'])}, task {told(names['task'])} and "
                f"criterion {told(names['criterion'])}; one of this plugin's architectures is "
                "needed, such as vat_transformer, trained with --task variational_lm and "
                "--criterion token_kl_cross_entropy"
            )
    return {section: (kind, dataclass) for section, (_, kind, dataclass) in found.items()}


def _name(section: Any) -> str | None:
    section = vars(section) if isinstance(section, Namespace) else section
    name = section.get("_name") if isinstance(section, dict) else None
    return name if isinstance(name, str) else None


def _check_sections(cfg: dict[str, Any], ours: dict[str, type]) -> None:
    of_fairseq = {field.name: field.type for field in fields(FairseqConfig)}
    _check_plain("cfg", dict.fromkeys(cfg))
    for section, values in cfg.items():
        if isinstance(values, Namespace) and section in _MAY_BE_NAMESPACE:
            values = vars(values)
        _check_plain(f"cfg.{section}", values)
        if section in ours:
            _check_ours(section, values, ours[section])
            continue
        dataclass = of_fairseq.get(section)
        if section in REGISTRIES:
            dataclass = REGISTRIES[section]["dataclass_registry"].get(_name(values))
        if isinstance(values, dict):
            _check_fairseqs(section, values, dataclass)


def _check_plain(where: str, value: Any) -> None:
    if isinstance(value, dict):
        check_no_attributes(value, where)
        for key, item in value.items():
            if not isinstance(key, str):
                raise VATError(f"{where} has the key {told(key)}, which is no name")
            _check_plain(f"{where}.{told(key)[1:-1]}", item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_plain(where, item)
    elif isinstance(value, str):
        if "${" in value:
            raise VATError(f"{where} is {told(value)}, an interpolation in place of a value")
        if _EVALUATED.search(where) and not _is_literal(value):
            raise VATError(f"{where} is {told(value)}; must be numbers")
    elif not (value is None or type(value) in (bool, int, float)):
        raise VATError(f"{where} is {told(value)}, no plain data")


def _check_ours(section: str, values: dict[str, Any], dataclass: type) -> None:
    """Nothing but the dataclass's fields, each of its type; one that is missing has its default."""
    types = {field.name: field.type for field in fields(dataclass)}
    for name, value in values.items():
        if name not in types:
            raise VATError(
                f"cfg.{section} has a setting that this version of fairseq_vat doesn't know, "
                f"{told(name)}: it is damaged or of a newer version"
            )
        if name != "_name" and not fits(value, types[name]):
            raise VATError(
                f"cfg.{section}.{name} is {told(value)}; must be {_type_name(types[name])}"
            )


def _check_fairseqs(section: str, values: dict[str, Any], dataclass: type | None) -> None:
    """fairseq's own: other versions have other fields, and its types are loose about None."""
    known = fields(dataclass) if is_dataclass(dataclass) else ()
    types = {field.name: field.type for field in known}
    for name, value in values.items():
        where = f"cfg.{section}.{told(name)[1:-1]}"
        declared = types.get(name)
        if not _is_numeric(declared) or value is None or value == MISSING:
            continue
        if not fits(value, declared, finite=False):
            raise VATError(f"{where} is {told(value)}; must be {_type_name(declared)}")


def _is_literal(text: str) -> bool:
    try:
        ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError):
        return False
    return True


def _is_numeric(declared: Any) -> bool:
    """Whether a declared type is of numbers alone, or of lists of them."""
    if _is_union(declared) or get_origin(declared) in (list, tuple):
        return all(_is_numeric(part) for part in get_args(declared))
    return declared in (bool, int, float, type(None), Ellipsis)


def _is_union(declared: Any) -> bool:
    return get_origin(declared) in (Union, UnionType)


def fits(value: Any, declared: Any, finite: bool = True) -> bool:
    """Whether plain data is of a declared type; an integer is a float too."""
    if _is_union(declared):
        return any(fits(value, part, finite) for part in get_args(declared))
    if get_origin(declared) in (list, tuple):
        parts = [part for part in get_args(declared) if part is not Ellipsis]
        return isinstance(value, (list, tuple)) and all(
            any(fits(item, part, finite) for part in parts) for item in value
        )
    if isinstance(declared, type) and issubclass(declared, Enum):
        return isinstance(value, str) and value in {
            text for member in declared for text in (member.name, member.value)
        }
    if declared is float:
        return type(value) in (int, float) and not (finite and not math.isfinite(value))
    if is_dataclass(declared):
        return isinstance(value, dict)
    return declared is Any or type(value) is declared


def _type_name(declared: Any) -> str:
    if _is_union(declared):
        return " or ".join(_type_name(part) for part in get_args(declared))
    if isinstance(declared, type) and issubclass(declared, Enum):
        return "one of " + ", ".join(member.name for member in declared)
    names = {float: "a finite number", int: "an integer", bool: "true or false", str: "text"}
    return "None" if declared is type(None) else names.get(declared, str(declared))


_structured = functools.cache(OmegaConf.structured)  # merged into a copy


def _check_ranges(cfg: dict[str, Any], kinds: dict[str, tuple[type, type]]) -> None:
    """What the plugin's classes check of their settings when they are made from flags.

    A setting that is younger than the checkpoint gets its default on the way.
    """
    sections = [*kinds, "common", "dataset", "optimization"]  # of others some settings are taken
    whole = OmegaConf.create(
        {section: cfg[section] for section in sections if isinstance(cfg.get(section), dict)}
    )
    for section, (_, dataclass) in kinds.items():
        whole[section] = OmegaConf.merge(_structured(dataclass), whole[section])
    check_config(whole.model)
    task = kinds["task"][0](whole.task, Dictionary())
    kinds["criterion"][0](whole.criterion, task)
    for section in kinds:
        complete = OmegaConf.to_container(whole[section], resolve=True, enum_to_str=True)
        cfg[section] = {**complete, **cfg[section]}
