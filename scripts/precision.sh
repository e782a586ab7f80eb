# shellcheck shell=bash
# In which precision a recipe trains. To be sourced, and used once the environment is active.

# precision FLAG...: what training with these is fast in on this machine, float32 or bfloat16.
precision() {
    python -c 'import sys; from fairseq_vat.hardware import preferred_precision as p
print(p("--cpu" in sys.argv))' "$@" 2>/dev/null
}

# choose_precision ELSE FLAG...: sets the array precision_flags to fairseq-train's flags for bfloat16
# where it is fast, and else for ELSE, fp16 or float32; to none if the user's FLAGs choose. Says which.
choose_precision() {
    local else=$1 flag found
    shift
    precision_flags=()
    for flag in "$@"; do
        case $flag in
            --precision | --precision=* | --fp16 | --bf16 | --amp | --memory-efficient-*)
                echo "training in the precision of the flags given" >&2
                return
                ;;
        esac
    done
    if ! found=$(precision "$@"); then
        echo "$0: error: fairseq_vat can't be imported" >&2
        return 1
    fi
    [ "$found" = bfloat16 ] || found=$else
    [ "$found" = fp16 ] && precision_flags=(--fp16) || precision_flags=(--precision "$found")
    echo "training in $found" >&2
}
