#!/usr/bin/env bash
# The runs of the table of docs/rlhf.md: sums of three numbers, of which 500 come with their answers, and 1,500 can be
# checked. A model learns from the answers; then it learns from the checker, or goes on with the answers.
#
#   bash scripts/policies.sh                                    # about four hours of one CPU core; needs genlab[reasoning]
#   SCALE=0.01 ROOT=/tmp/tried bash scripts/policies.sh         # a hundredth of each budget
#
# Repeating the command continues where it was interrupted, and runs nothing twice.
set -euo pipefail
ROOT=${ROOT:-runs/policies}
SCALE=${SCALE:-1}                 # of all budgets
SEEDS=${SEEDS:-0,1,2}
PYTHON=${PYTHON:-python}
export OMP_NUM_THREADS=1
common="data=reasoning_gym data.task=chain_sum data.options={min_terms:3,max_terms:3,min_digits:1,max_digits:1}
  data.num_train=1500 data.num_val=1500 data.tokenizer.vocab_size=335 data.context=32 data.batch_size=64
  model.network.width=96 model.network.depth=3 model.network.num_heads=3 model.sample_length=8 trainer=cpu logger=[none]
  metrics=[exact_match] evaluation.num_samples=600 callbacks.samples.times=0 callbacks.evaluation.times=5"
answers="model=transformer $common data.limit=500 data.packing=false"
policy="model=policy $common model.rewards.checker.whole=true model.objective.beta=0.001 model.optimizer.betas=[0.9,0.99]
  model.schedule.warmup=1000 trainer.gradient_clip_val=1.0"

mkdir -p "$ROOT"
examples() { awk -v n="$1" -v s="$SCALE" 'BEGIN { b = int(n * s); print (b < 64 ? 64 : b) }'; }
flops() { awk -v n="$1" -v s="$SCALE" 'BEGIN { printf "%.3g", n * s }'; }

train() {                         # folder, overrides: a run, unless it is finished
  local folder=$1; shift
  if [ -e "$folder/summary.json" ]; then return; fi
  if [ -e "$folder/config.yaml" ]; then "$PYTHON" train.py run="$folder"; return; fi
  "$PYTHON" train.py "$@" folder="$folder"
}

best_of_n() {                     # of a finished run, unless it is known
  compgen -G "$1/evaluation-*.json" > /dev/null \
    || "$PYTHON" scripts/evaluate.py run="$1" metrics=[best_of_n] metrics.best_of_n.whole=true
}

# shellcheck disable=SC2086
for seed in ${SEEDS//,/ }; do
  sft="$ROOT/sft/$seed"
  then="start=$sft seed=$seed budget=flops budget.value=$(flops 4.2e13)"
  train "$sft" $answers seed="$seed" budget=examples budget.value="$(examples 57000)"
  train "$ROOT/grpo/$seed" $policy $then model/objective=grpo model.optimizer.lr=2e-4 model.minibatches=2
  train "$ROOT/rloo/$seed" $policy $then model/objective=rloo model.optimizer.lr=4e-4
  train "$ROOT/ppo/$seed" $policy $then model/objective=ppo model.optimizer.lr=2e-4 model.minibatches=2
  train "$ROOT/continued/$seed" $answers $then model.optimizer.lr=1e-3
  for run in sft grpo rloo ppo; do
    best_of_n "$ROOT/$run/$seed"
  done
done
