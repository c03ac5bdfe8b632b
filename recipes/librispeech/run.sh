#!/usr/bin/env bash
# From speech to a table of WER per compression level: data, lang, graphs, training, compression, decoding, device files,
# report.
# Every stage skips what is done already; run a part again with --stage N --stop-stage M (and remove its .done files).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

stage=0
stop_stage=100
corpus=            # a folder with LibriSpeech/ and lm/; empty: download into DIR/data/corpus
mini=true          # true: mini LibriSpeech (5 h); false: the 960-hour corpus
dir=$here          # data/, exp/ and the results go here
train_sets=        # empty: every train-* of a mini corpus, or the three official sets of the full one
test_sets=         # empty: every dev-* and test-* of a mini corpus, or the four official sets
held_out_minutes=15  # speakers of the first training set that are kept for tuning
unit=phone         # phone or bpe
vocab_size=500     # BPE tokens
smooth_lm=auto     # fit how far each order of the corpus's language models is trusted to the training text: true, false, or
                   # auto (where count cut-offs left n-grams of probability 0)
model=tdnn         # conf/model/*.yaml: the model whose compression is the table
controls="tdnnf=tdnnf dense-small=tdnn_small"  # NAME=MODEL, trained from scratch beside it
criterion=         # ctc, or lfmmi (an epoch of CTC, then LF-MMI); empty: lfmmi for phones, ctc for BPE
epochs=8           # of every model that is trained from scratch
methods="svd"      # conf/structure/*.yaml
sizes="0.5 0.25 0.125"  # stored numbers of the compressed model over those of the dense one
when=after         # any of: after (the dense model, then fine-tuned), during (its training), scratch (small from the start)
schedule=truncate  # conf/during/*.yaml: how a model gets small during its training: truncate, trace_norm
finetune_criterion=distillation  # of every model compressed after its training: distillation (from the dense model), ctc, lfmmi
finetune_epochs=1
finetune_share=1.0  # of the utterances that each of these epochs takes
finetune_options=  # further overrides of conf/train.yaml for these trainings, e.g. training.optimizer.lr=2e-3
scratch_criterion=  # of small models trained from the start (controls, --when during and scratch); empty: as the dense one
scratch_epochs=    # of those; empty: as many as the dense one
scratch_options=   # further overrides of conf/train.yaml for these trainings, e.g. training.epoch_fraction=0.5
experiments=       # NAME=EXPERIMENT[,from=OTHER][,KEY=VALUE...]: pipelines of conf/experiment, e.g. "int8=written,quantization=int8"
scales=1.0,1.5,2.2  # acoustic scales tried on the held-out speakers, for each model
max_active=3000    # states that the search keeps a frame, as in sherpa-onnx
decode=            # models of exp/ that stage 7 decodes; empty: all of them
searches="greedy tgsmall tglarge"  # the last one only where the corpus brings a large language model
lm_scales=0.8,1.0,1.2,1.6  # scales of the large language model tried there
blank_penalties=0  # taken from the blank's log-posterior; several, such as 0,0.5,1, are tried there
devices=           # models of exp/ taken to the device; empty: dense and every svd-*; none: no model
precisions="float32 int8-dynamic"  # of the device files: what asrcompress export --precision takes
device_beam=20     # search beam over HLG on the device
seed=0
nj=2               # processes for features and search
note=              # a sentence about the test sets, printed in RESULTS.md

help_message="usage: ./run.sh [--OPTION VALUE ...]\n
$(sed -n '/^stage=/,/^note=/p' "$0" | sed 's/^\([a-z_]*\)=/  --\1 /; :a; s/^\(  --[a-z-]*\)_/\1-/; ta')\n
stages: 0 corpus, 1 features, 2 lang, 3 graphs, 4 dense model, 5 controls, 6 compression, 7 decoding,
        8 device files, 9 decoding in sherpa-onnx, 10 report"
command=./run.sh  # what result rows say: quoted where it must be
for word in "$@"; do
  [[ $word == *" "* || -z $word ]] && command+=" \"$word\"" || command+=" $word"
done
# shellcheck source=local/parse_options.sh
. "$here/../../local/parse_options.sh"
# shellcheck source=local/path.sh
. "$here/../../local/path.sh"
# shellcheck source=local/models.sh
. "$here/../../local/models.sh"
# shellcheck source=local/device.sh
. "$here/../../local/device.sh"
command=${command/--corpus $corpus/--corpus CORPUS}  # paths of this machine help nobody
command=${command/ --dir $dir/}
corpus=${corpus:+$(realpath -m "$corpus")}
mkdir -p "$dir"
cd "$dir"

