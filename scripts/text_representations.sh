#!/usr/bin/env bash
# What hidden states know of programs, docs/self_supervised.md: a masked language model and a transformer that predicts the
# next token, with the same network, data and FLOPs, and a network as it was made; three seeds, probed alike.
#
#   bash scripts/text_representations.sh              # 9 runs, two at a time: about twenty minutes of two CPU cores
#   SCALE=0.01 SEEDS=0 ROOT=/tmp/tried bash scripts/text_representations.sh        # a hundredth of each budget
#   bash scripts/text_representations.sh report       # then: the record and the table
#
# The same command again goes on where it was interrupted, and runs nothing twice.
set -euo pipefail
ROOT=${ROOT:-runs/text_representations}   # a folder for each model, and in it one for each seed
SCALE=${SCALE:-1}                         # of all budgets
SLOTS=${SLOTS:-2}                         # trainings at a time, a core each
SEEDS=${SEEDS:-0,1,2}
FLOPS=${FLOPS:-12000000000000}
PYTHON=${PYTHON:-python}
export OMP_NUM_THREADS=1
flops=$(awk -v n="$FLOPS" -v s="$SCALE" 'BEGIN { printf "%.0f", n * s }')
common="data=python_source data.batch_size=16 trainer=cpu logger=[none] callbacks=text callbacks.samples=null callbacks.evaluation.times=0
  callbacks.ema.half_life=2000 metrics=[text_probe] model.network.width=128 model.network.depth=4 model.network.num_heads=4"

of() {                                    # the overrides of a model
  case $1 in
    masked_language) echo "model=masked_language budget=flops budget.value=$flops" ;;
    transformer)     echo "model=transformer budget=flops budget.value=$flops" ;;
    random)          echo "model=masked_language model.optimizer.lr=0 budget=examples budget.value=16" ;;
    *) echo "error: there is no model '$1'." >&2; return 2 ;;
  esac
}

one() {                                   # a model and a seed
  local folder=$ROOT/$1/$2
  if [ -e "$folder/summary.json" ]; then return; fi
  if [ -e "$folder/config.yaml" ]; then "$PYTHON" train.py run="$folder"; return; fi
  # shellcheck disable=SC2046,SC2086
  "$PYTHON" train.py $common $(of "$1") seed="$2" folder="$folder"
}

case ${1:-} in
  report)
    "$PYTHON" scripts/record_runs.py "$ROOT" docs/measured/text_representations.json \
      --about "what hidden states know of Python programs, three seeds each, as many FLOPs"
    "$PYTHON" scripts/docs_tables.py
    ;;
  --one) one "$2" "$3" ;;
  "")
    mkdir -p "$ROOT"
    export ROOT SCALE FLOPS PYTHON
    for seed in ${SEEDS//,/ }; do for model in random masked_language transformer; do printf '%s\n' "$model $seed"; done; done |
      xargs -P "$SLOTS" -L1 bash "$0" --one
    ;;
  *) echo "error: '$1' is none of: report." >&2; exit 2 ;;
esac
