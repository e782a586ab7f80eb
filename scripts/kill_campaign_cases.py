"""What scripts/kill_campaign.py stops and starts again, and how it judges the end."""

from __future__ import annotations

import json
import random
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
SPLITS = {"train": 400, "valid": 40, "test": 20}
SAVE_INTERVAL, UPDATES = 5, 100
# some 40 updates an epoch; dropout and latent noise are on, and the KL's weight moves
_TRAINING = (
    "--task variational_lm --arch vat_transformer_tiny --criterion token_kl_cross_entropy "
    "--dropout 0.2 --kl-weight 0.5 --kl-annealing logistic --kl-annealing-updates 100 "
    "--optimizer adam --lr 0.005 --lr-scheduler inverse_sqrt --warmup-updates 10 --clip-norm 1 "
    f"--max-tokens 200 --seed 3 --max-update {UPDATES} --save-interval-updates {SAVE_INTERVAL} "
    "--keep-interval-updates 2 --no-epoch-checkpoints --validate-interval-updates 20 "
    "--log-format simple --log-interval 1 --cpu --num-workers 0"
).split()
_BFLOAT16 = ["--precision", "bfloat16", "--emulate-bfloat16"]
_TIMES = {"wps", "ups", "wall", "train_wall", "gb_free"}


def make_texts(folder: Path) -> None:
    """``SPLIT.txt`` of random sentences of forty words."""
    folder.mkdir()
    for seed, (split, count) in enumerate(SPLITS.items()):
        rng = random.Random(seed)
        words = [f"w{number}" for number in range(40)]
        lines = [" ".join(rng.choices(words, k=rng.randint(2, 9))) for _ in range(count)]
        (folder / f"{split}.txt").write_text("".join(f"{line}\n" for line in lines))


def prepare_command(texts: Path, out: Path) -> list[str]:
    """`fairseq-vat prepare`."""
    flags = [word for split in SPLITS for word in (f"--{split}", str(texts / f"{split}.txt"))]
    flags += ["--output", str(out), "--vocab-size", "40", "--workers", "2"]
    return [sys.executable, "-m", "fairseq_vat.cli", "prepare", *flags]


def _trainings(texts: Path, out: Path, launcher: list[str], flags: list[str]) -> list[str]:
    command = [sys.executable, "-m", *launcher, str(texts / "prepared/data-bin")]
    command += ["--user-dir", str(ROOT / "fairseq_vat"), "--save-dir", str(out)]
    return [*command, *_TRAINING, *flags]


def _one(texts: Path, out: Path) -> list[str]:
    return _trainings(texts, out, ["fairseq_cli.train"], [])


def _two(texts: Path, out: Path) -> list[str]:
    torchrun = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return _trainings(texts, out, [*torchrun, "-m", "fairseq_vat.recipes.worker"], [])


def _bfloat16(texts: Path, out: Path) -> list[str]:
    return _trainings(texts, out, ["fairseq_cli.train"], _BFLOAT16)


def _train(texts: Path, out: Path) -> list[str]:
    command = [sys.executable, "-m", "fairseq_vat.cli", "train", "demo"]
    flags = [*_TRAINING, "--precision", "float32"]
    return [*command, str(texts / "prepared/data-bin"), str(out), *flags]


def _sweep(texts: Path, out: Path) -> list[str]:
    files = [str(texts / f"{split}.txt") for split in SPLITS]
    flags = "--updates 20 --vocabulary 40 --prior-std 0.4 --noises unit --curves 0.4".split()
    flags += ["--setting", "sum=--kl-reduction sum", "--", "--arch", "vat_transformer_tiny"]
    flags += ["--save-interval-updates", "5", "--precision", "float32"]
    return [str(ROOT / "scripts/sweep_prior_std.sh"), str(out), *files, *flags]


def _reproduce(texts: Path, out: Path) -> list[str]:
    flags = "--epochs 4 --only gru_decoder_lm --tables 2 --vocabulary words --cpu".split()
    script = str(ROOT / "scripts/reproduce_vae_transformer.sh")
    return [script, str(out), f"toy={texts}", *flags, "--precision", "float32"]


@dataclass(frozen=True)
class Case:
    """A command that goes on where it was stopped.

    Attributes:
        command: of the folder of texts and of a folder for what comes of it.
        writing: seconds after a file's beginning within which a kill is aimed at it.
        trains: its folder is that of a training, which saves every `SAVE_INTERVAL` updates.
        cut: ``checkpoint_last.pt`` is cut short after kills, as a power failure may leave it.
        spares_workers: half of the kills are of the launcher alone, whose workers must end too.
        weight: its share of the kills; what takes long has fewer.
    """

    command: Callable[[Path, Path], list[str]]
    writing: float = 0.03
    trains: bool = True
    cut: bool = False
    spares_workers: bool = False
    weight: int = 2


CASES = {
    "one": Case(_one),
    "two": Case(_two, spares_workers=True),
    "bfloat16": Case(_bfloat16),
    "train": Case(_train),
    "cut": Case(_one, cut=True),
    "prepare": Case(prepare_command, writing=0.3, trains=False, weight=1),
    "sweep": Case(_sweep, writing=2.0, trains=False, weight=1),
    "reproduce": Case(_reproduce, writing=1.0, trains=False, weight=1),
}


