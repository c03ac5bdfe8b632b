#!/usr/bin/env bash
# The rows of a table: the TDNN that comes with the recipe, compressed in every way, part by part.
#
#   ./run.sh --corpus DIR --train-sets "train-clean-5 train-cv train-voices" --dir table --stop-stage 3   data, features, graphs
#   ./table.sh low_rank --corpus DIR --dir table    then a part, or all, with more options of run.sh; paths are from this folder
#
# One budget for each kind of row: what is compressed after training follows the dense model's posteriors for half an
# epoch; what starts from random numbers learns as long as the controls. What is done is not made again.
set -euo pipefail
cd "$(dirname "$0")"
parts=(dense low_rank displacement hashing untrained trained on_svd controls scratch)
part=${1-}
shift || true
more=("$@")

# rows OPTION...: the dense model, if it is not there yet, and what these options of run.sh ask for; all of it decoded.
rows() {
  ./run.sh --train-sets "train-clean-5 train-cv train-voices" --test-sets dev-clean-2 --searches "greedy tgsmall" \
    --dense-model tdnn/dense-int8.packed --epochs 12 --controls "" --methods "" --finetune-epoch-fraction 0.5 \
    --stage 4 --stop-stage 7 "$@" "${more[@]}"
}
after() { rows --methods "$1" --sizes "0.5 0.25 0.125 0.0625" "${@:2}"; }
experiments() { rows --methods "${methods-}" --sizes "0.5 0.25 0.125" --experiments "$*"; }

dense() { rows; }
low_rank() { after "svd svd,data_aware=true semi_orthogonal grouped tucker cp tensor_train"; }
# These two families keep little of a trained weight, so they learn at four times the rate.
displacement() { after "circulant toeplitz toeplitz_like ldr" --finetune-options training.optimizer.lr=2e-3; }
hashing() { after "hashed functional_hash frequency_hash multi_hash" --finetune-options training.optimizer.lr=2e-3; }
untrained() {
  experiments float16=quantized,quantization=float16,epochs=0 int8=quantized,quantization=int8,epochs=0 \
    int4=quantized,quantization=int4,epochs=0 trellis-4=quantized,quantization=trellis,quantization.bits=4,epochs=0 \
    trellis-3=quantized,quantization=trellis,quantization.bits=3,epochs=0 \
    trellis-2=quantized,quantization=trellis,quantization.bits=2,epochs=0 \
    target-10=target,target=1/10 target-20=target,target=1/20 target-40=target,target=1/40
}
trained() {
  local pruned=quantized,quantization=pruned,quantization.schedule=cubic,quantization.precision=float16,coder=relative_index
  experiments epr-2=epr,rate=2 epr-1.5=epr,rate=1.5 epr-1=epr,rate=1 epr-0.5=epr,rate=0.5 int4-trained=quantized,quantization=int4 \
    codebook-16=quantized,quantization=codebook,quantization.entries=16 codebook-8=quantized,quantization=codebook,quantization.entries=8 \
    codebook-4=quantized,quantization=codebook,quantization.entries=4 \
    deep-0.5=deep_compression,density=0.5,coder=range deep-0.33=deep_compression,density=0.33,coder=range \
    deep-0.2=deep_compression,density=0.2,coder=range \
    pruned-0.5="$pruned,quantization.density=0.5" pruned-0.25="$pruned,quantization.density=0.25" \
    budget-20=budget,target=1/20 budget-40=budget,target=1/40 budget-80=budget,target=1/80
}
on_svd() {
  methods=svd experiments svd-0.5-int8=quantized,from=svd-0.5,quantization=int8,epochs=0 \
    svd-0.25-int8=quantized,from=svd-0.25,quantization=int8,epochs=0 \
    svd-0.125-int8=quantized,from=svd-0.125,quantization=int8,epochs=0 svd-0.25-int4=quantized,from=svd-0.25,quantization=int4 \
    svd-0.5-epr-2=epr,from=svd-0.5,rate=2 svd-0.25-epr-2=epr,from=svd-0.25,rate=2
}
controls() {  # from scratch as the dense model was, and by its posteriors for as long
  rows --controls "half=tdnn_half quarter=tdnn_small eighth=tdnn_eighth sixteenth=tdnn_sixteenth"
  rows --scratch-criterion distillation \
    --controls "half-taught=tdnn_half quarter-taught=tdnn_small eighth-taught=tdnn_eighth sixteenth-taught=tdnn_sixteenth"
}
scratch() {
  rows --when scratch --sizes 0.25 \
    --methods "svd tensor_train hashed functional_hash frequency_hash multi_hash circulant toeplitz toeplitz_like ldr"
  rows --when during --sizes "0.5 0.25" --methods svd
}

case " ${parts[*]} " in
  *" $part "*) "$part" ;;
  *) [ "$part" = all ] || { echo "usage: $0 ${parts[*]} or all [OPTIONS OF run.sh]" >&2; exit 1; }
     for part in "${parts[@]}"; do "$part"; done ;;
esac
