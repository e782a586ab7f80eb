#!/usr/bin/env bash
# The tables of the VAE-Transformer paper: scripts/reproduce_vae_transformer.sh --help
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/venv.sh" any
exec python "$(dirname "$(readlink -f "$0")")/reproduce_vae_transformer.py" "$@"
