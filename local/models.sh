# shellcheck shell=bash disable=SC2154
# Sourced by the recipes: one function for each thing that is done to a model. The variables are those of run.sh.
# exp/NAME/ holds a model: model.safetensors, model.packed, row (key=value lines that its result rows share), decode/.

fail() { echo "run.sh: $*" >&2; exit 1; }
need() { [ -e "$1" ] || fail "$1 is missing: $2"; }
run() { "$PYTHON" -m asrcompress.cli "$@"; }
texts() { for name in $train_sets; do echo "$data/$name.text"; done; }

# subsets PREFIX...: the folders PREFIX-* of the corpus, on one line.
subsets() {
  local prefix folder
  for prefix in "$@"; do
    for folder in "$corpus/LibriSpeech/$prefix"-*/; do
      [ ! -d "$folder" ] || echo -n "$(basename "$folder") "
    done
  done
}

# smooth_lms: the language models of the corpus, for the training text, into LANG/lm/smooth; smoothed ARPA: that file if made.
smooth_lms() {
  local one texts only=()
  mapfile -t texts < <(texts)
  case $smooth_lm in
    auto) only=(--if-cut) ;;
    true) ;;
    *) fail "--smooth-lm is true, false or auto, not '$smooth_lm'" ;;
  esac
  for one in "$small" "$large"; do
    [ ! -f "$one" ] || run ngram --arpa "$one" --smooth "${texts[@]}" --utterance-ids "${only[@]}" \
      --out "$lang/lm/smooth/$(basename "${one%.gz}")"
  done
}
smoothed() {
  local made
  made=$lang/lm/smooth/$(basename "${1%.gz}")
  if [ "$smooth_lm" != false ] && [ -f "$made" ]; then echo "$made"; else echo "$1"; fi
}

# once FOLDER COMMAND...: run it unless FOLDER/.done is there; the marker comes last.
once() {
  local folder=$1
  shift
  if [ ! -f "$folder/.done" ]; then
    mkdir -p "$folder"
    "$@"
    touch "$folder/.done"
  fi
}

train() {  # NAME, then options of asrcompress train
  local name=$1 sets=${train_sets% }
  shift
  run train --data "$data" --lang "$lang" --out "exp/$name" "$@" "train_sets=[${sets// /,}]" "seed=$seed"
  run packed save --model "exp/$name/model.safetensors" --out "exp/$name/model.packed"
}

# describe NAME KEY=VALUE...: what every result row of the model says.
describe() {
  local name=$1
  shift
  printf '%s\n' "name=$name" quantization=float32 coder=raw "seed=$seed" "train_set=${train_sets% }" "command=$command" \
    "train_seconds=$(json "exp/$name/train.json" train_seconds)" "$@" > "exp/$name/row"
}

