"""The experiments of ``configs/`` as flags of `fairseq-train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fairseq_vat.errors import VATError

_PACKAGE = Path(__file__).parent.parent
# in an installed package, and in a source tree
_FOLDERS = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
# groups whose choice fairseq-train names with a flag of the group's own
_CHOICES = ("task", "criterion", "optimizer", "lr_scheduler")
# what depends on the machine and on where things go, which `training_command` decides
_LEFT_OUT = ("save_dir", "log_format", "fp16")


def preset_folder() -> Path:
    """Where the experiments' files are, for ``fairseq-hydra-train --config-dir``.

    Raises:
        VATError: the installation has none.
    """
    for folder in _FOLDERS:
        if folder.is_dir():
            return folder
    raise VATError(f"{_FOLDERS[0]}: the experiments' files are missing: install fairseq_vat anew")


def preset_names() -> list[str]:
    """Names of the experiments, such as ``demo`` and ``vae_transformer_ptb``."""
    return sorted(path.stem for path in preset_folder().glob("*.yaml"))


def preset_flags(name: str) -> list[str]:
    """Flags for `fairseq-train` that are the experiment ``configs/NAME.yaml``, data left out.

    The same file is what `fairseq-hydra-train` trains with.

    Raises:
        VATError: there is no such experiment.
    """
    path = preset_folder() / f"{name}.yaml"
    if name not in preset_names():
        raise VATError(
            f"PRESET {name}: must be one of {', '.join(preset_names())}; fairseq-train's flags go "
            "behind PRESET DATA SAVE_DIR"
        )
    cfg = OmegaConf.load(path)
    assert isinstance(cfg, DictConfig)
    (arch,) = (entry["model"] for entry in cfg.pop("defaults") if not isinstance(entry, str))
    cfg.pop("hydra", None)
    flags = ["--arch", arch]
    for group, values in cfg.items():
        for key, value in OmegaConf.to_container(values).items():
            if key == "_name":
                assert group in _CHOICES
                flags += [f"--{str(group).replace('_', '-')}", value]
            elif value != "???" and key not in _LEFT_OUT:
                flags += _flag(key, value)
    return flags


def _flag(key: str, value: Any) -> list[str]:
    flag = f"--{key.replace('_', '-')}"
    if value is True:
        return [flag]
    if isinstance(value, list):
        value = ",".join(map(str, value))
    return [flag, str(value)]
