#!/usr/bin/env bash
# Tables 1 to 5 and figure 3a of the VAT paper for a trained model, beside the paper's figures.
#
# Usage: scripts/reproduce_vat.sh OUT MODEL [NAME=PATH ...] [--hf DIR] [--draws 12] [--seeds 5]
#            [--finetune-seeds 3] [--folds 10] [--max-folds N] [--modes features,finetune] [--jobs 1]
#            [--dry-run] [-- FLAG ...]
#
# MODEL is a checkpoint, the folder of one, or the packaged model's name. What NAME may be:
#   text     held-out sentences, one a line: samples, one word varied, interpolations (tables 1 to 3)
#   sts12 .. sts16, stsb    a folder of score<TAB>sentence<TAB>sentence files (table 4), of which
#            test.tsv alone counts where there is one; with train.tsv and dev.tsv beside it also the
#            relatedness that SentEval trains; sts12 is the text of figure 3a, too
#   mr cr sst2 sst5 trec    label<TAB>sentence (table 5): a folder with train.tsv, test.tsv and
#            where there is one dev.tsv, or a file, which is cross-validated
#   mrpc sicke    the same with two sentences a line
#
# --hf puts a Hugging Face encoder of a local folder into tables 4 and 5. --max-folds trains only the
# first N folds of a fine-tuning. What comes after -- goes to every command that reads MODEL.
# A figure is a JSON file in OUT; the same command goes on where it was, and a NAME more of the same MODEL adds to it.
# OUT/tables.md has all there is.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/resumable.sh"

hf=() draws=12 seeds=5 finetune_seeds=3 folds=10 max_folds='' jobs=1 modes=features,finetune
read_options hf draws seeds finetune-seeds folds max-folds modes jobs -- "$@"
[ ${#places[@]} -ge 2 ] || usage
for flag in draws seeds finetune_seeds folds jobs ${max_folds:+max_folds}; do
    check_number "--${flag//_/-}" "${!flag}"
done
[[ ,features,finetune, == *",$modes,"* ]] || die "--modes $modes: features, finetune or both"
out=$(absolute "${places[0]}") model=${places[1]}
scripts=$(CDPATH= cd "$(dirname "$(readlink -f "$0")")" && pwd)
declare -A paths=()
for place in "${places[@]:2}"; do
    name=${place%%=*}
    case $name in
        text | sts1[2-6] | stsb | mr | cr | sst2 | sst5 | trec | mrpc | sicke) ;;
        *) die "$place: NAME=PATH is needed, with a NAME that --help lists" ;;
    esac
    [ -e "${place#*=}" ] || die "${place#*=}: there is no such file or folder"
    paths[$name]=${place#*=}
done
[ ${#paths[@]} -gt 0 ] || die "NAME=PATH is needed, such as text=sentences.txt"
[ -e "$model" ] || [ -d "$scripts/../fairseq_vat/pretrained/$model" ] ||
    die "$model: there is no such checkpoint, folder or packaged model"
. "$scripts/venv.sh" any
encoders=()
[ ${#hf[@]} -eq 0 ] || encoders=(--hf "${hf[@]}")
lock
if [ -z "$dry_run" ]; then
    content=()
    for file in "$model" "$model/checkpoint_last.pt" "$model/model.pt"; do
        [ ! -f "$file" ] || { content=("$(cksum <"$file")"); break; }
    done
    same_command "$out/model" "$out" "$model" "${content[@]}" || exit 1
    for name in "${!paths[@]}"; do
        content=$(find -L "${paths[$name]}" -maxdepth 1 -type f -print0 | sort -z | xargs -0r cat | cksum)
        same_command "$out/$name.data" "$out: $name" "$content" || exit 1
    done
fi

# vat FILE SAYING SUBCOMMAND FLAG ...: a subcommand's JSON object
vat() {
    to_json "$out/$1" "$2" fairseq-vat "$3" "$model" "${@:4}" --json "${further[@]}"
}
write_tables() { [ -n "$dry_run" ] || python "$scripts/vat_tables.py" "$out"; }

if [ -n "${paths[text]:-}" ]; then
    start to_json "$out/tables-1-3.md" "tables 1 to 3" python "$scripts/latent_tables.py" "$model" \
        --text "${paths[text]}" --samples "$draws" "${further[@]}"
fi
for name in sts12 sts13 sts14 sts15 sts16 stsb; do
    [ -n "${paths[$name]:-}" ] || continue
    path=${paths[$name]}
    [ ! -e "$path/test.tsv" ] || path=$path/test.tsv
    start vat "table4-$name.json" "table 4, $name" sts --sts "$path" "${encoders[@]}"
done
if [ -n "${paths[sts12]:-}" ]; then
    start vat figure3a.json "figure 3a" isotropy --sts "${paths[sts12]}" --min-sentences 50
fi
poolings=(--pooling start mean sum)
if [ -e "${paths[stsb]:-}/train.tsv" ]; then
    start vat relatedness-stsb.json "relatedness, stsb" probe --relatedness "${poolings[@]}" \
        --train "${paths[stsb]}/train.tsv" --valid "${paths[stsb]}/dev.tsv" \
        --test "${paths[stsb]}/test.tsv" "${encoders[@]}"
fi
for mode in ${modes//,/ }; do
    for name in mr cr sst2 sst5 trec mrpc sicke; do
        path=${paths[$name]:-}
        [ -n "$path" ] || continue
        if [ -d "$path" ]; then
            files=(--train "$path/train.tsv" --test "$path/test.tsv")
            [ ! -e "$path/dev.tsv" ] || files+=(--valid "$path/dev.tsv")
            [ "$mode" = features ] && runs=$seeds || runs=$finetune_seeds
            files+=(--seeds "$runs")
        else
            files=(--cv "$path" --folds "$folds")
            [ -z "$max_folds" ] || [ "$mode" = features ] || files+=(--max-folds "$max_folds")
        fi
        [[ $name != mrpc && $name != sicke ]] || files+=(--pairs)
        start vat "table5-$name-$mode.json" "table 5, $name, $mode" probe "${files[@]}" \
            --mode "$mode" "${poolings[@]}" --save "$out/table5-$name-$mode.runs.json" \
            "${encoders[@]}"
    done
done
finish
[ -n "$dry_run" ] && exit
write_tables
echo "$out/tables.md"
[ -z "$failed" ] || die "some steps failed, see above; run this again to try them once more"
