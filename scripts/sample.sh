#!/usr/bin/env bash
# Variants of sentences: draw their latents and decode each draw.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: scripts/sample.sh CHECKPOINT DATA_BIN SENTENCEPIECE_MODEL [K] [-- FLAGS] < SENTENCES

Prints, for each line of standard input, the line, its reconstruction from the latents' mean and
K (4) variants from drawn latents.  FLAGS are fairseq-interactive's, for example
  echo "We will introduce several concepts." | scripts/sample.sh \
      runs/mono/vat/checkpoint_last.pt runs/mono/data-bin runs/mono/sentencepiece.model 8 \
      -- --latent-seed 7 --latent-temperature 1.3
TEXT
}

[[ ${1:-} == -h || ${1:-} == --help ]] && usage && exit 0
[[ $# -ge 3 ]] || { usage >&2; exit 2; }
checkpoint=$1 data=$2 model=$3 draws=4
shift 3
if [[ $# -gt 0 && $1 != -- ]]; then draws=$1; shift; fi
[[ ${1:-} == -- ]] && shift
[[ $draws =~ ^[1-9][0-9]*$ ]] || {
    echo "scripts/sample.sh: error: K must be a number from 1, not '$draws' (flags go after --)" >&2
    exit 1
}
for file in "$checkpoint" "$data/dict.txt" "$model"; do
    [[ -f $file ]] || { echo "scripts/sample.sh: error: there is no file $file" >&2; exit 1; }
done

plugin=$(CDPATH= cd "$(dirname "$(readlink -f "$0")")/../fairseq_vat" && pwd)
. "$(dirname "$(readlink -f "$0")")/venv.sh" any
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/sentences"
interactive() {
    fairseq-interactive "$data" --user-dir "$plugin" --task variational_lm --path "$checkpoint" \
        --bpe sentencepiece --sentencepiece-model "$model" --beam 5 \
        --buffer-size 64 --batch-size 64 --input "$work/sentences" "$@"
}
# the mean is decoded with the same flags, but for those that speak of draws
mean_flags=()
for ((i = 1; i <= $#; i++)); do
    case ${!i} in
        --latent-marks | --latent-marks=*)
            echo "scripts/sample.sh: error: --latent-marks: fairseq-vat vary draws marked words" >&2
            exit 1
            ;;
        --latent-sampling | --latent-*=*) ;;
        --latent-*) ((i++)) || true ;;
        *) mean_flags+=("${!i}") ;;
    esac
done
# its log goes to standard error, hypotheses to standard output; show the log only of a failure
for kind in mean samples; do
    flags=("${mean_flags[@]}")
    [[ $kind == samples ]] && flags=(--latent-sampling --latent-samples "$draws" "$@")
    if ! interactive "${flags[@]}" > "$work/$kind" 2> "$work/log"; then
        grep '^fairseq_vat: error: ' "$work/log" >&2 || tail -n 3 "$work/log" >&2
        exit 1
    fi
done
awk -F '\t' '
    FNR == 1 { file++ }
    file == 1 { line[FNR] = $0; lines = FNR; next }
    $1 ~ /^D-/ {
        id = substr($1, 3) + 1
        if (file == 2) { if (!(id in mean)) mean[id] = $3 } # of --nbest the best is first
        else variants[id] = variants[id] "\n  sample  " $3
    }
    END { for (i = 1; i <= lines; i++) print line[i] "\n  mean    " mean[i] variants[i] "\n" }
' "$work/sentences" "$work/mean" "$work/samples"
