"""Everything the plugin changes outside its own names, in one place, each with its reason."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any

from fairseq_vat.compat import arguments, checkpoints, commands, loaders, logs, training


def install(
    check_checkpoint: Callable[[str, Any], None],
    check_flags: Callable[[Any, str], None],
    check_names: Callable[[Namespace], None],
) -> None:
    """Apply all of it; a second call changes nothing, but for commands imported since.

    Args:
        check_checkpoint: of a checkpoint's path and content; raises `VATError` for one that
            fairseq must not see.
        check_flags: of a command's configuration and its name; raises `VATError` for a value that
            can't be meant.
        check_names: of a command line that isn't read to its end; raises `VATError` where task,
            architecture or optimizer is missing.
    """
    arguments.tell_mistakes_in_one_line(check_names)
    checkpoints.allow_configuration_types()
    checkpoints.check_checkpoints(check_checkpoint)
    checkpoints.resume_safely()
    training.end_where_nothing_is_finite()
    training.save_what_counts()
    training.unscale_once()
    training.save_whole_or_say_why()
    commands.check_flags_first(check_flags)
    logs.record_metrics()
    logs.tell_epoch_before_saving()
    logs.format_figures()
    logs.tell_of_a_lost_log()
    logs.silence_known_warnings()
    loaders.end_loaders()
    commands.install_exception_hook()
    commands.replace_interactive_reader()
    commands.read_overrides_as_literals()
