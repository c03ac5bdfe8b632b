#!/usr/bin/env bash
# shellcheck disable=SC2034
# LibriSpeech, mini (5 h) or full (960 h): from speech to a table of WER per compression level.
#
#   ./run.sh                                       mini LibriSpeech is downloaded into data/corpus
#   ./run.sh --corpus /corpora --stage 1           a folder with LibriSpeech/ and lm/
#   ./run.sh --mini false --epochs 12              the 960-hour corpus
#   ./run.sh --stage 6 --methods "svd svd,data_aware=true tensor_train" --sizes "0.5 0.25"
#   ./run.sh --stage 6 --experiments "int8=quantized,quantization=int8 deep=deep_compression,density=0.05"
#
# ./run.sh --help lists the options and the stages. A stage skips what is done; where that was done with other options it
# stops and says which.
set -euo pipefail
recipe=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=local/options.sh
. "$recipe/../../local/options.sh"

corpus_type=librispeech
model=tdnn
controls="tdnnf=tdnnf dense-small=tdnn_small"
methods=svd
sizes="0.5 0.25 0.125"

# shellcheck source=local/run_stages.sh
. "$recipe/../../local/run_stages.sh"
