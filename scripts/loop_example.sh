#!/usr/bin/env bash
# The whole loop from nothing to a table, docs/rlhf.md: a model answers, a rater with two wishes compares its answers, a
# reward model learns from some of these pairs, policies learn from the reward model, and the rater judges them.
#
#   bash scripts/loop_example.sh                              # about a quarter of an hour of one CPU core
#   SCALE=0.02 ROOT=/tmp/tried bash scripts/loop_example.sh   # a fiftieth of each budget
#
# Repeating the command continues where it was interrupted, and runs nothing twice.
set -euo pipefail
ROOT=${ROOT:-runs/loop}
SCALE=${SCALE:-1}                 # of all budgets
SEEDS=${SEEDS:-0,1,2}
PAIRS=${PAIRS:-100}               # that the reward model learns from; the judge that is held back has all
PYTHON=${PYTHON:-python}
export OMP_NUM_THREADS=1
own="trainer=cpu logger=[none] metrics=[] budget=examples callbacks.evaluation.times=0
  data/tokenizer=bytes data.context=48 model.network.width=64 model.network.depth=2 model.network.num_heads=2"

mkdir -p "$ROOT"
budget() { awk -v n="$1" -v s="$SCALE" 'BEGIN { b = int(n * s); print (b < 64 ? 64 : b) }'; }

train() {                         # folder, overrides: a run, unless it is finished
  local folder=$1; shift
  if [ -e "$folder/summary.json" ]; then return; fi
  if [ -e "$folder/config.yaml" ]; then "$PYTHON" train.py run="$folder"; return; fi
  # shellcheck disable=SC2086
  "$PYTHON" train.py "$@" $own folder="$folder"
}

judged() {                        # split, name: pairs of the first model's answers, by the rater
  [ -e "$ROOT/$2.jsonl" ] || "$PYTHON" scripts/docs_preferences.py judge "$ROOT/answers" "$1" "$ROOT/$2.jsonl" 0
}

# 1. A model that answers.
[ -e "$ROOT/chats.jsonl" ] || "$PYTHON" scripts/docs_preferences.py conversations "$ROOT/chats.jsonl"
asked="data=conversations data.path=$ROOT/chats.jsonl model.sample_length=16 callbacks.samples.times=0"
# shellcheck disable=SC2086
train "$ROOT/answers" model=transformer $asked data.packing=false data.batch_size=64 budget.value="$(budget 12000)"

# 2. Pairs of its answers, judged.
judged train all
judged val held-out
grep '"tie": false' "$ROOT/all.jsonl" | head -n "$PAIRS" > "$ROOT/some.jsonl" || true

for seed in ${SEEDS//,/ }; do
  # 3. A reward model of some of them, and one of all, which is held back.
  for name in some all; do
    train "$ROOT/reward-$name/$seed" model=reward data=preferences data.path="$ROOT/$name.jsonl" data.val_path="$ROOT/held-out.jsonl" \
      data.batch_size=16 start="$ROOT/answers" model.optimizer.lr=1e-3 callbacks.ema.half_life=1000 seed="$seed" \
      budget.value="$(budget "$([ $name = some ] && echo 2400 || echo 9600)")"
  done
  # 4. Policies that learn from the first; and from the same pairs, without a reward model.
  for run in grpo-0.3 grpo-0.03 grpo-0.003 ppo-0.03; do
    # shellcheck disable=SC2046,SC2086
    train "$ROOT/$run/$seed" model=policy model/objective="${run%%-*}" model.objective.beta="${run#*-}" $asked data.batch_size=32 \
      start="$ROOT/answers" model/rewards=[judged,gold] model.rewards.judged.model="$ROOT/reward-some/$seed" \
      model.rewards.gold.model="$ROOT/reward-all/$seed" model.schedule.warmup=320 \
      trainer.gradient_clip_val=1.0 trainer.log_every_n_steps=1 callbacks.ema.half_life=1000 seed="$seed" \
      $([ "${run%%-*}" = ppo ] && echo model.optimizer.lr=1e-4 model.minibatches=4 model.passes=2 || echo model.optimizer.lr=5e-4) budget.value="$(budget 3200)"
  done
  train "$ROOT/dpo/$seed" model=preference data=preferences data.path="$ROOT/some.jsonl" data.val_path="$ROOT/held-out.jsonl" \
    data.batch_size=16 start="$ROOT/answers" model.sample_length=16 callbacks.samples.times=0 model.optimizer.lr=5e-4 seed="$seed" \
    budget.value="$(budget 1200)"
done

# 5. The table, by the rater.
"$PYTHON" scripts/docs_rlhf.py loop "$ROOT"
