#!/usr/bin/env bash
# The runs of docs/language_models.md, "Does it help?": a transformer of Python's documentation that starts from random
# weights, or from one of Python's source code, of which all weights are trained, an adapter (rank 4 or 16), or the head alone.
#
#   bash scripts/finetune.sh                              # 31 runs, two at a time: about 20 minutes of one CPU core
#   SCALE=0.01 ROOT=/tmp/tried bash scripts/finetune.sh   # a hundredth of each budget
#   bash scripts/finetune.sh report                       # then: tables, and plots with intervals over the seeds
#
# The initial weights are trained once, with seed 0; the seeds are those of the runs that are compared. All have the same
# number of examples; then, in other runs, the same number of FLOPs: as many as a training of all weights on these examples
# takes. The same command again goes on where it was interrupted, and runs nothing twice. Every run is measured EVERY times
# during training, by the same protocol. Learning rates are the best of 1e-3, 3e-3, 1e-2 and 3e-2 for each, with one seed.
set -euo pipefail
ROOT=${ROOT:-runs/finetune}       # below it examples/ and flops/: a folder for each kind, and in it one for each seed
SOURCE=${SOURCE:-$ROOT-source}    # the run that others begin with
SCALE=${SCALE:-1}                 # of all budgets
SLOTS=${SLOTS:-2}                 # trainings at a time, a core each
SEEDS=${SEEDS:-0,1,2}
EVERY=${EVERY:-8}                 # measurements of a run, spread over its budget
EXAMPLES=${EXAMPLES:-8000}        # windows of 64 bytes that a run is trained on
PRETRAIN=${PRETRAIN:-60000}       # and the run that others begin with
KINDS=${KINDS:-scratch full lora4 lora16 head}
OUT=${OUT:-$ROOT-report}
PYTHON=${PYTHON:-python}
export OMP_NUM_THREADS=1
common="trainer=cpu logger=[none] model=transformer model/network=llama model.network.width=64 data.batch_size=32"
common="$common callbacks.samples.times=0 model.schedule.warmup=500"
watched="callbacks.evaluation.times=$EVERY"

budget() { awk -v n="$1" -v s="$SCALE" 'BEGIN { b = int(n * s); print (b < 64 ? 64 : b) }'; }

train() {                         # folder, overrides: a run, unless it is finished
  local folder=$1; shift
  if [ -e "$folder/summary.json" ]; then return; fi
  if [ -e "$folder/config.yaml" ]; then "$PYTHON" train.py run="$folder"; return; fi
  "$PYTHON" train.py "$@" folder="$folder"
}

of() {                            # a kind: its overrides
  case $1 in
    scratch) echo "model.optimizer.lr=${LR:-1e-2}" ;;
    full)    echo "model.optimizer.lr=${LR:-3e-3} start=$SOURCE" ;;
    lora4)   echo "model.optimizer.lr=${LR:-1e-2} start=$SOURCE model/adapter=lora model.adapter.rank=4" ;;
    lora16)  echo "model.optimizer.lr=${LR:-1e-2} start=$SOURCE model/adapter=lora model.adapter.rank=16" ;;
    head)    echo "model.optimizer.lr=${LR:-1e-2} start=$SOURCE start.freeze=[network.embedding.*,network.blocks.*]" ;;
    *) echo "error: there is no kind '$1'." >&2; return 2 ;;
  esac
}

flops() {                         # of a training of all weights on the same examples
  "$PYTHON" -c 'import json, sys; print(json.load(open(sys.argv[1]))["flops"])' "$ROOT/examples/full/${SEEDS%%,*}/summary.json"
}

one() {                           # examples or flops, a kind, a seed
  local unit=$1 kind=$2 seed=$3 value
  if [ "$unit" = flops ]; then value=$(flops); else value=$(budget "$EXAMPLES"); fi
  # shellcheck disable=SC2046,SC2086
  train "$ROOT/$unit/$kind/$seed" $common $watched data=python_docs seed="$seed" budget="$unit" budget.value="$value" $(of "$kind")
}

each() {                          # examples or flops
  for seed in ${SEEDS//,/ }; do for kind in $KINDS; do echo "$1 $kind $seed"; done; done |
    xargs -P "$SLOTS" -L1 bash "$0" --one
}

report() {
  for unit in examples flops; do
    "$PYTHON" scripts/compare.py runs="$ROOT/$unit" out="$OUT/$unit"
    "$PYTHON" scripts/record_runs.py "$ROOT/$unit" "docs/measured/finetune_$unit.json" \
      --about "fine-tuning on Python's documentation, with an equal number of $unit"
  done
  "$PYTHON" scripts/docs_tables.py
}

case ${1:-} in
  report) report ;;
  --one) one "$2" "$3" "$4" ;;
  "")
    # shellcheck disable=SC2086
    train "$SOURCE" $common data=python_source seed=0 budget=examples budget.value="$(budget "$PRETRAIN")" \
      model.optimizer.lr=1e-2 callbacks.evaluation.times=0
    export ROOT SOURCE SCALE EVERY EXAMPLES PYTHON SEEDS
    each examples
    each flops
    ;;
  *) echo "error: '$1' is none of: report." >&2; exit 2 ;;
esac