def being_written(out: Path) -> dict[Path, int]:
    """The files and folders that aren't whole yet by their names, and when they were changed."""
    found = {}
    for path in _all(out):
        if _is_temporary(path):
            try:
                found[path] = path.stat().st_mtime_ns
            except FileNotFoundError:  # whole by now
                continue
    return found


def _all(out: Path) -> Iterator[Path]:
    try:
        yield from out.rglob("*")
    except FileNotFoundError:  # removed meanwhile
        return


def _is_temporary(path: Path) -> bool:
    return path.name.endswith((".tmp", ".partial"))


def half_made(out: Path, reference: Path) -> list[str]:
    """What a kill left half made under the name of something whole.

    Args:
        out: of the run that was killed.
        reference: of the run that wasn't.
    """
    found = []
    for path in out.rglob("*"):
        if any(_is_temporary(part) for part in (path, *path.parents)):
            continue
        name = path.relative_to(out)
        if path.suffix == ".pt" and not zipfile.is_zipfile(path):
            found.append(f"{name} is cut short")
        if path.suffix == ".json":
            try:
                json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                found.append(f"{name} is cut short")
        if path.name == "data-bin":
            expected = {file.name for file in (reference / name).iterdir()}
            if missing := expected - {file.name for file in path.iterdir()}:
                found.append(f"{name} has no {', '.join(sorted(missing))}")
    return found


def differences(out: Path, reference: Path) -> list[str]:
    """Files that one of two folders lacks, or that differ by more than places, times and commits.

    Of checkpoints the model, the optimizer, its history and the place in the data are compared to
    the last bit; of a training its figures, of all else the bytes.
    """
    one, other = ({p.relative_to(f) for p in _compared(f)} for f in (out, reference))
    found = [f"{name}: missing" for name in sorted(other - one)]
    found += [f"{name}: left over" for name in sorted(one - other)]
    for name in sorted(one & other):
        if _content(out / name, out) != _content(reference / name, reference):
            found.append(f"{name}: differs")
    return found


def _compared(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and not p.name.endswith((".log", ".lock"))]


def _content(path: Path, out: Path) -> Any:
    if path.suffix == ".pt":
        return _bits(training_state(path))
    if path.name.endswith(".jsonl"):
        records = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        return [{k: x for k, x in record.items() if k not in _TIMES} for record in records]
    text = path.read_bytes().replace(str(out).encode(), b"OUT")
    return re.sub(rb'"commit": "[^"]*"', b"", text)  # of the code, which may go on meanwhile


def training_state(checkpoint: Path) -> dict[str, Any]:
    """What a run that goes on from a checkpoint depends on; no times."""
    state = torch.load(checkpoint, weights_only=True)
    keys = ("model", "last_optimizer_state", "optimizer_history", "extra_state", "task_state")
    kept = {key: state.get(key) for key in keys}
    # fairseq adds an entry with every start
    kept["optimizer_history"] = kept["optimizer_history"][-1]
    for key in ("metrics", "previous_training_time"):
        kept["extra_state"].pop(key, None)
    return kept


def _bits(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _bits(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_bits(x) for x in value]
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.detach().cpu().numpy().tobytes()
    return value


def is_cut(out: Path) -> bool:
    """Whether ``checkpoint_last.pt`` is there and isn't whole."""
    last = out / "checkpoint_last.pt"
    return last.exists() and not zipfile.is_zipfile(last)


def updates_of(checkpoint: Path) -> int:
    """Updates done; 0 where there is no checkpoint."""
    if not checkpoint.exists():
        return 0
    return torch.load(checkpoint, weights_only=True)["optimizer_history"][-1]["num_updates"]


def updates_lost(out: Path) -> int:
    """Updates that a killed training logged and makes again."""
    logged = re.findall(r'^{"update": (\d+)', _text(out / "metrics.jsonl"), re.MULTILINE)
    return int(logged[-1]) - updates_of(out / "checkpoint_last.pt") if logged else 0


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def cut_short(out: Path, rng: random.Random) -> int | None:
    """Cut ``checkpoint_last.pt`` anywhere; its updates, or None where nothing could replace it."""
    last = out / "checkpoint_last.pt"
    others = [path for path in out.glob("checkpoint_*.pt") if path != last]
    if not last.exists() or not any(map(zipfile.is_zipfile, others)):
        return None
    updates = updates_of(last)
    with open(last, "rb+") as file:
        file.truncate(rng.randrange(last.stat().st_size))
    return updates


def resumed_after_cut(log: Path) -> int | None:
    """The updates of the checkpoint that a restart said it falls back on; None if it didn't say."""
    told = re.search(
        r"checkpoint_last\.pt is cut off or damaged: going on from (\S+\.pt)", _text(log)
    )
    loaded = re.search(r"Loaded checkpoint .* @ (\d+) updates\)", _text(log))
    return int(loaded[1]) if told and loaded else None
