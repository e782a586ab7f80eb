"""fairseq's commands: what they are given, what they print, how they end."""

from __future__ import annotations

import ast
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from types import ModuleType, TracebackType
from typing import Any

from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.distributed import utils as distributed_utils
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fairseq_vat.compat.workers import is_first_to_tell
from fairseq_vat.errors import VATError, explain, is_debugging, is_lost_worker
from fairseq_vat.text.lines import decode_line, raw_lines


def check_flags_first(check_flags: Callable[[DictConfig, str], None]) -> None:
    """Let no command begin with values that can't be meant.

    fairseq takes most numbers without a look: some end in a traceback after minutes of reading,
    some in a run that does nothing, and one is refused after its results' file was emptied. Each
    command hands its whole configuration to ``call_main`` first; `fairseq-generate` to its own
    ``main``.
    """
    if not hasattr(distributed_utils.call_main, "unchecked"):
        distributed_utils.call_main = _Checked(distributed_utils.call_main, check_flags)
    generate = loaded_command("generate")
    if generate is not None and not hasattr(generate.main, "unchecked"):
        generate.main = _Checked(generate.main, check_flags, "generate")


class _Checked:
    """A function whose first argument is a command's configuration, which is checked before."""

    def __init__(
        self,
        unchecked: Callable[..., Any],
        check_flags: Callable[[DictConfig, str], None],
        command: str | None = None,
    ):
        self.unchecked, self._check, self._command = unchecked, check_flags, command

    def __call__(self, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        # call_main is given the command's main
        command = self._command or _name_of(args[0])
        whole = cfg if isinstance(cfg, DictConfig) else convert_namespace_to_omegaconf(cfg)
        try:
            self._check(whole, command)
            return self.unchecked(whole, *args, **kwargs)
        except Exception as error:
            # fairseq-hydra-train: Hydra would print it among lines of its own
            if not HydraConfig.initialized() or explain(error, error.__traceback__) is None:
                raise
            _print_explained(type(error), error, error.__traceback__)
            sys.exit(1)


def loaded_command(name: str) -> ModuleType | None:
    """The module of one of fairseq's commands, if it is loaded; ``python -m`` has it as a main."""
    main = sys.modules.get("__main__")
    if getattr(getattr(main, "__spec__", None), "name", None) == f"fairseq_cli.{name}":
        return main
    return sys.modules.get(f"fairseq_cli.{name}")


def _name_of(main: Callable[..., Any]) -> str:
    module = sys.modules[main.__module__]
    return (module.__spec__.name if module.__spec__ else main.__module__).rpartition(".")[2]


def read_overrides_as_literals() -> None:
    """Let `fairseq-validate` and `fairseq-eval-lm` read ``--model-overrides`` as the others do.

    They call ``eval`` on it, where generate and interactive read a literal.
    """
    for name in ("validate", "eval_lm"):
        command = loaded_command(name)
        if command is not None:
            command.eval = _literal_overrides


def _literal_overrides(text: str) -> dict[str, Any]:
    try:
        overrides = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        overrides = None
    if not isinstance(overrides, dict):
        raise VATError(f"--model-overrides must be a dictionary of plain values, not {text!r}")
    return overrides


def install_exception_hook() -> None:
    """Print a mistake in the input as one line; everything else as before.

    fairseq's commands let exceptions through to the interpreter, which would print thirty lines
    of traceback around the one that tells the user what to do. The exit status stays 1. With
    FAIRSEQ_VAT_DEBUG=1 the traceback is printed too. A Python program that uses the plugin as a
    library keeps its own hook. What all workers of a ``torchrun`` fail at is told by one of them.
    """
    in_command = any(name.partition(".")[0] == "fairseq_cli" for name in list(sys.modules))
    if in_command and sys.excepthook is not _print_explained:
        global _previous_hook
        _previous_hook = sys.excepthook
        sys.excepthook = _print_explained


_previous_hook = sys.__excepthook__


def _print_explained(
    kind: type[BaseException], error: BaseException, tb: TracebackType | None
) -> None:
    if isinstance(error, BrokenPipeError):  # whoever read the output has gone
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    line = "interrupted" if isinstance(error, KeyboardInterrupt) else explain(error, tb)
    is_first = is_first_to_tell(line or repr(error), of_another=is_lost_worker(error))
    if line is None or is_debugging():
        _previous_hook(kind, error, tb)
    if line is not None and is_first:
        told = line if isinstance(error, KeyboardInterrupt) else f"error: {line}"
        print(f"fairseq_vat: {told}", file=sys.stderr)


def replace_interactive_reader() -> None:
    """Let `fairseq-interactive` read on after a line that isn't UTF-8.

    Its reader opens the input with strict decoding, out of reach of tasks and flags, and ends
    the process at the first wrong byte. The replacement reads bytes and replaces what is wrong.
    Nothing is changed in other commands.
    """
    interactive = loaded_command("interactive")
    if interactive is not None:
        interactive.buffered_read = _buffered_read


def _buffered_read(path: str, buffer_size: int) -> Iterator[list[str]]:
    """Lines of a file, or of standard input for ``-``, in lists of `buffer_size`."""
    buffer: list[str] = []
    if path == "-" and sys.stdin is None:
        raise VATError("standard input is closed: give --input FILE")
    with sys.stdin.buffer if path == "-" else open(path, "rb") as stream:
        for line in raw_lines(stream, path):
            buffer.append(decode_line(line).strip())
            if len(buffer) >= buffer_size:
                yield buffer
                buffer = []
    if buffer:
        yield buffer
