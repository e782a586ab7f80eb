# shellcheck shell=bash
# Makes the virtual environment on first use and activates it.  Source it from the repository root:
#   . scripts/venv.sh
# FAIRSEQ_VAT_VENV names another place than .venv.  An environment that is there already and was not
# made by this script is used as it is: nothing is installed into it.

_venv=${FAIRSEQ_VAT_VENV:-.venv}
_owned=yes
if [ -n "${FAIRSEQ_VAT_VENV:-}" ] && [ -e "$_venv/bin/activate" ] && [ ! -e "$_venv/.fairseq_vat" ]; then
    _owned=no
fi

if [ "$_owned" = yes ]; then
    if [ ! -e "$_venv/bin/activate" ]; then
        _python=
        for _candidate in python3.11 python3.12 python3; do
            # fairseq has wheels for these two versions only.
            if "$_candidate" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
                2>/dev/null; then
                _python=$_candidate
                break
            fi
        done
        if [ -z "$_python" ]; then
            echo "venv.sh: error: Python 3.11 or 3.12 is needed and neither is on the PATH" >&2
            return 1
        fi
        echo "+ $_python -m venv $_venv" >&2
        "$_python" -m venv "$_venv" || return 1
        : >"$_venv/.fairseq_vat"
    fi

    # The stamp holds what was installed from, so that a changed requirement is installed once.
    _wanted=$(cat setup.py constraints.txt | cksum)
    if [ "$(cat "$_venv/.fairseq_vat" 2>/dev/null)" != "$_wanted" ]; then
        echo "+ $_venv/bin/python -m pip install -c constraints.txt -e '.[demo,test]'" >&2
        "$_venv/bin/python" -m pip install --disable-pip-version-check \
            -c constraints.txt -e '.[demo,test]' >&2 || return 1
        echo "$_wanted" >"$_venv/.fairseq_vat"
    fi
fi

. "$_venv/bin/activate"
unset _venv _owned _python _candidate _wanted
