#!/usr/bin/env bash
# shellcheck disable=SC2034
# The whole experiment in minutes, without a download: a synthesiser speaks a corpus of 40 minutes, which goes through the
# stages of every recipe with a small model. ./run.sh --help lists the options and the stages.
set -euo pipefail
recipe=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=local/options.sh
. "$recipe/../../local/options.sh"

corpus_type=librispeech  # the spoken corpus has LibriSpeech's layout
train_sets=train-quick
test_sets=dev-quick
held_out_minutes=4
model=tdnn_quick
controls=
epochs=12
sizes="0.5 0.25 0.1"
devices="dense svd-0.25"

get_corpus() {
  [ -f data/corpus/.done ] || "$PYTHON" -m asrcompress.cli synthesize --out data/corpus
}

# shellcheck source=local/run_stages.sh
. "$recipe/../../local/run_stages.sh"
