# shellcheck shell=bash
# Steps of scripts/reproduce_vae_transformer.sh, which sources this.  Each does nothing if it is done
# already, and writes what says so last.
# shellcheck disable=SC2154 # the variables are the script's

# text_of NAME SPLIT: the sentences, without empty lines, on standard output.
text_of() {
    local file=${folder[$1]}/$2
    if [ -e "$file.txt" ]; then
        awk NF "$file.txt"
    else
        cut -f 2- "$(labels_of "$1" "$2")" | awk NF
    fi
}
# labels_of NAME SPLIT: the file label<TAB>sentence.
labels_of() {
    local file=${folder[$1]}/$2.tsv
    [ "$2" != valid ] || [ -e "$file" ] || file=${folder[$1]}/dev.tsv
    echo "$file"
}
has_labels() {
    local split
    for split in train valid test; do [ -r "$(labels_of "$1" $split)" ] || return 1; done
}

# prepare NAME: OUT/NAME/data-bin, and with --gpt2 OUT/NAME/gpt2/data-bin.
prepare() {
    local name=$1 to=$out/$1 text=$out/$1/text split wanted=$vocabulary
    local texts=("$text/train.txt" "$text/valid.txt" "$text/test.txt")
    if [ -z "$wanted" ]; then
        wanted=30522
        # to the end of the text: a reader that stops early would fail the pipe
        if text_of "$name" train | awk '/(^| )<unk>( |$)/ { found = 1 } END { exit !found }'; then
            wanted=words
        fi
    fi
    local with_gpt2=''
    [[ " ${systems[*]} " != *" vae_gpt2 "* || -e $to/gpt2/data-bin/dict.txt ]] || with_gpt2=1
    if [ -e "$to/data-bin/dict.txt" ]; then
        check_vocabulary "$name" || return 1
        [ -n "$with_gpt2" ] || return 0
    fi
    say "$name: preparing"
    if [ -z "$dry_run" ]; then
        mkdir -p "$text"
        for split in train valid test; do
            text_of "$name" $split >"$text/$split.partial" || return 1
            mv "$text/$split.partial" "$text/$split.txt"
        done
    fi
    if [ ! -e "$to/data-bin/dict.txt" ]; then
        if [ "$wanted" = words ]; then
            rm -rf "$to/data-bin.partial"
            run "$to/prepare.log" fairseq-preprocess --only-source --trainpref "${texts[0]}" \
                --validpref "${texts[1]}" --testpref "${texts[2]}" \
                --destdir "$to/data-bin.partial" || return 1
            [ -n "$dry_run" ] || mv "$to/data-bin.partial" "$to/data-bin"
        else
            prepare_pieces "$to" "$wanted" "${texts[@]}" || return 1
        fi
    fi
    [ -z "$with_gpt2" ] || run "$to/gpt2.log" \
        env GPT2_DIR="$gpt2" scripts/prepare_corpus.sh "$to/gpt2" - "${texts[@]}"
}

# prepare_pieces TO NUMBER TEXT...: sentencepiece with so many, or with as many as it can make.
prepare_pieces() {
    local to=$1 number=$2 largest
    shift 2
    if [ -n "$dry_run" ]; then
        run - scripts/prepare_corpus.sh "$to" "$number" "$@"
        return
    fi
    scripts/prepare_corpus.sh "$to" "$number" "$@" >"$to/prepare.log" 2>&1 && return
    # fairseq-vat tokenize says how many there can be
    largest=$(sed -n 's/.*the largest that works is \([0-9]*\).*/\1/p' "$to/prepare.log" | tail -n 1)
    if [ -z "$largest" ]; then
        say "error: $(tail -n 1 "$to/prepare.log") (all of it: $to/prepare.log)"
        return 1
    fi
    largest=$((largest / 8 * 8))
    say "$to: its text has no $number pieces; making $largest"
    run "$to/prepare.log" scripts/prepare_corpus.sh "$to" "$largest" "$@"
}

# check_vocabulary NAME: what is prepared is of the kind that --vocabulary asks for.
check_vocabulary() {
    local is=pieces
    [ -e "$out/$1/data-bin/made_from.json" ] || is=words
    case $vocabulary,$is in
        words,pieces | [0-9]*,words)
            say "error: --vocabulary $vocabulary: $out/$1/data-bin is made of $is; use another OUT"
            return 1
            ;;
    esac
}

