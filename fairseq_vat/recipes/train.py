"""`fairseq-train` with an experiment's flags, in one process or several."""

import argparse
import itertools
import math
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fairseq_vat.errors import VATError

PLUGIN = Path(__file__).parent.parent
_PRECISIONS = {
    *("--precision", "--fp16", "--bf16", "--amp", "--memory-efficient-fp16"),
    "--memory-efficient-bf16",
}

# in an installed package, and in a source tree
_FOLDERS = (PLUGIN / "configs", PLUGIN.parent / "configs")
# groups whose choice fairseq-train names with a flag of the group's own
_CHOICES = ("task", "criterion", "optimizer", "lr_scheduler")
# glibc keeps memory that was freed, and asks for large pages: faster as measured, not as derived
# (docs/performance.md); other C libraries don't read this
_ALLOCATION = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824:"
    "glibc.malloc.trim_threshold=4294967296"
}
# what depends on the machine and on where things go, which `training_command` decides
_LEFT_OUT = ("save_dir", "log_format", "fp16")


def preset_folder() -> Path:
    """Where the experiments' files are, for ``fairseq-hydra-train --config-dir``."""
    for folder in _FOLDERS:
        if folder.is_dir():
            return folder
    raise VATError(f"{_FOLDERS[0]}: the experiments' files are missing: install fairseq_vat anew")


def preset_names() -> list[str]:
    """Names of the experiments, such as ``demo`` and ``vae_transformer_ptb``."""
    return sorted(path.stem for path in preset_folder().glob("*.yaml"))


def preset_flags(name: str, flags: Sequence[str] = ()) -> list[str]:
    """Flags for `fairseq-train` that are the experiment ``configs/NAME.yaml``, data left out.

    The same file is what `fairseq-hydra-train` trains with.

    Args:
        flags: to follow them. Where they choose another optimizer, scheduler or criterion, what the
            experiment sets of its own and the other doesn't have is left out.
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
    given, experiment = _values(flags), ["--arch", arch]
    for group, values in cfg.items():
        values = OmegaConf.to_container(values)
        flag = f"--{str(group).replace('_', '-')}"
        chosen = given.get(flag, values.get("_name"))
        known = None if chosen == values.get("_name") else _fields(str(group), chosen)
        for key, value in values.items():
            if key == "_name":
                assert group in _CHOICES
                experiment += [flag, value]
            elif value != "???" and key not in _LEFT_OUT and (known is None or key in known):
                experiment += _flag(key, value)
    return experiment


def _values(flags: Sequence[str]) -> dict[str, str]:
    """What follows each word of a command line: of flags, given twice, the later value."""
    words = [part for word in flags for part in word.split("=", 1)]
    return dict(itertools.pairwise(words))


def _fields(group: str, name: str) -> set[str] | None:
    """What one of fairseq's optimizers, schedulers or criteria has; None where it is unknown."""
    from fairseq.registry import REGISTRIES

    import fairseq_vat.plugin  # noqa: F401  -- fills the registries

    kind = REGISTRIES.get(group, {"registry": {}})["registry"].get(name)  # tasks have none
    if kind is None:
        return None
    parser = argparse.ArgumentParser(add_help=False)
    kind.add_args(parser)
    return set(vars(parser.parse_known_args([])[0]))


def _flag(key: str, value: Any) -> list[str]:
    flag = f"--{key.replace('_', '-')}"
    if value is True:
        return [flag]
    if isinstance(value, list):
        value = ",".join(map(str, value))
    return [flag, str(value)]


@dataclass(frozen=True)
class Processes:
    """Where a training runs."""

    # ``gpu``, ``cpu``, or None: one process on a GPU if there is one, else on the CPU
    device: str | None = None
    count: int = 1  # processes on this machine; a GPU each, with ``gpu``
    nodes: int = 1
    node_rank: int = 0
    master: str | None = None  # ``HOST:PORT`` of the first machine, where there are several

    def __post_init__(self) -> None:
        if self.nodes > 1 and (self.device is None or self.master is None):
            raise VATError("--nodes needs --gpus or --cpus, --node-rank and --master HOST:PORT")
        if self.master is not None and self.device is None:
            raise VATError(f"--master {self.master} needs --gpus or --cpus")
        if not 0 <= self.node_rank < self.nodes:
            raise VATError(
                f"--node-rank {self.node_rank}: must be from 0 to --nodes less 1, {self.nodes - 1}"
            )
        host, _, port = (self.master or "host:1").rpartition(":")
        if not (host and port.isdecimal() and 0 < int(port) < 2**16):
            raise VATError(f"--master {self.master}: must be HOST:PORT, the port up to 65535")

    def launcher(self) -> list[str]:
        """What starts `fairseq-train`, its flags to follow."""
        if self.device is None:
            return [sys.executable, "-m", "fairseq_cli.train"]
        launcher = [sys.executable, "-m", "fairseq_vat.recipes.launcher", "--nproc_per_node"]
        launcher += [str(self.count), "--nnodes", str(self.nodes)]
        launcher += ["--node_rank", str(self.node_rank)]
        if self.master is None:
            launcher += ["--standalone"]
        else:
            host, _, port = self.master.rpartition(":")
            launcher += ["--master_addr", host, "--master_port", port]
        return [*launcher, "-m", "fairseq_vat.recipes.worker"]


