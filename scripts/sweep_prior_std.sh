#!/usr/bin/env bash
# What the prior's standard deviation s does: trains models for each s, with the same budget,
# measures them and draws figures 2, 3a and 3b of the VAT paper.  Writes OUT/sweep.md and OUT/*.png.
#
# Usage: scripts/sweep_prior_std.sh OUT TRAIN VALID TEST [OPTION...] [-- FLAG...]
#
#   OUT                  is made; everything goes there
#   TRAIN VALID TEST     text, a sentence a line; plain, .gz or .xz
#   -- FLAG...           further flags of fairseq-train, for every run; they win over the recipe's
#
#   --prior-std S,..     0.1,0.2,0.3,0.4,0.5,0.6,0.8,1.0 by default
#   --noises NOISE,..    unit,prior by default: fairseq-train's --latent-noise, a panel and a table each
#   --seeds N            runs of each, with the seeds 1 to N; 1 by default. Tables and figures show the
#                        mean over them, and the standard deviation
#   --setting NAME=FLAGS flags of fairseq-train that are tried with every s, such as
#                        --setting 'tenth=--kl-weight 0.1'; can be given several times, and makes a
#                        panel of the figures and a table each.  By default
#                        'mean=--kl-reduction mean' and 'sum=--kl-reduction sum'
#   --updates N          of each run, 2000 by default; the KL's weight rises by the logistic schedule
#                        over the first half of them, if a setting doesn't say otherwise
#   --vocabulary N       dictionary entries, 4096 by default
#   --max-pieces N       longer sentences are left out, 30 by default
#   --isotropy-text T    what figure 3a is measured on: a text, or a folder of STS files; TEST by
#                        default
#   --curves S,..        the values of s in figure 2, 1.0,0.4 by default
#   --jobs N             N runs side by side, on a CPU with one thread each; 1 by default
#   --dry-run            print the commands that are still to do
#
# It can be stopped at any time: run it again, and it goes on where it was.  Further values of s,
# noises, seeds and settings can be added to an OUT.  What failed or isn't done is a dash in the tables.
set -euo pipefail

. "$(dirname "$(readlink -f "$0")")/resumable.sh"
prior_std=0.1,0.2,0.3,0.4,0.5,0.6,0.8,1.0 curves=1.0,0.4 updates=2000 vocabulary=4096 max_pieces=30
isotropy_text='' jobs=1 seeds=1 noises=unit,prior setting=()
read_options prior-std setting updates vocabulary max-pieces isotropy-text curves jobs noises seeds \
    -- "$@"
