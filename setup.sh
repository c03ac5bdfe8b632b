#!/usr/bin/env bash
# Make the Python environments: .venv, and .venv-k2 only where k2 does not import in .venv. Run it as often as you
# like: what is up to date is left alone. Nothing is written outside this folder but the installer's own cache.
#
#   PYTHON_BASE=/path/to/python3.11   the interpreter to start from
#   K2_PYTHON=/path/to/python         an interpreter that has k2 already: no .venv-k2 is made
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

fail() {
  echo "setup.sh: $*" >&2
  exit 1
}

find_python() {
  local candidate
  for candidate in "${PYTHON_BASE:-python3.11}" "${PYTHON_BASE:-python3}"; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  fail "Python 3.11 is needed and ${PYTHON_BASE:-neither python3.11 nor python3} is not it:" \
       "install it, or name one with PYTHON_BASE=/path/to/python3.11"
}

# What an environment was made from; the folder is part of it because an environment does not survive a move.
stamp() {
  { pwd; cat "$@"; } | sha256sum
}

# install ENV LOCK: everything that the lock file names, each file checked against its hash.
install() {
  if .venv/bin/python -m uv --version >/dev/null 2>&1; then
    .venv/bin/python -m uv pip install --quiet --compile-bytecode --python "$1/bin/python" --require-hashes -r "$2"
  else
    "$1/bin/python" -m pip install --quiet --require-hashes -r "$2"
  fi || fail "could not install $2 into $1 (see above): check the network and the free disk space, then run setup.sh again"
}

# create ENV: an empty environment, unless there is one already.
create() {
  local python
  [ -x "$1/bin/python" ] && return
  python=$(find_python)
  "$python" -m venv "$1" || fail "$python cannot make a virtual environment: install its venv module (Debian: python3.11-venv)"
}

make_main() {
  [ "$(stamp requirements/main.txt pyproject.toml)" = "$(cat .venv/.stamp 2>/dev/null)" ] && return
  echo "setup.sh: making .venv (some 3 GB to download the first time)"
  create .venv
  .venv/bin/python -m pip install --quiet --retries 1 --require-hashes -r requirements/uv.txt ||
    echo "setup.sh: uv cannot be installed, so pip does the work, more slowly" >&2
  install .venv requirements/main.txt
  .venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable . || fail "could not install asrcompress itself into .venv"
  stamp requirements/main.txt pyproject.toml > .venv/.stamp
}

make_k2() {
  "${K2_PYTHON:-.venv/bin/python}" -c 'import k2' 2>/dev/null && return
  [ "$(stamp requirements/k2.txt)" = "$(cat .venv-k2/.stamp 2>/dev/null)" ] && return
  echo "setup.sh: making .venv-k2 (some 2 GB to download the first time)"
  create .venv-k2
  install .venv-k2 requirements/k2.txt
  .venv-k2/bin/python -c 'import k2' || fail "k2 was installed into .venv-k2 but does not import (see above)"
  stamp requirements/k2.txt > .venv-k2/.stamp
}

make_main
make_k2
