# shellcheck shell=bash
# Sourced: sets PYTHON (the network: torch, lhotse, ...) and K2_PYTHON (the search), absolute wherever one stands.
# A K2_PYTHON from outside is kept; without .venv-k2, .venv serves both (see setup.sh).
repo_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON=$repo_root/.venv/bin/python
if [ -z "${K2_PYTHON:-}" ]; then
  K2_PYTHON=$repo_root/.venv-k2/bin/python
  [ -x "$K2_PYTHON" ] || K2_PYTHON=$PYTHON
fi
# The k2 environment finds the package through this, since it is not installed there.
export PYTHON K2_PYTHON PYTHONPATH="$repo_root${PYTHONPATH:+:$PYTHONPATH}"
if ! [ -f "$repo_root/.venv/.stamp" ]; then
  echo "${0##*/}: the Python environments are not there yet: run $repo_root/setup.sh" >&2
  exit 1
fi