json() { "$PYTHON" -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$1" "$2"; }

# criterion_of NAME: the overrides of a criterion.
criterion_of() {
  echo "criterion=$1"
  [ "$1" != distillation ] || printf '%s\n' "criterion.teacher=$PWD/exp/dense/model.safetensors" training.ctc_epochs=0
}

# small COMMAND...: run it with the budget of small models that are trained from the start.
small_options=()
small() {
  local epochs=${scratch_epochs:-$epochs} criterion=${scratch_criterion:-$criterion} small_options
  read -ra small_options <<< "$scratch_options"
  "$@"
}

train_scratch() {  # NAME MODEL
  local overrides
  mapfile -t overrides < <(criterion_of "$criterion")
  train "$1" "model=$2" "${overrides[@]}" "training.epochs=$epochs" "${small_options[@]}"
  local structure=dense
  grep -q bottleneck "$repo_root/conf/model/$2.yaml" && structure=semi_orthogonal
  describe "$1" "model=$2" "structure=$structure" "when=$([ "$1" = dense ] && echo none || echo scratch)" size=1.0
}

# compress_WHEN METHOD SIZE, for each WHEN of --when: one model, or one for each --schedule.
compress_after() { once "exp/$1-$2" compress_finetune "$1" "$2"; }
compress_scratch() { once "exp/$1-$2-scratch" small train_small "$1-$2-scratch" scratch "$1" "$2" scratch; }
compress_during() {
  local one name
  for one in $schedule; do
    name=$1-$2-during
    [ "$one" = truncate ] || name+=-$one
    once "exp/$name" small train_small "$name" during "$1" "$2" "$one"
  done
}

compress_finetune() {  # METHOD SIZE
  local name=$1-$2 overrides options calibrate=()
  need exp/dense/.done "run stage 4"
  ! grep -q "data_aware: true" "$repo_root/conf/structure/$1.yaml" ||
    calibrate=(--calibrate "$data" --calibrate-set "${train_sets%% *}")
  run compress --model exp/dense/model.safetensors --out "exp/$name/init.safetensors" "${calibrate[@]}" \
    "structure=$1" "budget.size=$2"
  mapfile -t overrides < <(criterion_of "$finetune_criterion")
  read -ra options <<< "$finetune_options"
  train "$name" --init "exp/$name/init.safetensors" training=finetune "${overrides[@]}" \
    "training.epochs=$finetune_epochs" "training.epoch_fraction=$finetune_share" "${options[@]}"
  describe "$name" "model=$model" "structure=$1" when=after "size=$2"
}

train_small() {  # NAME WHEN METHOD SIZE SCHEDULE: a whole training
  local overrides
  mapfile -t overrides < <(criterion_of "$criterion")
  train "$1" "model=$model" "${overrides[@]}" "training.epochs=$epochs" "structure=$3" "budget.size=$4" "during=$5" \
    "${small_options[@]}"
  describe "$1" "model=$model" "structure=$3" "when=$2" "size=$4"
}

# NAME=EXPERIMENT[,from=OTHER][,KEY=VALUE...]: a pipeline of conf/experiment, with its keys (new ones: +options.group=64), from
# exp/OTHER (the dense model)
experiment() {
  local name=${1%%=*} parts part from=dense keys=()
  IFS=, read -ra parts <<< "${1#*=}"
  for part in "${parts[@]:1}"; do
    [[ $part == from=* ]] && from=${part#from=} || keys+=("$part")
  done
  need "exp/$from/.done" "name a model of exp/ after from="
  once "exp/$name" run_experiment "$name" "$from" "experiment=${parts[0]}" "${keys[@]}"
}

run_experiment() {  # NAME OTHER experiment=EXPERIMENT KEY=VALUE...
  local name=$1 from=$2 sets=${train_sets% } keys=("${@:4}") overrides options
  mapfile -t overrides < <(criterion_of "$finetune_criterion")
  read -ra options <<< "$finetune_options"
  keys=("${keys[@]/#/experiment.}")
  run experiment --data "$data" --lang "$lang" --model "exp/$from/model.safetensors" --out "exp/$name" \
    --dense exp/dense/model.safetensors "$3" "${keys[@]/#experiment.+/+experiment.}" "seed=$seed" \
    --train "${overrides[@]}" "training.epoch_fraction=$finetune_share" "train_sets=[${sets// /,}]" \
    "${options[@]}"
  describe "$name" "model=$model" when=after "structure=$(json "exp/$name/train.json" structure)" \
    "values=$(json "exp/$name/train.json" values)" "bits=$(json "exp/$name/train.json" bits)" \
    "size=$(json "exp/$name/train.json" size)"
}

models_done() {
  local model_done
  for model_done in exp/*/.done; do
    basename "$(dirname "$model_done")"
  done
}

# choose_scales NAME: on held-out speakers of the training data. Each model has its own: what was trained otherwise, or has
# lost numbers, is not as sure of itself.
choose_scales() {
  local sweep=exp/$1/decode/dev
  run posteriors --model "exp/$1/model.packed" --data "$data" --set dev --out "$sweep/posteriors"
  mkdir -p "$sweep/sweep"  # a folder, however few scales there are
  search "$sweep/posteriors" "$scales" "$blank_penalties" "$sweep/sweep"
  run score --ref "$data/dev.text" --sweep "$sweep/sweep" --out "$sweep/best.json"
}

# choose_lm_scale: of the large language model, for the dense model and with it for every model.
choose_lm_scale() {
  local sweep=exp/dense/decode/dev
  mkdir -p $sweep/large
  search $sweep/posteriors "$(json $sweep/best.json acoustic_scale)" "$(json $sweep/best.json blank_penalty)" $sweep/large \
    --rescore "$graph/G.npz" --lm-scale "$lm_scales"
  run score --ref "$data/dev.text" --sweep $sweep/large --out $sweep/large/best.json
}

search() {  # ARCHIVE SCALES BLANK_PENALTIES OUT [OPTIONS]
  "$K2_PYTHON" -m asrcompress.cli search --archive "$1" --graph "$graph/HLG.npz" --words "$lang/words.txt" \
    --acoustic-scale "$2" "--blank-penalty=$3" --max-active "$max_active" --nj "$nj" --out "${@:4}"
}

# The searches of decode_model, with its variables.
posteriors() {
  [ -f "$at/posteriors" ] ||
    run posteriors --model "exp/$name/model.packed" --data "$data" --set "$set" --out "$at/posteriors"
}
decode_greedy() {
  posteriors
  run greedy --archive "$at/posteriors" --lang "$lang" --ref "$data/$set.text" --out "$at/greedy"
  if [ -f "$at/greedy/hyp.txt" ]; then  # BPE: words come without a graph
    score "$name" "$set" greedy --ref "$data/$set.text" --hyp "$at/greedy/hyp.txt"
  else
    score "$name" "$set" greedy --ref "$at/greedy/ref.tokens.txt" --hyp "$at/greedy/tokens.txt" --unit token
  fi
}
decode_tgsmall() {
  posteriors
  search "$at/posteriors" "$scale" "$penalty" "$at/tgsmall/hyp.txt"
  score "$name" "$set" tgsmall --ref "$data/$set.text" --hyp "$at/tgsmall/hyp.txt"
}
decode_tglarge() {
  posteriors
  search "$at/posteriors" "$scale" "$penalty" "$at/tglarge/hyp.txt" \
    --rescore "$graph/G.npz" --lm-scale "$(json exp/dense/decode/dev/large/best.json lm_scale)"
  score "$name" "$set" tglarge --ref "$data/$set.text" --hyp "$at/tglarge/hyp.txt"
}

decode_model() {  # NAME: every test set, every search, a row for each
  local name=$1 at scale penalty set kind
  once "exp/$name/decode/dev" choose_scales "$name"
  [[ -z $large || " $searches " != *" tglarge "* ]] || once exp/dense/decode/dev/large choose_lm_scale
  scale=$(json "exp/$name/decode/dev/best.json" acoustic_scale)
  penalty=$(json "exp/$name/decode/dev/best.json" blank_penalty)
  [ -f "exp/$name/info.json" ] || run measure "exp/$name/model.packed" --out "exp/$name/info.json"
  for set in $test_sets; do
    at=exp/$name/decode/$set
    for kind in $searches; do
      [[ $kind =~ ^(greedy|tgsmall|tglarge)$ ]] || fail "--searches is any of greedy, tgsmall and tglarge, not '$kind'"
      [ "$kind" != tglarge ] || [ -n "$large" ] || continue
      once "$at/$kind" "decode_$kind"
    done
    rm -f "$at/posteriors"
  done
}

score() {  # NAME SET SEARCH, then options of asrcompress score
  local name=$1 set=$2 kind=$3 rows dense
  shift 3
  mapfile -t rows < "exp/$name/row"
  dense=exp/dense/decode/$set/$kind/$(basename "${@: -1}")
  [[ " $* " != *" --unit token "* ]] || dense=exp/dense/decode/$set/$kind/tokens.txt
  echo -n "$name, $set, $kind: "
  run score "$@" --dense-hyp "$dense" --out "exp/$name/decode/$set/$kind" --rows results.jsonl --packed "exp/$name/model.packed" \
    --dense-packed exp/dense/model.packed --model-info "exp/$name/info.json" "${rows[@]/#/--row=}" \
    "--row=test_set=$set" "--row=search=$kind"
}