# one_run NAME LATENT_DIM SYSTEM ANNEALING: trained, evaluated, and classified with.
one_run() {
    local name=$1 latent_dim=$2 system=$3 annealing=$4
    local data=$out/$name/data-bin save=$out/$name/z$latent_dim/$system-$annealing found
    [ "$system" != vae_gpt2 ] || data=$out/$name/gpt2/data-bin
    if [ "$annealing" = lm ]; then # the one that is there, whatever the width it was made beside
        for found in "$out/$name"/z*/"$system-lm"; do [ ! -d "$found" ] || save=$found; done
    fi
    train || return 1
    local checkpoint=$save/checkpoint_last.pt
    local run="$name $system-$annealing, latents of $latent_dim"
    to_json "$save/evaluate.json" "$run: measuring" \
        fairseq-vat evaluate "$data" --path "$checkpoint" \
        --gen-subset test --json ${device[@]+"${device[@]}"} \
        ${evaluate_flags[@]+"${evaluate_flags[@]}"} || return 1
    has_table 3 6 && [ "$annealing" = cyclic ] && has_labels "$name" || return 0
    local bpe=()
    if [ "$system" = vae_gpt2 ]; then
        bpe=(--bpe gpt2 --gpt2-encoder-json "$out/$name/gpt2/vocab.json"
            --gpt2-vocab-bpe "$out/$name/gpt2/merges.txt")
    elif [ -e "$out/$name/sentencepiece.model" ]; then
        bpe=(--bpe sentencepiece --sentencepiece-model "$out/$name/sentencepiece.model")
    fi
    to_json "$save/classify.json" "$run: classifying" fairseq-vat classify "$data" --path "$checkpoint" \
        --train "$(labels_of "$name" train)" --valid "$(labels_of "$name" valid)" \
        --test "$(labels_of "$name" test)" --protocol paper \
        ${bpe[@]+"${bpe[@]}"} --json ${device[@]+"${device[@]}"}
}

# train: with the variables of one_run.  The paper's settings: section 4, and 4.1 for annealing.
train() {
    [ ! -e "$save/done" ] || return 0
    local lr=1e-3 positions=64 sentences updates period kl=()
    case $name in sst2 | air) lr=1e-4 ;; wikitext2) positions=256 ;; esac
    sentences=$(text_of "$name" train | wc -l)
    updates=$((epochs * ((sentences + 31) / 32)))
    # the learning rate's cosine starts anew every ten epochs
    period=$((epochs < 10 ? updates : updates / epochs * 10))
    case $annealing in
        none) kl=(--kl-annealing constant) ;;
        # the paper: "reaches 1 at a certain step, after which we set α(t) at 1"; which, it doesn't say
        linear) kl=(--kl-annealing linear --kl-annealing-updates $((updates / 2))) ;;
        cyclic) kl=(--kl-annealing cyclic --kl-annealing-updates "$updates"
            --kl-annealing-cycles 5 --kl-annealing-ratio 0.5) ;;
    esac
    [ "$system" != vae_gpt2 ] || kl+=(--gpt2-dir "$gpt2")
    local command=(
        fairseq-train "$data" --user-dir "$plugin" --save-dir "$save" --task variational_lm
        --arch "$system" --latent-dim "$latent_dim" --criterion token_kl_cross_entropy
        --prior-std 1 ${kl[@]+"${kl[@]}"}
        --optimizer adam --adam-betas '(0.9, 0.999)' --weight-decay 0.1
        --lr "$lr" --lr-scheduler cosine --min-lr 1e-7 --lr-shrink 1 --lr-period-updates "$period"
        --batch-size 32 --required-batch-size-multiple 1 --max-epoch "$epochs" --truncate
        --max-source-positions "$positions" --max-target-positions "$positions" --seed 1
        --no-epoch-checkpoints --save-interval-updates 500 --keep-interval-updates 1
        --validate-interval-updates 1000000 --num-workers 0 --precision "$precision"
        --log-format simple --log-interval 100 --log-file "$save/train.log"
    )
    say "$name $system-$annealing, latents of $latent_dim: training, $epochs epochs ($save/train.log)"
    begin_training "$save" "$data" "${command[@]}" || return 1
    run "$save/out.log" "${command[@]}" ${device[@]+"${device[@]}"} || return 1
    [ -n "$dry_run" ] || : >"$save/done"
}

# time_forward NAME: table 7.
time_forward() {
    local positions=64
    [ "$1" != wikitext2 ] || positions=256
    to_json "$out/$1/time.json" "$1: timing forward passes" python scripts/time_forward.py "$out/$1/data-bin" \
        --max-positions "$positions" --json
}

# count_parameters: table 8.
count_parameters() {
    to_json "$out/parameters.json" "counting parameters" python scripts/time_forward.py --parameters --json
}

write_tables() {
    [ -n "$dry_run" ] || python scripts/vae_transformer_tables.py "$out" --tables "$tables"
}
