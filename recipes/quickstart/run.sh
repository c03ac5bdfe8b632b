#!/usr/bin/env bash
# The whole experiment in minutes, without a download: a corpus spoken by a synthesiser goes through the recipe of
# ../librispeech with a small model. Every option of that recipe may be given here too (see --help).
set -euo pipefail
cd "$(dirname "$0")"
. ../../local/path.sh

[ -f data/corpus/.done ] || "$PYTHON" -m asrcompress.cli synthesize --out data/corpus

exec ../librispeech/run.sh --corpus "$PWD/data/corpus" --dir "$PWD" \
  --train-sets train-quick --test-sets dev-quick --held-out-minutes 4 --model tdnn_quick --epochs 12 \
  --sizes "0.5 0.25 0.1" --controls "" --devices "dense svd-0.25" --unit phone "$@"
