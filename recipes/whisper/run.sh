#!/usr/bin/env bash
# shellcheck disable=SC2034,SC2154
# OpenAI's Whisper, made small without training it anew: from its weights to a table of WER per compression level.
#
#   ./run.sh                                        Whisper tiny.en and mini LibriSpeech are downloaded
#   ./run.sh --model hf:FOLDER --corpus /corpora    weights in Hugging Face's form, and a folder with LibriSpeech/
#   ./run.sh --stage 2 --levels "int8=quantization=int8;sixth=--target 1/6"
#
# ./run.sh --help lists the options and the stages. A stage skips what is done; where that was done with other options it
# stops and says which.
set -euo pipefail
recipe=$(cd "$(dirname "$0")" && pwd)

model=hf:openai/whisper-tiny.en  # hf: and a folder or a name of the hub
corpus=            # the folder of the corpus; empty: mini LibriSpeech is downloaded into DIR/data/corpus
dir=               # data/, exp/ and the results go here; empty: the recipe's folder
train_sets=train-clean-5  # to calibrate and distil on; no transcripts of it are used
test_sets=dev-clean-2
language=en        # of Whisper of many languages
beam=1             # width of the search; 1: greedy
levels=            # NAME=WORDS of asrcompress compress, parted by ; - empty: those that this file lists
devices="dense:float32 int8:int8-dynamic"  # levels that become files for sherpa-onnx, and their precision
nj=2               # processes for features
redo=false         # make again what was made with other options; without it, a stage stops and says what differs
stage=0
stop_stage=100

help_message="usage: ./run.sh [--OPTION VALUE ...]\n
$(sed -n '/^model=/,/^stop_stage/s/^\([a-z_]*\)=/  --\1 /p' "${BASH_SOURCE[0]}" | tr _ -)\n
stages: 0 corpus, 1 features, 2 compression, 3 decoding, 4 device files, 5 report"
# shellcheck source=local/path.sh
. "$recipe/../../local/path.sh"
# shellcheck source=local/say_command.sh
. "$repo_root/local/say_command.sh"
command=$(say_command "$@")
# shellcheck source=local/parse_options.sh
. "$recipe/../../local/parse_options.sh"
[ -z "$corpus" ] || corpus=$(realpath -m "$corpus")
case $model in hf:*) [ ! -d "${model#hf:}" ] || model=hf:$(realpath "${model#hf:}") ;; esac
mkdir -p "${dir:=$recipe}" && cd "$dir"
asrcompress() { "$PYTHON" -m asrcompress.cli "$@"; }
between() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]; }
aware="structure=svd structure.data_aware=true size=0.9 quantization=int8 embeddings=int8 coder=range"
fine="structures=[dense] quantizations=[int8,trellis]"
taught="--distil 200 --distil-set ${train_sets%% *} --distil-minutes 20"
level_words=(
  "int8=quantization=int8 coder=range"
  "int4=quantization=int4 quantization.group=64 embeddings=int8 coder=range"
  "trellis-4=quantization=trellis quantization.bits=4 coder=range"
  "trellis-3=quantization=trellis quantization.bits=3 coder=range"
  "svd-aware=$aware"
  "svd-aware-taught=$aware $taught"
  "quarter=--target 1/4 $fine"
  "sixth=--target 1/6 $fine"
  "eighth=--target 1/8 $fine"
  "twelfth=--target 1/12 $fine"
)
[ -z "$levels" ] || readarray -td ';' level_words < <(printf %s "$levels")
sweep() {  # STAGE and what it alone is given
  local extra=("${@:2}")
  [ "$redo" = false ] || extra+=(--redo)
  asrcompress levels "$1" "$model" --data data --sets "$test_sets" --language "$language" --beam "$beam" \
    --command "$command" "${extra[@]}" --levels "${level_words[@]}"
}

words=(--corpus="${corpus:-data/corpus}" --corpus-type=librispeech --mini=true --train-sets="$train_sets" --test-sets="$test_sets" --nj="$nj")
if between 0 && [ -z "$corpus" ]; then
  asrcompress recipe download "${words[@]}"
fi
if between 1; then  # lhotse manifests; the held-out speakers of the training set are what is calibrated on
  asrcompress recipe prepare "${words[@]}"
fi
if between 2; then  # exp/LEVEL/model.packed
  sweep compress
fi
if between 3; then  # exp/LEVEL/SET: texts, score; results.jsonl
  sweep decode
fi
if between 4; then  # exp/LEVEL/device/PRECISION: encoder.onnx, decoder.onnx, tokens.txt; SET: what sherpa-onnx says
  for device in $devices; do
    sweep device --only "${device%%:*}" --precision "${device#*:}"
  done
fi
if between 5; then  # RESULTS.md, tables, the plot, and results.html to explore
  asrcompress report --rows results.jsonl --out . --html results.html --exp exp --title "Whisper"
fi
