# shellcheck shell=bash disable=SC2154
# Sourced by the recipes after models.sh: what is done to a model on its way to a device. exp/NAME/device/PRECISION/ holds
# model.onnx and tokens.txt, what they cost in each runtime (onnxruntime.json, greedy.json, HLG.json), and decode/.

# device_files: NAME/PRECISION of each file, the one first that the others are compared with.
device_files() {
  local name precision
  [ "$devices" != none ] || return 0
  echo dense/float32
  for name in ${devices:-dense $(models_done | grep "^svd-")}; do
    for precision in $precisions; do
      [ "$name/$precision" = dense/float32 ] || echo "$name/$precision"
    done
  done
}

export_device() {  # NAME PRECISION: the log-probabilities carry the acoustic scale that was chosen on held-out speakers
  local folder=exp/$1/device/$2 options=()
  need "exp/$1/.done" "run stages 4 to 6, or give other --devices"
  once "exp/$1/decode/dev" choose_scales "$1"
  [ "$2" != int8-static ] || options=(--calibrate-set "${train_sets%% *}")
  run export "exp/$1/model.packed" --lang "$lang" --out "$folder" --precision "$2" "${options[@]}" --batch1 \
    --data "$data" --set dev --acoustic-scale "$(json "exp/$1/decode/dev/best.json" acoustic_scale)" --beam "$device_beam"
  run measure "$folder" --against exp/dense/device/float32 --out "$folder/onnxruntime.json"
  run measure "$folder" --runtime sherpa-onnx --out "$folder/greedy.json"
  run measure "$folder" --runtime sherpa-onnx --graph "$graph/HLG.fst" --out "$folder/HLG.json"
}

decode_device() {  # NAME PRECISION: every test set, three searches, a row for each
  local file=exp/$1/device/$2 folder set
  for set in $test_sets; do
    folder=$file/decode/$set
    [ ! -f "$folder/.done" ] || continue
    run decode --model "$file" --data "$data" --set "$set" --ref "$data/$set.text" --lang "$lang" --out "$folder/greedy"
    if [ -f "$folder/greedy/hyp.txt" ]; then  # BPE: words come without a graph
      score_device "$1" "$2" "$set" greedy hyp.txt "$data/$set.text"
    else
      score_device "$1" "$2" "$set" greedy tokens.txt "$folder/greedy/ref.tokens.txt" --unit token
    fi
    run decode --model "$file" --data "$data" --set "$set" --graph "$graph/HLG.fst" --words "$lang/words.txt" \
      --out "$folder/HLG"
    score_device "$1" "$2" "$set" HLG hyp.txt "$data/$set.text"
    run posteriors --model "$file/model.onnx" --data "$data" --set "$set" --out "$folder/posteriors"
    search "$folder/posteriors" "$(json "exp/$1/decode/dev/best.json" acoustic_scale)" \
      "$(json "exp/$1/decode/dev/best.json" blank_penalty)" "$folder/tgsmall/hyp.txt"
    score_device "$1" "$2" "$set" tgsmall hyp.txt "$data/$set.text"
    rm "$folder/posteriors"
    touch "$folder/.done"
  done
}

score_device() {  # NAME PRECISION SET SEARCH HYP REF [OPTIONS]
  local file=exp/$1/device/$2 found=decode/$3/$4 info rows
  mapfile -t rows < "exp/$1/row"
  info=$file/$4.json
  if [ -f "$file/$found/decode.json" ]; then  # sherpa-onnx's speed on this test set
    rows+=("rtf=$(json "$file/$found/decode.json" rtf)")
  else
    info=$file/onnxruntime.json
  fi
  echo -n "$1, $2, $3, $4: "
  run score --ref "$6" --hyp "$file/$found/$5" --dense-hyp "exp/dense/device/float32/$found/$5" "${@:7}" \
    --out "$file/$found" --rows results.jsonl --packed "exp/$1/model.packed" --dense-packed exp/dense/model.packed \
    --model-info "$info" "${rows[@]/#/--row=}" "--row=command=$command" "--row=precision=$2" "--row=test_set=$3" \
    "--row=search=$4"
}
