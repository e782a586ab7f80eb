#!/usr/bin/env bash
# The README's second command: makes the virtual environment if there is none, then runs all checks.
set -euo pipefail
here=$PWD
CDPATH= cd "$(dirname "$(readlink -f "$0")")/.."
source scripts/venv.sh
ruff check .
ruff format --check .
# the models in the tests are tiny: more threads only get into each other's way; processes don't
OMP_NUM_THREADS=1 python -m pytest -n logical --maxprocesses 4 --dist loadfile "$@"
