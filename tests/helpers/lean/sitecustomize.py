"""Python imports this at its start where its folder is in PYTHONPATH.

The processes that tests start are spared scikit-learn, as the commands are that spare it
themselves; WHOLE_FAIRSEQ leaves all as it is.
"""

import os
import runpy
from pathlib import Path

_STARTUP = Path(__file__).resolve().parents[3] / "fairseq_vat/cli/startup.py"

if not os.environ.get("WHOLE_FAIRSEQ"):
    # by its path: a package that is imported before fairseq is no --user-dir any more
    runpy.run_path(str(_STARTUP))["leave_out_scikit_learn"]()
