#!/usr/bin/env bash
# From raw text to binarised data: clean, train sentencepiece, encode, fairseq-preprocess.
#
# Usage: scripts/prepare_corpus.sh OUT_DIR VOCAB_SIZE TRAIN VALID TEST
#
#   OUT_DIR              is made; the data for fairseq-train will be OUT_DIR/data-bin
#   VOCAB_SIZE           length of fairseq's dictionary, e.g. 32768; - for one that fits the text,
#                        and with GPT2_DIR or SENTENCEPIECE_MODEL, which have their own
#   TRAIN VALID TEST     text, a sentence a line; plain, .gz or .xz
#
#   MAX_PIECES=N         (environment) drop sentences of more than N pieces
#   CHARACTER_COVERAGE=S share of the characters that get a piece (0.9995; 0.9999 keeps rarer
#                        accented letters)
#   SENTENCEPIECE_MODEL=M    use this model (VOCAB_SIZE must be that of its dictionary)
#   GPT2_DIR=DIR         use the vocabulary of this GPT-2 directory; OUT_DIR/vocab.json and merges.txt
#                        are for fairseq's --bpe gpt2 --gpt2-encoder-json ... --gpt2-vocab-bpe ...
#   WORKERS=N            processes of fairseq-preprocess; all cores by default
#
# The word <unk> in TRAIN, as PTB and WikiText-2 have it, becomes a piece of its own (not with GPT2_DIR).
# What is done already, from the same text, is not done again: run it once more after an
# interruption.  This is fairseq-vat prepare.
set -euo pipefail

if [ $# -ne 5 ]; then
    echo "usage: $0 OUT_DIR VOCAB_SIZE TRAIN VALID TEST" >&2
    exit 2
fi
here=$PWD
absolute() { case $1 in /*) echo "$1" ;; *) echo "$here/$1" ;; esac; }
out=$(absolute "$1")
vocab_size=$2
train=$(absolute "$3")
valid=$(absolute "$4")
test=$(absolute "$5")
for file in "$train" "$valid" "$test"; do
    if [ ! -r "$file" ]; then
        echo "$0: error: $file can't be read" >&2
        exit 1
    fi
done

CDPATH= cd "$(dirname "$(readlink -f "$0")")/.."
. scripts/venv.sh any

prepare=(fairseq-vat prepare --train "$train" --valid "$valid" --test "$test" --output "$out")
[ "$vocab_size" = - ] || prepare+=(--vocab-size "$vocab_size")
[ -z "${MAX_PIECES:-}" ] || prepare+=(--max-pieces "$MAX_PIECES")
[ -z "${CHARACTER_COVERAGE:-}" ] || prepare+=(--character-coverage "$CHARACTER_COVERAGE")
[ -z "${SENTENCEPIECE_MODEL:-}" ] ||
    prepare+=(--sentencepiece-model "$(absolute "$SENTENCEPIECE_MODEL")")
[ -z "${GPT2_DIR:-}" ] || prepare+=(--gpt2 "$(absolute "$GPT2_DIR")")
[ -z "${WORKERS:-}" ] || prepare+=(--workers "$WORKERS")
exec "${prepare[@]}"