criterion=${criterion:-$([ "$unit" = phone ] && echo lfmmi || echo ctc)}
data=data lang=data/lang_$unit graph=data/graph_$unit
between() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]; }

if between 0 && [ -z "$corpus" ]; then  # with --corpus there is nothing to fetch
  run prepare --corpus data/corpus --download "$([ "$mini" = true ] && echo mini || echo full)" --out $data
fi
corpus=${corpus:-data/corpus}
if [ "$mini" = true ]; then
  train_sets=${train_sets:-$(subsets train)} test_sets=${test_sets:-$(subsets dev test)}
else
  train_sets=${train_sets:-train-clean-100 train-clean-360 train-other-500}
  test_sets=${test_sets:-dev-clean dev-other test-clean test-other}
fi
[ -n "$train_sets" ] && [ -n "$test_sets" ] ||
  fail "$corpus/LibriSpeech holds no train-* and dev-* or test-* folders; give another --corpus, or --train-sets and --test-sets"

if between 1; then  # lhotse manifests and log-mel features, three speeds for training
  run prepare --corpus "$corpus" --train-sets "$train_sets" --test-sets "$test_sets" --jobs "$nj" \
    --held-out-minutes "$held_out_minutes" --out $data
fi

small=$corpus/lm/3-gram.pruned.3e-7.arpa.gz large=$corpus/lm/3-gram.arpa.gz
if between 2; then  # tokens, lexicon, words; and a trigram of the training text where the corpus brings none
  need "$corpus/lm/librispeech-lexicon.txt" "put the lexicon there"
  mapfile -t texts < <(texts)
  once $lang run lang --unit "$unit" --vocab-size "$vocab_size" --lexicon "$corpus/lm/librispeech-lexicon.txt" \
    --text "${texts[@]}" --out $lang
  [ -f "$small" ] || once $lang/lm run ngram --utterance-ids --text "${texts[@]}" --words $lang/words.txt \
    --out $lang/lm/3-gram.arpa
  [ "$smooth_lm" = false ] || once $lang/lm/smooth smooth_lms
fi
[ -f "$small" ] || { small=$lang/lm/3-gram.arpa; large=; }
[ -f "$large" ] || large=
small=$(smoothed "$small") large=$(smoothed "$large")

graphs() { "$K2_PYTHON" -m asrcompress.cli graph --lang $lang --arpa "$small" ${large:+--large "$large"} --out $graph "$@"; }
if between 3; then  # HLG of the small language model, G of the large one
  need $lang/.done "run stage 2"
  graphs
fi

if between 4; then  # the dense model
  need $lang/.done "run stage 2"
  once exp/dense train_scratch dense "$model"
fi

if between 5; then  # models trained from scratch to stand beside the compressed ones
  for control in $controls; do
    once "exp/${control%%=*}" small train_scratch "${control%%=*}" "${control#*=}"
  done
fi

if between 6; then  # every method at every size, compressed after training, during it, or trained small from scratch
  for one in $when; do
    declare -F "compress_$one" > /dev/null || fail "--when is any of after, during and scratch, not '$one'"
    for method in $methods; do
      for size in $sizes; do
        "compress_$one" "$method" "$size"
      done
    done
  done
  for one in $experiments; do
    need exp/dense/.done "run stage 4"
    experiment "$one"
  done
fi

if between 7; then  # greedy, tgsmall and tglarge over the packed file of every model
  need $graph/HLG.npz "run stage 3"
  need exp/dense/.done "run stage 4"
  for name in dense ${decode:-$(models_done)}; do
    need "exp/$name/.done" "run stages 4 to 6, or give other names to --decode"
    decode_model "$name"
  done
fi

if between 8 && [ "$devices" != none ]; then  # ONNX files that agree with torch, and what they cost in their runtimes
  need $graph/HLG.npz "run stage 3"
  graphs --device-fst --device-beam "$device_beam"
  for file in $(device_files); do
    once "exp/${file%/*}/device/${file#*/}" export_device "${file%/*}" "${file#*/}"
  done
fi

if between 9; then  # greedy and HLG in sherpa-onnx, and k2's search over the posteriors of the same file
  for file in $(device_files); do
    need "exp/${file%/*}/device/${file#*/}/.done" "run stage 8"
    decode_device "${file%/*}" "${file#*/}"
  done
fi

if between 10; then
  run report --rows results.jsonl --out . --note "$note"
fi
