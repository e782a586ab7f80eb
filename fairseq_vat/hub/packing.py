"""A checkpoint as a small folder to give away."""

import copy
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.dataclass.configs import CheckpointConfig, CommonConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor

from fairseq_vat.errors import VATError
from fairseq_vat.files import atomic_path
from fairseq_vat.hub.loading import checkpoint_of, load_model
from fairseq_vat.models.vat_transformer import VATModel
from fairseq_vat.tasks.data_directory import vocabulary_of
from fairseq_vat.text.subword_files import NOTE

logger = logging.getLogger(__name__)

_CARD = """# {name}

A {architecture} of fairseq_vat: {parameters:,} parameters in {precision}, {updates:,} updates.

{python}The folder has the model, its dictionary{subwords}; {opened} open it.

| setting | value |
| --- | --- |
{settings}

{mark}
"""
_OF_LATENTS = """```python
from fairseq_vat import VATModel

vat = VATModel.from_pretrained("{name}")
vat.reconstruct(["A sentence."])
```

"""
# a card with it is made anew; another is somebody's own
_MARK = "<!-- written by fairseq-vat pack: without this line it stays as it is -->"


def pack(model: str | os.PathLike, out: str | os.PathLike, half: bool = True) -> Path:
    """Write ``model.pt``, ``dict.txt``, the subwords' files and a card, ``README.md``.

    A ``README.md`` that it didn't write stays, and is warned of.

    What only training needs is left out (optimizer, meters), and so are the paths of the machine
    that it ran on. Parameters that aren't finite in half precision are refused.

    Args:
        model: a checkpoint or its folder.
        out: the folder; is made.
        half: keep parameters in half precision.

    Returns:
        the path of ``model.pt``.

    Raises:
        VATError: as `load_model`, for a checkpoint of an earlier version, which holds no
            dictionary, and for parameters beyond half precision.
    """
    path = checkpoint_of(model)
    loaded = load_model(path, device="cpu")
    try:
        return write_packed(checkpoint_utils.load_checkpoint_to_cpu(path), loaded.model, out, half)
    except VATError as error:
        raise VATError(f"{path}: {error}") from error


def write_packed(
    state: dict[str, Any], model: VATModel, out: str | os.PathLike, half: bool = True
) -> Path:
    """`pack` of a model in memory, such as one that was trained further.

    Args:
        state: the checkpoint that it was loaded from, of which all but the parameters counts.
        model: has the parameters.
        out: the folder; is made.
        half: keep parameters in half precision.

    Returns:
        the path of ``model.pt``.

    Raises:
        VATError: for a checkpoint without a dictionary, and for parameters beyond half precision.
    """
    out = Path(out)
    vocabulary = vocabulary_of(state.get("task_state", {}))
    if vocabulary is None:
        raise VATError(
            "the checkpoint holds no dictionary, being of an earlier version: train it on for an "
            "update with --restore-file"
        )
    parameters = _written(model.state_dict(), half)
    for name, value in parameters.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise VATError(f"{name} has values that aren't finite{' in half precision' * half}")
    packed = {
        "args": None,
        "cfg": OmegaConf.to_container(_without_paths(state["cfg"])),
        "model": parameters,
        "criterion": None,
        "optimizer_history": [
            {**state["optimizer_history"][-1], "optimizer_name": None, "lr_scheduler_state": {}}
        ],
        "task_state": state["task_state"],
        "extra_state": {"train_iterator": state["extra_state"]["train_iterator"]},
        "last_optimizer_state": None,
    }
    out.mkdir(parents=True, exist_ok=True)
    with atomic_path(out / "dict.txt") as temporary:
        vocabulary.dictionary.save(str(temporary))
    (out / NOTE).unlink(missing_ok=True)
    if vocabulary.subwords is not None:
        vocabulary.subwords.write(out)
    criterion = state["cfg"].criterion
    names = [name for name in criterion if name.startswith(("prior", "kl_", "free"))]
    settings = [f"| `--{name.replace('_', '-')}` | {criterion[name]} |" for name in names]
    name = out.resolve().name
    opened = f"`fairseq-vat COMMAND {name}` and `fairseq-generate DATA --path {name}/model.pt`"
    if not model.has_latents:
        opened = f"`fairseq-vat evaluate {name} --data DATA` and fairseq's commands"
    card = _CARD.format(
        name=name,
        python=_OF_LATENTS.format(name=name) if model.has_latents else "",
        subwords=" and its subwords" if vocabulary.subwords is not None else "",
        opened=opened,
        mark=_MARK,
        architecture=state["cfg"].model._name,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        precision="half precision" if half else "single precision",
        updates=model.num_updates,
        settings="\n".join(settings),
    )
    path = out / "README.md"
    if path.exists() and _MARK not in path.read_text(encoding="utf-8", errors="replace"):
        logger.warning(f"{path}: is another's, and stays as it is")
    else:
        with atomic_path(path) as temporary:
            # a folder's name may be no UTF-8
            temporary.write_text(card, encoding="utf-8", errors="replace")
    with atomic_path(out / "model.pt") as temporary:
        torch.save(packed, temporary)
    return out / "model.pt"


def _written(parameters: Mapping[str, Tensor], half: bool) -> dict[str, Tensor]:
    """On the CPU; what parts of the model share stays shared, and so is written once."""
    written: dict[tuple, Tensor] = {}
    return {
        name: written.setdefault(
            (value.data_ptr(), value.shape, value.stride()),
            value.to("cpu", torch.half if half and value.is_floating_point() else value.dtype),
        )
        for name, value in parameters.items()
    }


def _without_paths(cfg: DictConfig) -> DictConfig:
    cfg = copy.deepcopy(cfg)
    defaults = {"common": CommonConfig(), "checkpoint": CheckpointConfig()}
    with open_dict(cfg):
        for group, config in defaults.items():
            for name in cfg[group]:
                if hasattr(config, name) and isinstance(cfg[group][name], str):
                    cfg[group][name] = getattr(config, name)
        cfg.task.data = ""
        cfg.pop("job_logging_cfg", None)  # Hydra's, with the path of its log
    return cfg
