"""The Hydra configurations, composed and trained with."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from fairseq.dataclass.initialize import add_defaults, hydra_init
from fairseq.distributed import utils as distributed_utils
from fairseq_cli import hydra_train as fairseq_hydra_train
from fairseq_cli import train as fairseq_train
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from helpers import commands
from helpers.processes import Forked
from helpers.scripts import ROOT

CONFIGS = ROOT / "configs"
EXPERIMENTS = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
_stored = functools.cache(hydra_init)  # the same nodes each time


@contextlib.contextmanager
def no_hydra() -> Iterator[None]:
    """fairseq composes too; each composition has to begin with none under way."""
    GlobalHydra.instance().clear()
    yield
    GlobalHydra.instance().clear()


def composed(name: str, *overrides: str) -> DictConfig:
    """What `fairseq-hydra-train --config-dir configs --config-name NAME` trains with."""
    with no_hydra():
        _stored(name)
        with initialize_config_dir(str(CONFIGS), version_base="1.1"):
            cfg = compose(name, [f"common.user_dir={commands.PLUGIN}", *overrides])
    add_defaults(cfg)
    return OmegaConf.create(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))


def train(cfg: DictConfig) -> str:
    OmegaConf.set_struct(cfg, True)
    with commands.logged() as log:
        distributed_utils.call_main(cfg, fairseq_train.main)
    return log.getvalue()


def hydra_train(run_dir: Path, *overrides: str) -> Forked:
    """`fairseq-hydra-train` on the demo's configuration."""
    command = ["fairseq-hydra-train", "--config-dir", str(CONFIGS), "--config-name", "demo"]
    command += [f"common.user_dir={commands.PLUGIN}", "common.cpu=true"]
    command += [f"hydra.run.dir={run_dir}", f"checkpoint.save_dir={run_dir}", *overrides]
    return Forked(Path(f"{run_dir}.log"), _hydra_train, command)


def _hydra_train(command: list[str]) -> None:
    GlobalHydra.instance().clear()
    os.chdir(ROOT)
    with mock.patch("sys.argv", command):
        fairseq_hydra_train.cli_main()
