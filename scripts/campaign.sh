#!/usr/bin/env bash
# Every input of tests/campaign/ through the commands, some again as processes of their own, and
# trainings that are killed; prints counts, and every input that was taken wrongly.
#
# Usage: scripts/campaign.sh [OPTION...]
#
#   --only WORD   inputs whose group or name has this in them
#   --fresh N     so many again, each as a new process (20)
#   --work DIR    keep what is made, and use it again
#   --verbose     print what each was told
#   --kills N     trainings killed (50); 0: none
set -euo pipefail

kills=50 flags=(--fresh 20)
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) sed -n '2,/^set /{s/^# \{0,1\}//p}' "$0"; exit 0 ;;
        --kills) kills=${2:?--kills needs a value}; shift
            [[ $kills =~ ^[0-9]+$ ]] || { echo "$0: error: --kills $kills: must be a whole number" >&2; exit 2; } ;;
        *) flags+=("$1") ;;
    esac
    shift
done
root=$(CDPATH= cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
. "$root/scripts/venv.sh" any

failed=0
OMP_NUM_THREADS=1 PYTHONPATH=$root/tests:$root python -m campaign.run "${flags[@]}" || failed=1
if [ "$kills" -gt 0 ] && [ -e "$root/scripts/kill_campaign.py" ]; then
    python "$root/scripts/kill_campaign.py" --kills "$kills" || failed=1
fi
exit "$failed"
