"""Files that appear whole or not at all."""

import errno
import fcntl
import glob
import hashlib
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fairseq_vat.errors import VATError

logger = logging.getLogger(__name__)

# for `lock_folder`
OTHER_RUN = "another run is at work there: wait for its end, or give another folder"
# the figures of a training, one JSON object for each line of its log
METRICS = "metrics.jsonl"


def metrics_path(log: str | os.PathLike) -> Path:
    """The figures of a training by its log: ``metrics.jsonl`` beside ``train.log``.

    Beside ``other.log`` it is ``other.metrics.jsonl``: the logs of several runs may be in a folder.
    """
    log = Path(log)
    return log.with_name(METRICS if log.stem in ("train", "metrics") else f"{log.stem}.{METRICS}")


@contextmanager
def atomic_path(target: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``target`` that replaces it when the block ends well.

    An interrupted or failed run leaves the old file, or none: never one cut off half way, which a
    resumable script would take for finished. What a link points to is replaced, and a pipe or a
    device is written to itself.

    Raises:
        OSError: the block's, with `target` as its file where it names none; for a folder at once.
    """
    if os.path.isdir(target):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if os.path.exists(target) and not os.path.isfile(target):
        yield Path(target)
        return
    target = Path(os.path.realpath(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        if type(error) is not OSError or error.filename is not None:
            raise
        # numpy's has neither number nor reason
        reason = error.strerror or "is the disk full?"
        raise OSError(error.errno or errno.EIO, reason, str(target)) from error
    except RuntimeError as error:  # of torch's writer, which doesn't say why
        if "PytorchStreamWriter" not in str(error) and "unexpected pos" not in str(error):
            raise
        raise OSError(errno.EIO, "is the disk full?", str(target)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _remove_leftovers(target: Path) -> None:
    """Temporary files of processes that were killed while they wrote."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
        pid = path.name.split(".")[-2]
        if pid.isdigit() and int(pid) != os.getpid() and not _is_alive(int(pid)):
            path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def copy_whole(source: str | os.PathLike, target: str | os.PathLike) -> None:
    """Copy a file, onto the disk, before it replaces what `target` was."""
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())


# open files keep their locks, until the process ends
_LOCKS: dict[str, IO] = {}


def lock_folder(folder: str | os.PathLike, otherwise: str) -> None:
    """Keep other processes' runs out of a folder, for as long as this process is there.

    Args:
        otherwise: what the error says after the folder.

    Raises:
        VATError: another process has it.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    path = str(Path(folder).resolve() / ".lock")
    if path in _LOCKS:
        return
    try:  # somebody else's folder may have a link there, to anything
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise VATError(f"{path}: is a link; remove it") from None
        raise
    file = os.fdopen(number, "r+")  # closing it would unlock
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise VATError(f"{folder}: {otherwise}") from None
    except OSError:  # a file system without locks
        logger.warning(f"{path}: can't be locked; let no other run write there")
    _LOCKS[path] = file


class SaveFolder:
    """A training run's checkpoints, before the run goes on."""

    def __init__(self, folder: str | os.PathLike):
        self._folder = Path(folder)

    def lock(self) -> None:
        """Keep other processes' runs out of the folder, for as long as this process is there."""
        lock_folder(
            self._folder,
            "another training writes there; give another --save-dir, or wait for its end",
        )

    def refuse_links(self, log: str | None) -> None:
        """Raise `VATError` where what a training writes here is a link, whose end others chose.

        Args:
            log: of ``--log-file``; one elsewhere, such as /dev/stdout, may be one.
        """
        paths = [self._folder / "dummy", self._folder / METRICS]
        if log is not None and os.path.abspath(self._folder) == os.path.dirname(
            os.path.abspath(log)
        ):
            paths += [Path(log), metrics_path(log)]
        for path in paths:
            if path.is_symlink() and path.is_file():
                raise VATError(f"{path}: is a link, and a training writes there: remove it")

    def mend(self, name: str) -> None:
        """Put the newest whole checkpoint in the place of one that is cut short, and say so."""
        last = self._folder / name
        if not last.exists() or zipfile.is_zipfile(last):
            return
        others = [path for path in self._folder.glob("checkpoint*.pt") if path != last]
        whole = [path for path in others if zipfile.is_zipfile(path)]
        if not whole:
            raise VATError(
                f"{last} is cut off or damaged, and no whole checkpoint lies beside it: restore it "
                "from a copy, or remove it to start anew"
            )
        newest = max(whole, key=lambda path: path.stat().st_mtime)
        logger.warning(f"{last} is cut off or damaged: going on from {newest.name}")
        copy_whole(newest, last)


def sha256(path: str | os.PathLike) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: str | os.PathLike, value: object) -> None:
    """Write ``value`` as readable JSON, atomically."""
    with atomic_path(path) as temporary:
        text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json_object(path: Path) -> dict[str, Any] | None:
    """What somebody else's JSON file holds, or None where there is no such file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise VATError(f"{path} is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise VATError(f"{path} is not a JSON object")
    return value


def read_json(path: str | os.PathLike) -> object | None:
    """The value in a JSON file, or None where the file is missing or not JSON.

    For notes that a command leaves to itself: an unreadable one only means doing the work again.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