def training_command(
    data: str,
    save_dir: str,
    preset: str,
    processes: Processes | None = None,
    flags: Sequence[str] = (),
) -> list[str]:
    """The command of a training; the same one goes on where a stopped run was.

    It trains in bfloat16 where the machine has instructions for it; else on a GPU in fp16, on a CPU
    in single precision.

    Args:
        save_dir: where checkpoints go, and the log, ``train.log``.
        flags: `fairseq-train`'s own, which win over the experiment's.

    Raises:
        VATError: for data that isn't there, an unknown experiment, a GPU that isn't there.
    """
    import torch

    processes = processes or Processes()
    experiment = preset_flags(preset, flags)
    first, colon, _ = data.partition(":")
    if (Path(first) / "data-bin" / "dict.txt").is_file():
        raise VATError(f"{first} is a folder of fairseq-vat prepare: give {first}/data-bin")
    if not (Path(first) / "dict.txt").is_file():
        several = f" (a colon separates several, and {data} has one)" if colon else ""
        raise VATError(f"{first} has no dict.txt{several}: make it with fairseq-vat prepare")
    has_gpu = torch.cuda.is_available() and "--cpu" not in flags
    if processes.device == "gpu" and not has_gpu:
        raise VATError("--gpus: torch sees no GPU here; use --cpus")
    if processes.device == "gpu" and processes.count > torch.cuda.device_count():
        there = torch.cuda.device_count()
        raise VATError(f"--gpus {processes.count}: torch sees {there} here")
    on_cpu = processes.device == "cpu" or not has_gpu
    command = [*processes.launcher(), data, "--user-dir", str(PLUGIN)]
    if processes.device is None:  # fairseq's own default is all GPUs, with other batches
        command += ["--distributed-world-size", "1"]
    command += [*experiment, "--save-dir", save_dir]
    command += ["--log-file", str(Path(save_dir) / "train.log")]
    command += ["--log-format", "tqdm" if sys.stderr.isatty() else "simple"]
    command += ["--cpu"] if on_cpu and "--cpu" not in flags else []
    if _PRECISIONS.isdisjoint(flag.partition("=")[0] for flag in flags):
        command += _precision_flags(on_cpu)
    return [*command, *flags]


def _precision_flags(on_cpu: bool) -> list[str]:
    from fairseq_vat.hardware import preferred_precision

    if preferred_precision(on_cpu) == "bfloat16":
        return ["--precision", "bfloat16"]
    return [] if on_cpu else ["--fp16"]


def unfinished_annealing(command: Sequence[str], save_dir: str) -> str | None:
    """A line about a training that ended before its KL annealing did; None for any other.

    Args:
        command: `training_command`'s.
        save_dir: where its log is.
    """
    from fairseq_vat.evaluation.training_log import read_training_log

    given = _values(command)
    flag = "--kl-annealing-updates"
    constant = given.get("--kl-annealing") == "constant"
    wanted = 0 if constant else int(given.get(flag, 0))
    try:
        last = [record for record in read_training_log(save_dir) if record.kind == "train"][-1]
    except (VATError, OSError, IndexError):
        return None
    if last.num_updates >= wanted or "kl_nats" not in last.stats:
        return None
    epochs = math.ceil(wanted * last.epoch / last.num_updates)
    return (
        f"the training ended after {last.num_updates:,} updates, within the annealing of its KL, "
        f"which takes {wanted:,} ({flag}): --max-epoch {epochs}, or --max-update {wanted} where "
        "that ended it, goes on to its end"
    )


def training_environment() -> dict[str, str]:
    """This process's, with what makes a training on a CPU faster where it isn't set.

    No module is looked for in the working directory.
    """
    return _ALLOCATION | {"PYTHONSAFEPATH": "1"} | dict(os.environ)


def run_command(command: Sequence[str], save_dir: str, processes: Processes | None = None) -> int:
    """Run a training to its end; its exit status. What stops this process stops the training."""
    os.makedirs(save_dir, exist_ok=True)  # for the log, which is opened before anything is saved
    environment = training_environment()
    if processes is not None and processes.device == "cpu":
        environment.setdefault("OMP_NUM_THREADS", "1")
    with subprocess.Popen(command, env=environment) as training:

        def pass_on(number: int, _: object) -> None:
            training.send_signal(number)

        handlers = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM,)}
        try:
            while True:
                try:
                    status = training.wait()
                    break
                except KeyboardInterrupt:  # the terminal sends it to the training too
                    continue
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return status if status >= 0 else 128 - status
