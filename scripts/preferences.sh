#!/usr/bin/env bash
# The runs of docs/preferences.md, "Does it work?": answers, and pictures, that a scripted rater likes.
#
#   bash scripts/preferences.sh                             # about half an hour of one CPU core
#   SCALE=0.01 ROOT=/tmp/tried bash scripts/preferences.sh  # a hundredth of each budget
#
# Repeating the command continues where it was interrupted, and runs nothing twice. It prints the figures of the page.
set -euo pipefail
ROOT=${ROOT:-runs/preferences}
SCALE=${SCALE:-1}                 # of all budgets
SEEDS=${SEEDS:-0,1,2}
N=${N:-1000}                      # pictures that are compared
PARTS=${PARTS:-answers pictures}
PYTHON=${PYTHON:-python}
export OMP_NUM_THREADS=1
common="trainer=cpu logger=[none] metrics=[] budget=examples callbacks.evaluation.times=0 callbacks.samples.times=0"

mkdir -p "$ROOT"
budget() { awk -v n="$1" -v s="$SCALE" 'BEGIN { b = int(n * s); print (b < 64 ? 64 : b) }'; }

train() {                         # folder, overrides: a run, unless it is finished
  local folder=$1; shift
  if [ -e "$folder/summary.json" ]; then return; fi
  if [ -e "$folder/config.yaml" ]; then "$PYTHON" train.py run="$folder"; return; fi
  # shellcheck disable=SC2086
  "$PYTHON" train.py "$@" $common folder="$folder"
}

answers() {
  local own="data/tokenizer=bytes data.context=48 model.network.width=64 model.network.depth=2 model.network.num_heads=2"
  own="$own model.sample_length=16"
  [ -e "$ROOT/chats.jsonl" ] || "$PYTHON" scripts/docs_preferences.py conversations "$ROOT/chats.jsonl"
  # shellcheck disable=SC2086
  train "$ROOT/answers" model=transformer data=conversations data.path="$ROOT/chats.jsonl" data.packing=false data.batch_size=64 $own \
    budget.value="$(budget 12000)"
  judged val held-out 0
  judged train clear 0
  judged train noisy 0.2
  for seed in ${SEEDS//,/ }; do
    for run in clear-dpo noisy-dpo noisy-robust; do
      # shellcheck disable=SC2046,SC2086
      train "$ROOT/$run/$seed" model=preference model/objective="${run#*-}" data=preferences data.path="$ROOT/${run%-*}.jsonl" \
        data.val_path="$ROOT/held-out.jsonl" data.batch_size=16 $own start="$ROOT/answers" model.optimizer.lr=5e-4 seed="$seed" \
        budget.value="$(budget 3200)" $([ $run = noisy-robust ] && echo model.objective.noise=0.2)
      echo "$run, seed $seed, kl $(kl "$ROOT/$run/$seed"): $("$PYTHON" scripts/docs_preferences.py compare "$ROOT/$run/$seed" "$ROOT/answers")"
    done
  done
}

judged() {                        # split, name, share of judgments that are turned round
  [ -e "$ROOT/$2.jsonl" ] || "$PYTHON" scripts/docs_preferences.py judge "$ROOT/answers" "$1" "$ROOT/$2.jsonl" "$3"
}

kl() {                            # nats a token, the mean of the last ten steps that were logged
  "$PYTHON" -c 'import csv, sys
rows = [float(row["train/kl"]) for row in csv.DictReader(open(sys.argv[1])) if row.get("train/kl")]
print(round(sum(rows[-10:]) / len(rows[-10:]), 4))' "$1/metrics.csv"
}

pictures() {
  local plain="model.conditions=[] model.condition_dropout=0"
  # shellcheck disable=SC2086
  train "$ROOT/base" model=diffusion data=digits $plain budget.value="$(budget 20000)"
  [ -d "$ROOT/drawn" ] || "$PYTHON" scripts/sample.py run="$ROOT/base" n=1500 seed=1 out="$ROOT/drawn"
  [ -d "$ROOT/before" ] || "$PYTHON" scripts/sample.py run="$ROOT/base" n="$N" seed=2 out="$ROOT/before"
  for kind in bold unsure; do
    [ -e "$ROOT/$kind.jsonl" ] ||
      "$PYTHON" scripts/docs_bold_digits.py judge "$ROOT/drawn" "$ROOT/$kind.jsonl" --noise "$([ $kind = unsure ] && echo 0.2 || echo 0)"
  done
  measured before
  for seed in ${SEEDS//,/ }; do
    for kind in bold unsure; do
      # shellcheck disable=SC2086
      train "$ROOT/$kind-digits/$seed" model=diffusion_preference data=image_preferences data.path="$ROOT/$kind.jsonl" data.channels=1 $plain \
        start="$ROOT/base" seed="$seed" budget.value="$(budget 3000)"
      [ -d "$ROOT/$kind-$seed" ] || "$PYTHON" scripts/sample.py run="$ROOT/$kind-digits/$seed" n="$N" seed=2 out="$ROOT/$kind-$seed"
      echo "$kind, seed $seed: $("$PYTHON" scripts/docs_bold_digits.py compare "$ROOT/before" "$ROOT/$kind-$seed")"
      measured "$kind-$seed"
    done
  done
}

measured() {                      # a folder of samples beside the real digits
  "$PYTHON" scripts/evaluate.py images="$ROOT/$1" data=digits metrics=[fid,precision_recall] metrics/extractor=digits
}

for part in $PARTS; do
  case $part in
    answers | pictures) $part ;;
    *) echo "error: PARTS=$part is none of: answers, pictures." >&2; exit 2 ;;
  esac
done
