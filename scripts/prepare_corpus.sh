#!/usr/bin/env bash
# From raw text to binarised data: clean, train sentencepiece, encode, fairseq-preprocess.
#
# Usage: scripts/prepare_corpus.sh OUT_DIR VOCAB_SIZE TRAIN VALID TEST
#
#   OUT_DIR              is made; the data for fairseq-train will be OUT_DIR/data-bin
#   VOCAB_SIZE           length of fairseq's dictionary, e.g. 32768; - with GPT2_DIR or
#                        SENTENCEPIECE_MODEL, which have their own
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
# interruption.
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

cd "$(dirname "$0")/.."
. scripts/venv.sh any

run() {
    printf '+' >&2
    printf ' %q' "$@" >&2
    printf '\n' >&2
    "$@"
}

tokenize=(fairseq-vat tokenize --train "$train" --valid "$valid" --test "$test" --out "$out")
[ "$vocab_size" = - ] || tokenize+=(--vocab-size "$vocab_size")
[ -z "${MAX_PIECES:-}" ] || tokenize+=(--max-pieces "$MAX_PIECES")
[ -z "${CHARACTER_COVERAGE:-}" ] || tokenize+=(--character-coverage "$CHARACTER_COVERAGE")
[ -z "${SENTENCEPIECE_MODEL:-}" ] ||
    tokenize+=(--sentencepiece-model "$(absolute "$SENTENCEPIECE_MODEL")")
[ -z "${GPT2_DIR:-}" ] || tokenize+=(--gpt2 "$(absolute "$GPT2_DIR")")
run "${tokenize[@]}"

# tokenize.json is written last and only when something changed.
if [ -e "$out/data-bin/made_from.json" ] &&
    cmp -s "$out/tokenize.json" "$out/data-bin/made_from.json"; then
    echo "$out/data-bin: up to date, nothing to do"
    exit 0
fi

# Made beside its place and moved there whole, so that data-bin is never half a data set.
partial=$out/data-bin.partial
rm -rf "$partial"
run fairseq-preprocess --only-source --srcdict "$out/dict.txt" \
    --trainpref "$out/train.pieces" --validpref "$out/valid.pieces" \
    --testpref "$out/test.pieces" --destdir "$partial" \
    --workers "${WORKERS:-$(nproc 2>/dev/null || echo 2)}"
for name in train valid test; do
    # fairseq-preprocess can end with status 0 after a worker died.
    if [ ! -s "$partial/$name.idx" ]; then
        echo "$0: error: fairseq-preprocess wrote no $name data" >&2
        exit 1
    fi
done
cp "$out/tokenize.json" "$partial/made_from.json"
rm -rf "$out/data-bin"
run mv "$partial" "$out/data-bin"
