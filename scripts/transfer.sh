#!/usr/bin/env bash
# The runs of docs/transfer.md: a model of the digits 5 to 9 that starts from random weights, from those of a model of the
# digits 0 to 4, or, as a control, from those of a model of the same digits whose pixels were shuffled.
#
#   bash scripts/transfer.sh                              # 11 runs, two at a time
#   SCALE=0.01 ROOT=/tmp/tried bash scripts/transfer.sh   # a hundredth of each budget
#   bash scripts/transfer.sh report                       # then: tables, and plots with intervals over the seeds
#   MODEL="model=diffusion data.batch_size=32" EXAMPLES=10000 EVERY=5 ROOT=runs/transfer_diffusion bash scripts/transfer.sh
#   MODEL=model=gan FREEZE=discriminator.blocks.0.* EXAMPLES=200000 ROOT=runs/transfer_gan bash scripts/transfer.sh
#
# The initial weights are trained once, with seed 0; the seeds are those of the runs that are compared. The same
# command again goes on where it was interrupted, and runs nothing twice. Budgets are examples, and every run is
# measured EVERY times during training, by the same protocol.
set -euo pipefail
ROOT=${ROOT:-runs/transfer}       # a folder for each beginning, and in it one for each seed
SOURCES=${SOURCES:-$ROOT-sources} # the runs that others begin with
SCALE=${SCALE:-1}                 # of all budgets
SLOTS=${SLOTS:-2}                 # trainings at a time, a core each
SEEDS=${SEEDS:-0,1,2}
EVERY=${EVERY:-12}                # measurements of a run, spread over its budget
MODEL=${MODEL:-model=vae}
EXAMPLES=${EXAMPLES:-60000}       # of each run
FREEZE=${FREEZE:-}                # patterns of weights: also runs that keep those of the digits 0 to 4, as FreezeD does
OUT=${OUT:-$ROOT-report}
PYTHON=${PYTHON:-python}
export OMP_NUM_THREADS=1
common="trainer=cpu logger=[none] budget=examples data=digits data.batch_size=64 callbacks.samples.times=1 metrics=[fid] $MODEL"
watched="callbacks.evaluation.times=$EVERY callbacks.evaluation.num_samples=500 evaluation.num_samples=500"

budget() { awk -v n="$1" -v s="$SCALE" 'BEGIN { b = int(n * s); print (b < 128 ? 128 : b) }'; }

train() {                         # folder, overrides: a run, unless it is finished
  local folder=$1; shift
  if [ -e "$folder/summary.json" ]; then return; fi
  if [ -e "$folder/config.yaml" ]; then "$PYTHON" train.py run="$folder"; return; fi
  "$PYTHON" train.py "$@" folder="$folder"
}

source_of() {                     # name, overrides: a run that others begin with
  local name=$1; shift
  # shellcheck disable=SC2086
  train "$SOURCES/$name" $common "$@" seed=0 budget.value="$(budget "$EXAMPLES")" data.only_classes=[0,1,2,3,4] \
    callbacks.evaluation.times=0 evaluation.num_samples=500
}

one() {                           # how it begins, and a seed
  local named=$1 seed=$2 start="start=$SOURCES/$1"
  case $named in
    scratch) start="" ;;
    frozen) start="start=$SOURCES/digits start.freeze=[$FREEZE]" ;;
  esac
  # shellcheck disable=SC2086
  train "$ROOT/$named/$seed" $common $watched seed="$seed" budget.value="$(budget "$EXAMPLES")" \
    data.only_classes=[5,6,7,8,9] $start
}

report() { "$PYTHON" scripts/compare.py runs="$ROOT" out="$OUT" transfer=true; }

case ${1:-} in
  report) report ;;
  --one) one "$2" "$3" ;;
  "")
    source_of digits &
    source_of shuffled data.shuffle_pixels=0 &
    wait %1; wait %2
    export ROOT SOURCES SCALE EVERY MODEL EXAMPLES FREEZE PYTHON
    for seed in ${SEEDS//,/ }; do
      for named in scratch digits shuffled ${FREEZE:+frozen}; do printf '%s\n' "$named $seed"; done
    done |
      xargs -P "$SLOTS" -L1 bash "$0" --one
    ;;
  *) echo "error: '$1' is none of: report." >&2; exit 2 ;;
esac
