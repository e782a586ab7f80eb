#!/usr/bin/env bash
# The tables of the VAE-Transformer paper: trains and measures its systems on the data sets given,
# and writes OUT/tables.md with the paper's figures beside ours.
#
# Usage: scripts/reproduce_vae_transformer.sh OUT [OPTION...] NAME=DIR... [-- FLAG...]
#
#   OUT                  is made; everything goes there
#   NAME=DIR             a data set: DIR has train.txt, valid.txt and test.txt, a sentence a line, or
#                        train.tsv, valid.tsv (or dev.tsv) and test.tsv, label<TAB>sentence a line,
#                        or both: labels are for table 3.  The names ptb, wikitext2, sst2 and air get
#                        the paper's settings for these sets, and its figures beside ours; others
#                        get those of ptb
#   -- FLAG...           further flags of `fairseq-vat evaluate`, such as --iw-samples 0 --no-bleu
#
#   --epochs E           50 by default, the paper's
#   --latent-dim N,..    64 by default; 64,32 also makes tables 4 and 5
#   --systems A,B,..     vae_transformer transformer_decoder_lm vae_lstm lstm_decoder_lm vae_gru
#                        gru_decoder_lm, and vae_gpt2 with --gpt2; all by default
#   --annealings A,B,..  none linear cyclic; all by default
#   --tables N,..        2 (and 4, 5: language modelling), 3 (and 6: classification, of the cyclic
#                        runs), 7 (time), 8 (parameters); all by default
#   --vocabulary N|words dictionary entries of sentencepiece, 30522 by default, or as many as the
#                        text allows; words: every word of the training text.  Text with <unk> in
#                        it, which is of a closed vocabulary already, gets words by default
#   --gpt2 DIR           GPT-2 for vae_gpt2, in its own vocabulary
#   --jobs N             N runs side by side, on a CPU with one thread each; 1 by default
#   --dry-run            print the commands that are still to do
#
# It can be stopped at any time: run it again, and it goes on where it was.  What failed or isn't
# done is a dash in the tables.
set -euo pipefail

. "$(dirname "$0")/resumable.sh"
epochs=50 latent_dim=64 systems='' annealings=none,linear,cyclic tables=2,3,7,8
vocabulary='' gpt2='' jobs=1
read_options epochs latent-dim systems annealings tables vocabulary gpt2 jobs -- "$@"
[ ${#places[@]} -gt 0 ] || usage
out=$(absolute "${places[0]}")
sets=("${places[@]:1}") evaluate_flags=(${further[@]+"${further[@]}"})
[ -z "$gpt2" ] || gpt2=$(absolute "$gpt2")

# check_list FLAG VALUES ALLOWED...: every one of the comma-separated VALUES is allowed.
check_list() {
    local flag=$1 value values
    IFS=, read -ra values <<<"$2"
    shift 2
    [ ${#values[@]} -gt 0 ] || die "$flag needs a value"
    for value in "${values[@]}"; do
        [[ " $* " == *" $value "* && -n $value ]] || die "$flag $value: must be among $*"
    done
}
has_table() { local n; for n in "$@"; do [[ ,$tables, == *,$n,* ]] && return; done; return 1; }

all_systems=(vae_transformer transformer_decoder_lm vae_lstm lstm_decoder_lm vae_gru gru_decoder_lm)
[ -z "$gpt2" ] || all_systems+=(vae_gpt2)
[ -n "$systems" ] || systems=$(IFS=,; echo "${all_systems[*]}")
[[ ,$systems, != *,vae_gpt2,* || -n $gpt2 ]] || die "--systems vae_gpt2 needs --gpt2 DIR"
[ -z "$gpt2" ] || [ -f "$gpt2/config.json" ] || die "--gpt2 $gpt2 has no config.json: give the directory of a GPT-2 model"
check_list --systems "$systems" "${all_systems[@]}"
check_list --annealings "$annealings" none linear cyclic
check_list --tables "$tables" 2 3 4 5 6 7 8
check_number --epochs "$epochs"
check_number --jobs "$jobs"
IFS=, read -ra latent_dims <<<"$latent_dim"
for latent_dim in "${latent_dims[@]}"; do check_number --latent-dim "$latent_dim"; done
case $vocabulary in '' | words) ;; *) check_number --vocabulary "$vocabulary" ;; esac
IFS=, read -ra systems <<<"$systems"
IFS=, read -ra annealings <<<"$annealings"

declare -A folder
names=()
for set in ${sets[@]+"${sets[@]}"}; do
    name=${set%%=*}
    [[ $set == *=* && $name =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]*$ ]] || die "$set: give NAME=DIR"
    [ -z "${folder[$name]:-}" ] || die "$name is given twice"
    directory=$(absolute "${set#*=}")
    folder[$name]=$directory
    names+=("$name")
    kind=txt
    [ -e "$directory/train.txt" ] || kind=tsv
    [ -e "$directory/train.$kind" ] || die "$set: $directory has neither train.txt nor train.tsv"
    for split in train valid test; do
        [ -r "$directory/$split.$kind" ] || [ "$split.$kind" = valid.tsv -a -r "$directory/dev.tsv" ] ||
            die "$set: $directory has no $split.$kind that can be read"
    done
done
[ ${#names[@]} -gt 0 ] || [ "$tables" = 8 ] || die "give at least one data set, NAME=DIR"

if has_table 3 6 && [ ${#names[@]} -gt 0 ] && ! has_table 2 4 5; then
    with_labels=''
    for name in "${names[@]}"; do [ ! -e "${folder[$name]}/train.tsv" ] || with_labels=1; done
    [ -n "$with_labels" ] || die "--tables $tables: classification needs a data set with train.tsv"
fi

cd "$(dirname "$0")/.."
. scripts/venv.sh any
. scripts/precision.sh
plugin=$PWD/fairseq_vat
lock
device=()
python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || device=(--cpu)
[ ${#device[@]} -eq 0 ] || [ "$jobs" -eq 1 ] || export OMP_NUM_THREADS=1
precision=$(precision) || die "fairseq_vat can't be imported"
say "training in $precision"
. scripts/reproduce_vae_transformer_steps.sh

for name in ${names[@]+"${names[@]}"}; do start prepare "$name"; done
finish
[ -z "$failed" ] || exit 1
if has_table 2 3 4 5 6; then
    for name in ${names[@]+"${names[@]}"}; do
        for latent_dim in "${latent_dims[@]}"; do
            for system in "${systems[@]}"; do
                if [[ $system == *_lm ]]; then
                    # they have no latents: one run is for every width
                    [ "$latent_dim" != "${latent_dims[0]}" ] || start one_run "$name" "$latent_dim" "$system" lm
                    continue
                fi
                for annealing in "${annealings[@]}"; do
                    start one_run "$name" "$latent_dim" "$system" "$annealing"
                done
            done
        done
    done
    finish
fi
if has_table 7; then # nothing beside it
    for name in ${names[@]+"${names[@]}"}; do start time_forward "$name"; finish; done
fi
if has_table 8; then start count_parameters; finish; fi
[ -n "$dry_run" ] && exit
write_tables
echo "$out/tables.md"
[ -z "$failed" ] || die "some steps failed, see above; run this again to try them once more"
