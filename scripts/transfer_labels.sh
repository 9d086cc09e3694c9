#!/usr/bin/env bash
# Few labels, docs/transfer.md: classifiers of five classes of CIFAR-10 pictures that are told 1 %, 10 % or all of the
# labels, and begin with random weights or with a network that learned from pictures of the other five classes.
#
#   DATA=/my/cifar10 bash scripts/transfer_labels.sh           # train/<class>/ and test/<class>/; 39 runs, two at a time
#   SCALE=0.01 SEEDS=0 DATA=/my/cifar10 ROOT=/tmp/tried bash scripts/transfer_labels.sh    # a hundredth of each budget
#   DATA=/my/cifar10 bash scripts/transfer_labels.sh report    # then: tables, and plots with intervals over the seeds
#
# A run begins with: scratch, random weights; ssl, SimCLR without labels; supervised, a classifier; shuffled, the
# control: a classifier of labels that say nothing of the pictures. These three see the same pictures as often. What runs
# begin with is trained once, with seed 0; the seeds are those of the runs that are compared, which all see equally many
# examples, however few are different ones. The same command again goes on where it was interrupted, and runs nothing
# twice.
set -euo pipefail
ROOT=${ROOT:-runs/transfer_labels}        # a folder for each share of labels and beginning, and in it one for each seed
SOURCES=${SOURCES:-$ROOT-sources}         # the runs that others begin with
SCALE=${SCALE:-1}                         # of all budgets
SLOTS=${SLOTS:-2}                         # trainings at a time, a core each
SEEDS=${SEEDS:-0,1,2}
PICTURES=${PICTURES:-50,500,5000}         # of each class, with their labels: 1 %, 10 % and all
STARTS=${STARTS:-scratch,ssl,supervised,shuffled}
EVERY=${EVERY:-6}                         # measurements of a run, spread over its budget
OUT=${OUT:-$ROOT-report}
PYTHON=${PYTHON:-python}
: "${DATA:?Name a folder of pictures: DATA=/my/cifar10, with train/<class>/ and test/<class>/ in it.}"
export OMP_NUM_THREADS=1
common="data=image_folder data.root=$DATA/train data.val_root=$DATA/test data.folders_are_classes=true data.batch_size=128 trainer=cpu logger=[none]
  callbacks.ema.half_life=5000 evaluation.reference=val budget=examples"
network="model/network=resnet18 model.network.width=8"

budget() { awk -v n="$1" -v s="$SCALE" 'BEGIN { b = int(n * s); print (b < 256 ? 256 : b) }'; }

train() {                                 # folder, overrides: a run, unless it is finished
  local folder=$1; shift
  if [ -e "$folder/summary.json" ]; then return; fi
  if [ -e "$folder/config.yaml" ]; then "$PYTHON" train.py run="$folder"; return; fi
  "$PYTHON" train.py "$@" folder="$folder"
}

source_of() {                             # name, overrides: a run that others begin with
  local name=$1; shift
  # shellcheck disable=SC2086
  train "$SOURCES/$name" $common "$@" data.only_classes=[0,1,2,3,4] seed=0 metrics=[] \
    callbacks.evaluation.times=0 budget.value="$(budget 110000)"
}

labelled() {                              # overrides: a classifier that others begin with
  # shellcheck disable=SC2086
  source_of "$@" model=classifier $network data.flip=true
}

one() {                                   # pictures of each class, how it begins, and a seed
  local pictures=$1 named=$2 seed=$3 start=""
  if [ "$named" != scratch ]; then start="start=$SOURCES/$named start.only=[network.*]"; fi
  # shellcheck disable=SC2086
  train "$ROOT/$pictures-$named/$seed" model=classifier $network $common $start data.per_class="$pictures" \
    data.flip=true data.only_classes=[5,6,7,8,9] seed="$seed" metrics=[accuracy] callbacks.evaluation.times="$EVERY" \
    budget.value="$(budget 40000)"
}

case ${1:-} in
  report) "$PYTHON" scripts/compare.py runs="$ROOT" out="$OUT" transfer=true ;;
  --one) one "$2" "$3" "$4" ;;
  "")
    mkdir -p "$SOURCES"
    source_of ssl model=contrastive model/encoder=resnet18 model.encoder.width=8 model.views.first.blur=0 & first=$!
    { labelled supervised && labelled shuffled data.shuffle_labels=0; } & second=$!
    wait $first; wait $second
    export ROOT SOURCES SCALE EVERY DATA PYTHON
    for seed in ${SEEDS//,/ }; do
      for pictures in ${PICTURES//,/ }; do
        for named in ${STARTS//,/ }; do printf '%s\n' "$pictures $named $seed"; done
      done
    done | xargs -P "$SLOTS" -L1 bash "$0" --one
    ;;
  *) echo "error: '$1' is none of: report." >&2; exit 2 ;;
esac
