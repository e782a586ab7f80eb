# shellcheck shell=bash
# Activates the project's virtual environment, and makes it on first use.  To be sourced:
#   . scripts/venv.sh         the environment in .venv, for the demo and the tests
#   . scripts/venv.sh any     the one that is active, if it has fairseq and fairseq_vat; else that
# FAIRSEQ_VAT_VENV names another place than .venv.  An environment that is there already and was not
# made by this script is used as it is: nothing is installed into it.

_root=$(CDPATH= cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
_venv=${FAIRSEQ_VAT_VENV:-$_root/.venv}
# to who called a script that has gone to the root since
[[ $_venv == /* ]] || _venv=${here:-$PWD}/$_venv

_make_venv() {
    if [ ! -e "$_venv/bin/activate" ]; then
        local python='' candidate
        for candidate in python3.11 python3.12 python3; do
            # fairseq has wheels for these two versions only.
            if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
                2>/dev/null; then
                python=$candidate
                break
            fi
        done
        if [ -z "$python" ]; then
            echo "venv.sh: error: Python 3.11 or 3.12 is needed and neither is on the PATH" >&2
            return 1
        fi
        echo "+ $python -m venv $_venv" >&2
        "$python" -m venv "$_venv" || return 1
        : >"$_venv/.fairseq_vat"
    fi
    [ -e "$_venv/.fairseq_vat" ] || return 0

    # The stamp holds what was installed from, so that a changed requirement is installed once.
    local wanted
    wanted=$(cat "$_root/pyproject.toml" "$_root/setup.py" "$_root/constraints.txt" | cksum)
    if [ "$(cat "$_venv/.fairseq_vat")" != "$wanted" ]; then
        echo "+ $_venv/bin/python -m pip install -c constraints.txt -e '.[demo,test]'" >&2
        (cd "$_root" && "$_venv/bin/python" -m pip install --disable-pip-version-check \
            -c constraints.txt -e '.[demo,test]' >&2) || return 1
        echo "$wanted" >"$_venv/.fairseq_vat"
    fi
}

if [ "${1:-}" != any ] || ! command -v fairseq-train >/dev/null || ! command -v fairseq-vat >/dev/null
then
    _make_venv || return 1
    . "$_venv/bin/activate"
fi
unset -f _make_venv
unset _root _venv