[ ${#places[@]} -eq 4 ] || usage
out=$(absolute "${places[0]}")
texts=()
for text in "${places[@]:1}"; do texts+=("$(absolute "$text")"); done
settings=(${setting[@]+"${setting[@]}"}) train_flags=(${further[@]+"${further[@]}"})
unset setting

for text in "${texts[@]}"; do [ -f "$text" -a -r "$text" ] || die "$text can't be read"; done
[ -n "$isotropy_text" ] && isotropy_text=$(absolute "$isotropy_text") || isotropy_text=${texts[2]}
[ -r "$isotropy_text" ] || die "--isotropy-text $isotropy_text can't be read"
[ -d "$isotropy_text" ] && isotropy_flag=--sts || isotropy_flag=--text
for flag in updates vocabulary max-pieces jobs seeds; do
    variable=${flag//-/_}
    check_number "--$flag" "${!variable}"
done
IFS=, read -ra noises <<<"$noises"
mapfile -t noises < <(printf '%s\n' "${noises[@]}" | awk 'NF && !seen[$0]++')
[ ${#noises[@]} -gt 0 ] || die "--noises needs a value"
for noise in "${noises[@]}"; do
    [[ $noise == unit || $noise == prior ]] || die "--noises $noise: must be unit, prior or both"
done
[ "$updates" -ge 2 ] || die "--updates $updates: must be at least 2"
# numbers FLAG LIST: each a positive decimal, written as the folders are named, on lines.
numbers() {
    local number values
    IFS=, read -ra values <<<"$2"
    [ ${#values[@]} -gt 0 ] || die "$1 needs a value"
    for number in "${values[@]}"; do
        [[ $number =~ ^([0-9]+(\.[0-9]*)?|\.[0-9]+)$ && $number =~ [1-9] ]] ||
            die "$1 $number: must be a standard deviation above 0, such as 0.4"
        LC_ALL=C awk -v number="$number" 'BEGIN { print number + 0 }'
    done
}
prior_stds=$(numbers --prior-std "$prior_std" | awk '!seen[$0]++')
curves=$(numbers --curves "$curves" | awk '!seen[$0]++')
[ ${#settings[@]} -gt 0 ] || settings=('mean=--kl-reduction mean' 'sum=--kl-reduction sum')
names=()
for setting in "${settings[@]}"; do
    name=${setting%%=*}
    [[ $setting == *=* && $name =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]*$ && $name != corpus ]] ||
        die "--setting $setting: give NAME=FLAGS, such as 'tenth=--kl-weight 0.1'"
    [[ " ${names[*]-} " != *" $name "* ]] || die "--setting $name is given twice"
    names+=("$name")
done

CDPATH= cd "$(dirname "$(readlink -f "$0")")/.."
. scripts/venv.sh any
. scripts/precision.sh
plugin=$PWD/fairseq_vat
lock
device=()
python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || device=(--cpu)
[ ${#device[@]} -eq 0 ] || [ "$jobs" -eq 1 ] || export OMP_NUM_THREADS=1
choose_precision float32 ${train_flags[@]+"${train_flags[@]}"}

corpus=$out/corpus data=$out/corpus/data-bin
prepare() {
    local command=(env MAX_PIECES="$max_pieces" scripts/prepare_corpus.sh "$corpus" "$vocabulary")
    say "preparing the text"
    run "$out/prepare.log" "${command[@]}" "${texts[@]}"
}

# one_run NAME FLAGS NOISE S SEED: trained and measured.
one_run() {
    local name="$1, $3 noise, s = $4, seed $5" noise=$3 prior_std=$4 seed=$5 flags
    local save=$out/$1/$3-s$4-seed$5
    read -ra flags <<<"$2"
    train || return 1
    local model=("$data" --path "$save/checkpoint_last.pt" --json ${device[@]+"${device[@]}"})
    to_json "$save/evaluate.json" "$name: measuring" \
        fairseq-vat evaluate "${model[@]}" --gen-subset test \
        --iw-samples 0 --mi-latents 1000 --no-bleu || return 1
    to_json "$save/isotropy.json" "$name: measuring isotropy" \
        fairseq-vat isotropy "${model[@]}" \
        --sentencepiece-model "$corpus/sentencepiece.model" $isotropy_flag "$isotropy_text"
}

# train: with the variables of one_run.
train() {
    local command=(
        fairseq-train "$data" --user-dir "$plugin" --save-dir "$save" --task variational_lm
        --arch vat_transformer --encoder-layers 2 --decoder-layers 2
        --criterion token_kl_cross_entropy --prior-std "$prior_std" --latent-noise "$noise"
        --kl-weight 1 --kl-annealing logistic --kl-annealing-updates $((updates / 2))
        --optimizer adam --adam-betas '(0.9, 0.98)' --clip-norm 1.0
        --lr 3e-3 --lr-scheduler inverse_sqrt --warmup-updates 300
        --max-tokens 1200 --max-update "$updates" --seed "$seed" --report-accuracy --num-workers 0
        --validate-interval-updates $(((updates + 9) / 10)) --save-interval-updates 500
        --keep-interval-updates 1 --no-epoch-checkpoints
        --log-format simple --log-interval 20 --log-file "$save/train.log"
        ${precision_flags[@]+"${precision_flags[@]}"}
        ${flags[@]+"${flags[@]}"} ${train_flags[@]+"${train_flags[@]}"}
    )
    begin_training "$save" "$data" "${command[@]}" || return 1
    [ ! -e "$save/done" ] || return 0
    say "$name: training, $updates updates ($save/train.log)"
    # fairseq's own default is all GPUs, with other batches
    run "$save/out.log" "${command[@]}" --distributed-world-size 1 ${device[@]+"${device[@]}"} || return 1
    [ -n "$dry_run" ] || : >"$save/done"
}

write_tables() {
    [ -n "$dry_run" ] || python scripts/sweep_prior_std.py "$out" --settings "${names[@]}" "$@"
}

start prepare
finish
[ -z "$failed" ] || exit 1
for seed in $(seq "$seeds"); do
    for setting in "${settings[@]}"; do
        for noise in "${noises[@]}"; do
            for prior_std in $prior_stds; do
                start one_run "${setting%%=*}" "${setting#*=}" "$noise" "$prior_std" "$seed"
            done
        done
    done
done
finish
[ -n "$dry_run" ] && exit
write_tables --figures --curves $curves
echo "$out/sweep.md"
[ -z "$failed" ] || die "some steps failed, see above; run this again to try them once more"
