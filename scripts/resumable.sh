# shellcheck shell=bash
# Long recipes that can be stopped at any time and go on where they were.  To be sourced: commands
# whose output appears whole or not at all, and jobs side by side.
#
# A step does nothing if it is done already, and writes what says so last.
# With the variable dry_run set, commands are printed instead.
# shellcheck disable=SC2154 # dry_run, jobs and out are the script's

die() {
    echo "$0: error: $*" >&2
    exit 1
}
say() { printf '%(%H:%M:%S)T %s\n' -1 "$*" >&2; }

here=$PWD
absolute() { case $1 in /*) echo "$1" ;; *) echo "$here/$1" ;; esac; }
usage() {
    sed -n 's/^# Usage/usage/p;5q' "$0" >&2
    exit 2
}

# read_options NAME... -- ARGUMENT...: --some-name VALUE sets the variable some_name, or adds to it
# if it is an array; --dry-run sets dry_run; the rest goes into the arrays places and, what comes
# after --, further.  --help prints the script's head.
read_options() {
    local names=' ' name
    for name in "$@"; do
        shift
        [ "$name" != -- ] || break
        names+="$name "
    done
    dry_run='' places=() further=()
    while [ $# -gt 0 ]; do
        case $1 in
            --dry-run) dry_run=1 ;;
            -h | --help) sed -n '2,/^set /{s/^# \{0,1\}//p}' "$0"; exit 0 ;;
            --) further=("${@:2}"); return ;;
            -*)
                name=${1#--}
                [[ $names == *" $name "* ]] || die "$1: there is no such option"
                [ $# -ge 2 ] || die "$1 needs a value"
                _set_option "${name//-/_}" "$2"
                shift
                ;;
            *) places+=("$1") ;;
        esac
        shift
    done
}
_set_option() {
    local -n option=$1
    if [[ $(declare -p "$1") == 'declare -a'* ]]; then option+=("$2"); else option=$2; fi
}

# check_number FLAG VALUE: a whole number, at least 1.
check_number() { [[ $2 =~ ^[1-9][0-9]*$ ]] || die "$1 $2: must be a whole number, at least 1"; }

# run LOG COMMAND...: output into LOG; a failure is told in one line.
run() {
    local log=$1 last
    shift
    if [ -n "$dry_run" ]; then
        local to=''
        [ "$1" != into ] || { to=$2; set -- "${@:3}"; }
        printf '%q ' "$@" ${to:+'>'} ${to:+"$to"} | sed 's/ $/\n/; s/ \\> / > /'
        return
    fi
    mkdir -p "${log%/*}"
    "$@" >"$log" 2>&1 && return
    last=$(grep -v '^[[:space:]]*$' "$log" | tail -n 1) || true
    [[ $1 != into && $1 != env ]] || shift 2
    say "error: $1 failed: ${last:-it said nothing} (all of it: $log)"
    return 1
}

# to_json FILE SAYING COMMAND...: standard output into FILE, whole or not at all; done with this very
# command already, nothing is.  SAYING is said where there is something to do.
to_json() {
    local file=$1 saying=$2
    shift 2
    if [ -n "$dry_run" ]; then
        [ -e "$file" ] || run - into "$file" "$@"
        return
    fi
    [ -e "$file" ] || rm -f "$file.command" # what failed holds nobody to its flags
    same_command "$file.command" "$file" "$@" || return 1
    [ ! -e "$file" ] || return 0
    say "$saying"
    run "$file.log" into "$file.partial" "$@" && mv "$file.partial" "$file"
}
into() { "${@:2}" >"$1"; }

# begin_training SAVE DATA COMMAND...: SAVE was begun with this very command on this very data, or is
# begun now.
begin_training() {
    local save=$1 data=$2
    shift 2
    [ -z "$dry_run" ] || return 0
    mkdir -p "$save"
    # what ended before its first checkpoint holds nobody to its flags
    local checkpoints=("$save"/checkpoint*.pt)
    [ -e "${checkpoints[0]}" ] || [ -e "$save/done" ] || rm -f "$save"/{data,command,train.log}
    same_command "$save/data" "$save" "$(cat "$data/dict.txt" "$data"/*.bin | cksum)" || return 1
    same_command "$save/command" "$save" "$@"
}

# same_command FILE WHAT COMMAND...: FILE holds this very command, or is written now.  Where it runs
# and in which precision isn't part of it: what a GPU began, a CPU may go on with.
same_command() {
    local file=$1 what=$2 word
    shift 2
    for word in "$@"; do
        case $word in --cpu | --precision | float32 | bfloat16) ;; *) printf '%q ' "$word" ;; esac
    done >"$file.new"
    if [ -e "$file" ] && ! cmp -s "$file" "$file.new"; then
        rm "$file.new"
        say "error: $what was made with other flags or texts (see $file); use another OUT"
        return 1
    fi
    mv "$file.new" "$file"
}

# lock: nothing else is at work in the folder OUT.
lock() {
    [ -z "$dry_run" ] || return 0
    mkdir -p "$out"
    exec 9>"$out/.lock"
    # the jobs of one that was stopped just now may take a moment to end
    flock -w 2 9 || die "$out: another run of this script is at work there"
}

# start COMMAND...: as soon as fewer than $jobs are running.  finish: wait for all.  After each job
# write_tables is called; one that failed sets `failed`.
failed='' running=0
start() {
    while [ "$running" -ge "$jobs" ]; do _reap; done
    if [ -n "$dry_run" ]; then "$@"; return; fi
    # a process group of its own, so that stopping this script stops all it started
    set -m
    # it keeps the lock: where this script alone is killed, the next one doesn't write beside it
    "$@" </dev/null &
    set +m
    running=$((running + 1))
}
finish() { while [ "$running" -gt 0 ]; do _reap; done; }
_reap() {
    wait -n || failed=1
    running=$((running - 1))
    write_tables || failed=1
}
_stop_jobs() { local pid; for pid in $(jobs -p); do kill -- "-$pid" 2>/dev/null || true; done; }
trap _stop_jobs EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
