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

It trains in bfloat16 where the machine has instructions for it; else on a GPU in fp16, on a CPU in
float32. 
Flags after -- are fairseq-train's and win over the recipe's, for example
  scripts/train.sh runs/mono/data-bin runs/mono/vat --gpus 4 -- --max-update 100000
The same command goes on where a stopped run was.  The training log is SAVE_DIR/train.log.
TEXT
}

die() {
    echo "scripts/train.sh: error: $1" >&2
    exit 1
}

[[ ${1:-} == -h || ${1:-} == --help ]] && usage && exit 0
[[ $# -ge 2 ]] || { usage >&2; exit 2; }
data=$1 save=$2
shift 2
kind=one count=1 nodes=1 node_rank=0 master=
while [[ $# -gt 0 && $1 != -- ]]; do
    [[ $# -ge 2 ]] || die "$1 needs a value"
    case $1 in
        --gpus | --cpus)
            [[ $kind == one ]] || die "give --gpus or --cpus, not both"
            kind=${1#--} count=$2
            ;;
        --nodes) nodes=$2 ;;
        --node-rank) node_rank=$2 ;;
        --master) master=$2 ;;
        *) die "unknown option $1 (fairseq-train's flags go after --)" ;;
    esac
    shift 2
done
[[ ${1:-} == -- ]] && shift
for number in "$count" "$nodes"; do
    [[ $number =~ ^[1-9][0-9]*$ ]] || die "'$number' is not a number of processes or machines"
done
[[ $nodes == 1 || ($kind != one && -n $master) ]] ||
    die "--nodes needs --gpus or --cpus, --node-rank and --master HOST:PORT"
[[ $node_rank =~ ^[0-9]+$ && $((10#$node_rank)) -lt $nodes ]] ||
    die "--node-rank must be from 0 to $((nodes - 1)), not '$node_rank'"
[[ -z $master || $master =~ ^[^:]+:[0-9]+$ ]] || die "--master must be HOST:PORT, not '$master'"
[[ -f $data/dict.txt || $data == *:* ]] ||
    die "$data has no dict.txt: make it with scripts/prepare_corpus.sh"

plugin=$(cd "$(dirname "$0")/../fairseq_vat" && pwd)
. "$(dirname "$0")/venv.sh" any
. "$(dirname "$0")/precision.sh"
command=(
    fairseq-train "$data" --user-dir "$plugin" --save-dir "$save"
    --task variational_lm --arch vat_transformer --criterion token_kl_cross_entropy
    --prior-std 0.4 --kl-weight 0.1 --kl-annealing logistic --kl-annealing-updates 4000
    --optimizer adam --adam-betas '(0.9, 0.98)' --clip-norm 1.0
    --lr 2e-3 --lr-scheduler inverse_sqrt --warmup-updates 1000
    --batch-size 64 --max-tokens 2500 --required-batch-size-multiple 1 --truncate
    --max-source-positions 130 --max-target-positions 130
    --validate-interval-updates 250 --save-interval-updates 500 --keep-interval-updates 1
    --no-epoch-checkpoints --max-epoch 3 --report-accuracy --seed 1
    --log-format simple --log-interval 50 --log-file "$save/train.log"
)
has_gpu=$(python -c 'import torch; print(int(torch.cuda.is_available()))')
if [[ $kind == gpus ]]; then
    [[ $has_gpu == 1 ]] || die "--gpus: torch sees no GPU here; use --cpus"
fi
if [[ $kind == cpus || $has_gpu == 0 || " $* " == *" --cpu "* ]]; then
    CUDA_VISIBLE_DEVICES='' choose_precision float32 "$@"
    command+=(--cpu)
else
    choose_precision fp16 "$@"
fi
command+=("${precision_flags[@]}" "$@")
mkdir -p "$save"

if [[ $kind == one ]]; then
    printf '+ %q' "${command[0]}"; printf ' %q' "${command[@]:1}"; echo
    exec "${command[@]}"
fi

# fairseq must be told its place in the world: left to itself it would start independent runs on
# CPUs, and with an init method alone it would exit without training.
[[ $kind == gpus ]] && device='$LOCAL_RANK' backend=nccl || { device=0 backend=gloo; }
place='exec "$@" --distributed-world-size "$WORLD_SIZE" --distributed-rank "$RANK"'
place+=" --distributed-no-spawn --device-id \"$device\" --distributed-init-method env://"
place+=" --distributed-backend $backend --ddp-backend legacy_ddp"
launcher=(torchrun --nproc_per_node "$count" --nnodes "$nodes" --node_rank "$node_rank")
if [[ -n $master ]]; then
    launcher+=(--master_addr "${master%:*}" --master_port "${master##*:}")
else
    launcher+=(--standalone)
fi
[[ $kind == cpus ]] && export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
launcher+=(--no-python bash -c "$place" train)
printf '+ %q' "${launcher[0]}"; printf ' %q' "${launcher[@]:1}" "${command[@]}"; echo
exec "${launcher[@]}" "${command[@]}"
