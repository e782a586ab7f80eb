"""``torchrun`` for `fairseq_vat.recipes.worker`, brief where a worker has failed.

torch's own adds thirty lines, a traceback among them, to the one in which the worker said why.
"""

from __future__ import annotations

import logging
import signal
import sys
import tempfile
from collections.abc import Sequence

from torch.distributed import DistError, run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


def main(args: Sequence[str] | None = None) -> int:
    """Launch, with ``torchrun``'s flags; the exit status.

    A worker that ended by itself has said why. Of one that was killed it is told here.
    """
    # its "failed (exitcode: 1) local_rank: 0"
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    args = sys.argv[1:] if args is None else args
    try:
        # torch.distributed.run leaves a folder in /tmp
        with tempfile.TemporaryDirectory(prefix="fairseq_vat.") as folder:
            run.main(["--log-dir", folder, *args])
    except SignalException as stopped:
        return 128 + stopped.sigval
    except DistError as error:  # such as an address in use, of another training with this --master
        print(f"fairseq_vat: error: --master: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode >= 0:
            return failure.exitcode
        name = signal.Signals(-failure.exitcode).name
        print(
            f"fairseq_vat: error: worker {rank} was ended by {name}; the same command goes on from "
            "the last checkpoint",
            file=sys.stderr,
        )
        return 128 - failure.exitcode
    return 0


if __name__ == "__main__":
    sys.exit(main())
