#!/usr/bin/env bash
# shellcheck disable=SC2034,SC2154
# The Wall Street Journal corpora (WSJ0, WSJ1): the study on which this toolkit builds. Two networks stand beside each
# other, six layers of p-norm units and four layers of 1000 ReLUs, each dense and with SVD after and during its training.
#
#   ./run.sh --wsj0 /ldc/LDC93S6B --wsj1 /ldc/LDC94S13B       train_si284, 81 h: days on two cores, a night with one SVD
#   ./run.sh --wsj0 /ldc/LDC93S6B --wsj1 /ldc/LDC94S13B --train-sets train_si84      15 h
#   ./run.sh --wsj0 ... --wsj1 ... --searches "greedy tgpr tg bd_tgpr bd_fg"         the big dictionary as well
#   ../../.venv/bin/python dress.py CORPUS discs && ./run.sh --wsj0 discs --wsj1 discs ...  no licence: other speech instead
#
# ./run.sh --help lists the options and the stages. A stage skips what is done; where that was done with other options it
# stops and says which.
set -euo pipefail
recipe=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=local/options.sh
. "$recipe/../../local/options.sh"
# shellcheck source=recipes/wsj/options.sh
. "$recipe/options.sh"

corpus_type=wsj
paths="wsj0 wsj1 lexicon bd_arpa"
train_sets=train_si284
test_sets="dev93 eval92"
held_out_minutes=60  # a speaker of WSJ1 has 17 minutes
searches="greedy tgpr tg"
smooth_lm=false  # the corpus's language models have no count cut-offs that would want it
model=tdnn_wsj6
controls="relu4=tdnn_relu4"
methods=svd
sizes=0.5
when="after during"
experiments="relu4-svd-0.5=distilled,size=0.5,from=relu4,teacher=relu4
  relu4-svd-0.5-during=during,model=tdnn_relu4,size=0.5,epochs={epochs}"
reference=$recipe/reference.csv

get_corpus() {
  # shellcheck disable=SC2046
  "$PYTHON" -m asrcompress.cli wsj --out data/corpus --sets "$train_sets $test_sets" --lms "${searches/greedy/}" --jobs "$nj" \
    ${wsj0:+--wsj0 "$wsj0"} ${wsj1:+--wsj1 "$wsj1"} ${lexicon:+--lexicon "$lexicon"} ${bd_arpa:+--bd-arpa "$bd_arpa"} \
    $([ "$partial" = false ] || echo --partial)
}

# shellcheck source=local/run_stages.sh
. "$recipe/../../local/run_stages.sh"
