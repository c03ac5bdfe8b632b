# shellcheck shell=bash disable=SC2034
# Sourced by the recipes: every option with its default. A recipe sets what it has otherwise before it sources run_stages.sh.
stage=0
stop_stage=100
corpus=            # the folder of the corpus; empty: made or downloaded in DIR/data/corpus
corpus_type=librispeech  # module of asrcompress/data/corpora that reads it
mini=true          # of LibriSpeech: true for mini LibriSpeech (5 h), false for the 960-hour corpus
dir=               # data/, exp/ and the results go here; empty: the recipe's folder
train_sets=        # empty: those of the corpus
test_sets=         # empty: those of the corpus
held_out_minutes=15  # speakers of the first training set that are kept for tuning
unit=phone         # phone or bpe
vocab_size=500     # BPE tokens
smooth_lm=auto     # fit how far each order of the corpus's language models is trusted to the training text: true, false, or
                   # auto (where count cut-offs left n-grams of probability 0)
model=tdnn         # conf/model: the model whose compression is the table
dense_model=       # a model file or packed file that is the dense model, trained before; empty: it is trained
dense_init=        # a model file or packed file from which the dense model is trained on, for --epochs more; empty: random numbers
controls="tdnnf=tdnnf dense-small=tdnn_small"  # NAME=MODEL, trained from scratch beside it
criterion=         # ctc, or lfmmi (an epoch of CTC, then LF-MMI); empty: lfmmi for phones, ctc for BPE
epochs=8           # of every model that is trained from scratch
train_options=     # further overrides of conf/train.yaml for all trainings
methods=svd        # conf/structure, with options, also of the budget: "svd svd,data_aware=true svd,budget=alds"
sizes="0.5 0.25 0.125"  # stored parameters of the compressed model over those of the dense one
when=after         # any of: after (the dense model, then fine-tuned), during (its training), scratch (small from the start)
schedule=truncate  # conf/schedule: how a model gets small during its training: truncate, trace_norm, pull
finetune_criterion=distillation  # of every model compressed after its training: one of conf/criterion; a teacher is the dense model, unless finetune_options name one
finetune_epochs=1
finetune_epoch_fraction=1.0  # of the utterances that each of these epochs takes
finetune_options=  # further overrides of conf/train.yaml for these trainings, e.g. training.optimizer.lr=2e-3
scratch_criterion=  # of small models trained from the start (controls, --when during and scratch); empty: as the dense one
scratch_epochs=    # of those; empty: as many as the dense one
scratch_options=   # further overrides of conf/train.yaml for these trainings, e.g. training.epoch_fraction=0.5
experiments=       # NAME=EXPERIMENT[,from=OTHER][,KEY=VALUE...]: pipelines of conf/experiment, with options of their methods:
                   # "int4=quantized,quantization=int4,quantization.group=64"; {epochs} stands for --epochs
scales=1.0,1.1,1.2,1.35,1.5,1.8,2.2  # acoustic scales tried on the held-out speakers, for each model
max_active=3000    # states that the search keeps a frame, as in sherpa-onnx
decode=            # models of exp/ that stage 7 decodes; empty: all of them
decode_parts=1     # of each test set, which with a launcher are jobs of their own
searches=          # greedy, and names of the corpus's searches; empty: all of them (LibriSpeech: "greedy tgsmall tglarge")
lm_scales=0.8,0.9,1.0,1.1,1.2,1.4,1.6  # scales of a language model that rescores, tried there
blank_penalties=0  # taken from the blank's log-posterior in searches (not in device files); several, such as 0,0.5,1, are tried there
devices=           # models of exp/ taken to the device; empty: dense and every svd-*; none: no model
precisions="float32 int8-dynamic"  # of the device files: what asrcompress export --precision takes
device_beam=20     # search beam over HLG on the device
seed=0
seeds=             # of the controls and the compressed models: "0 1 2" makes each of them three times, NAME-seed1 with seed 1
nj=2               # processes for features and search
launcher=local     # where the jobs of stages 4 to 7 run: local, ray or slurm
launcher_options=  # of ray: "address=auto cpus=4 gpus=1"; of slurm: "partition=gpu time=600 cpus_per_task=4 gpus_per_node=1 mem=16GB"
jobs=1             # of these stages at a time; with ray and slurm at most so many
dry_run=false      # of stages 4 to 7 only: print the jobs and the hours that they may take
redo=false         # make again what was made with other options; without it, a stage stops and says what differs
note=              # a sentence about the test sets, printed in RESULTS.md
reference=         # CSV file with figures published elsewhere, printed beside the results
