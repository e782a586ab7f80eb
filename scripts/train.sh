#!/usr/bin/env bash
# Train a VAT of the paper's shape on binarised text, with one process or several.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/train.sh DATA_BIN SAVE_DIR [PROCESSES] [-- FAIRSEQ-TRAIN FLAGS]

PROCESSES, by default one process on a GPU if there is one, else on the CPU:
  --gpus N        N GPUs of this machine (torchrun, nccl)
  --cpus N        N processes on this machine's CPU (torchrun, gloo)
  --nodes M --node-rank R --master HOST:PORT
                  with --gpus N or --cpus N: run on each of M machines, R from 0 to M - 1

This is fairseq-vat train vat_small; PRESET=NAME takes another experiment of configs/. The same
command goes on where a stopped run was.  The training log is SAVE_DIR/train.log.
TEXT
}

[[ ${1:-} == -h || ${1:-} == --help ]] && usage && exit 0
[[ $# -ge 2 ]] || { usage >&2; exit 2; }
. "$(dirname "$(readlink -f "$0")")/venv.sh" any
exec fairseq-vat train "${PRESET:-vat_small}" "$@"
