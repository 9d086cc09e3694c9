#!/usr/bin/env bash
# The runs of docs/control_benchmark.md: what to guide, edit and control with. Scenes of one object at 32 pixels.
#
#   bash scripts/control.sh                                     # eight runs, two at a time: 40 minutes of two CPU cores
#   SCALE=0.01 ROOT=/tmp/tried bash scripts/control.sh          # a hundredth of each budget
#   bash scripts/control.sh report                              # then: what is measured of them, the figure and the tables
#
# Repeating either command continues where it was interrupted, and runs nothing twice. "young" is what is guided: the base
# draws what it is told without. "weak" is for autoguidance: half the channels and half the budget. "noisy" guides as a
# classifier, and chooses among candidates; "known" tells all sizes, colors and shapes apart, and a cross that no other
# run has seen: of its features FIDs are made. The two that are personal learn the cross from five pictures, with and
# without pictures of other shapes beside them.
set -euo pipefail
ROOT=${ROOT:-runs/control}                # a folder for each run
SCALE=${SCALE:-1}                         # of all budgets
EXAMPLES=${EXAMPLES:-240000}              # of the base
SLOTS=${SLOTS:-2}                         # trainings at a time, a core each
COUNT=${COUNT:-50}                        # pictures of each class, for "known"
# Captions of pictures that are to stay as they are: each shape three times, each color and size as often.
PRIOR=${PRIOR:-a small red square,a large blue circle,a small green triangle,a large purple ring,a large yellow square,\
a small white circle,a large red triangle,a small blue ring,a small yellow triangle,a large green circle,\
a small purple square,a large white ring}
N=${N:-100}                               # pictures that a number is measured on,
SEEDS=${SEEDS:-4}                         # with so many seeds,
EVALUATIONS=${EVALUATIONS:-80}            # each of so many evaluations of the network
RECORD=${RECORD:-docs/measured/control.json}
FIGURE=${FIGURE:-docs/images/control.png}
PYTHON=${PYTHON:-python}
export OMP_NUM_THREADS=1
common="trainer=cpu logger=[none] callbacks.evaluation.times=0 budget=examples"
scenes="data=shapes data.max_objects=1 data.batch_size=32"
diffusion="model=diffusion $scenes model.conditions=[label,caption] model.condition_dropout={label:0.5,caption:0.2} metrics=[]
  model.network.patch_size=2 model.network.dropout=0 model.network.attends_to_words=true
  model.objective.p_mean=-0.4 model.objective.p_std=1.5"
classes="data=image_folder data.root=$ROOT/pictures/train data.val_root=$ROOT/pictures/val data.folders_are_classes=true
  data.image_size=32"
concept="model=concept model.base=$ROOT/base model.word=sks data=captioned_folder data.root=$ROOT/pictures/concept
  data.val_root=$ROOT/pictures/concept data.image_size=32 data.batch_size=4 model/adapter=lora model.optimizer.lr=1e-3 metrics=[]"

budget() { awk -v n="$EXAMPLES" -v s="$SCALE" -v k="$1" 'BEGIN { b = int(n * s * k); print (b < 64 ? 64 : b) }'; }

train() {                                 # name, share of the budget, overrides: a run, unless it is finished
  local folder=$ROOT/$1 examples; examples=$(budget "$2"); shift 2
  if [ -e "$folder/summary.json" ]; then return; fi
  if [ -e "$folder/config.yaml" ]; then "$PYTHON" train.py run="$folder"; return; fi
  # shellcheck disable=SC2086
  "$PYTHON" train.py "$@" $common budget.value="$examples" folder="$folder"
}

one() {
  # shellcheck disable=SC2086
  case $1 in
    base)           train base 1 $diffusion ;;
    young)          train young 0.25 $diffusion ;;
    weak)           train weak 0.125 $diffusion model.network.channels=16 ;;
    noisy)          train noisy 0.25 model=classifier model/noise=uniform $scenes ;;
    known)          train known 0.25 model=classifier $classes ;;
    layout)         train layout 0.25 model=control model.base="$ROOT/base" model/hint=layout $scenes data.layout=true metrics=[] ;;
    personal)       train personal 0.025 $concept model.prior_weight=1 model.prior_samples=96 "model.prior_prompt=[$PRIOR]" ;;
    personal_alone) train personal_alone 0.025 $concept ;;
    *) echo "error: there is no run '$1'." >&2; return 2 ;;
  esac
}

all() { printf '%s\n' "$@" | xargs -P "$SLOTS" -I{} bash "$0" --one {}; }

report() {
  "$PYTHON" scripts/benchmark_control.py "$ROOT" --n "$N" --evaluations "$EVALUATIONS" --seeds "$SEEDS" --record "$RECORD"
  "$PYTHON" scripts/docs_control.py "$RECORD" "$FIGURE"
  if [ "$RECORD" = docs/measured/control.json ]; then "$PYTHON" scripts/docs_tables.py; fi
}

case ${1:-} in
  report) report ;;
  --one) one "$2" ;;
  "")
    mkdir -p "$ROOT"
    if [ ! -e "$ROOT/pictures/done" ]; then
      "$PYTHON" scripts/benchmark_control_pictures.py "$ROOT/pictures" --count "$COUNT"
      touch "$ROOT/pictures/done"
    fi
    export ROOT SCALE EXAMPLES COUNT PRIOR PYTHON
    all base young weak noisy known
    all layout personal personal_alone    # which are put on the base
    ;;
  *) echo "error: there is nothing called '$1'. Leave it out, or: bash scripts/control.sh report" >&2; exit 2 ;;
esac
