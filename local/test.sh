#!/usr/bin/env bash
# Run the tests of both environments side by side and close with one line that sums them up.
# usage: local/test.sh [PYTEST-OPTION ...]      (`-m slow` for the slow ones, `-n 0` for one process without workers)
set -euo pipefail
cd "$(dirname "$0")/.."
. local/path.sh

# One worker a core, so one thread each: two torch threads that share a core wait for each other.
export OMP_NUM_THREADS=1

logs=$(mktemp -d)
trap 'jobs -p | xargs -r kill 2> /dev/null; rm -rf "$logs"' EXIT
failed_runs=0

# A run without any test counts as failed: that is what an environment in which k2 does not import looks like.
run() {
  local log=$logs/$1
  shift
  echo "+ ${*/#$PWD\//}"
  "$@" 2>&1 | tee "$log"
}

# sum WORD: the number before WORD in the closing lines of the logs, added up.
sum() {
  tail -qn 1 "$logs"/{main,k2} | grep -oE "[0-9]+ $1" | awk '{ total += $1 } END { print total + 0 }' || true
}

run k2 "$K2_PYTHON" -m pytest tests/fsa tests/decoding/test_archive.py "$@" > "$logs/k2.said" &
run main "$PYTHON" -m pytest tests --ignore=tests/fsa --numprocesses logical --maxprocesses 8 --dist worksteal "$@" || failed_runs=$((failed_runs + 1))
wait $! || failed_runs=$((failed_runs + 1))
cat "$logs/k2.said"

echo "$(sum passed) passed, $(($(sum failed) + $(sum errors?))) failed, $(sum skipped) skipped"
[ "$failed_runs" = 0 ]
