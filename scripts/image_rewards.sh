#!/usr/bin/env bash
# The runs of docs/image_rewards.md: digits, and a diffusion model that learns to draw what is rewarded.
#
#   bash scripts/image_rewards.sh                             # about a quarter of an hour of one CPU core
#   SCALE=0.01 ROOT=/tmp/tried bash scripts/image_rewards.sh  # a hundredth of each budget
#
# Repeating the command continues where it was interrupted, and runs nothing twice.
set -euo pipefail
ROOT=${ROOT:-runs/image_rewards}
SCALE=${SCALE:-1}                 # of all budgets
SEEDS=${SEEDS:-0,1,2}
N=${N:-400}                       # samples of each evaluation
PYTHON=${PYTHON:-python}
export OMP_NUM_THREADS=1
common="data=digits trainer=cpu logger=[none] callbacks.samples.times=1"
network="model/network=dit model.network.patch_size=4 model.network.width=64 model.network.depth=4 model.network.num_heads=2"
sampler="model/sampler=ancestral model/sampler/grid=karras"
short="model.sampler.num_steps=10 model.sampler.grid.sigma_min=0.02"
metrics="metrics=[fid,precision_recall,label_accuracy] evaluation.num_samples=$N"

mkdir -p "$ROOT"
budget() { awk -v n="$1" -v s="$SCALE" 'BEGIN { b = int(n * s); print (b < 64 ? 64 : b) }'; }

train() {                         # folder, overrides: a run, unless it is finished
  local folder=$1; shift
  if [ -e "$folder/summary.json" ]; then return; fi
  if [ -e "$folder/config.yaml" ]; then "$PYTHON" train.py run="$folder"; return; fi
  "$PYTHON" train.py "$@" folder="$folder"
}

for seed in 0 1; do
  train "$ROOT/classifier-$seed" model=classifier data=digits trainer=cpu logger=[none] metrics=[accuracy] seed="$seed" \
    budget=seconds budget.value="$(awk -v s="$SCALE" 'BEGIN { print (s < 0.02 ? 1 : 60 * s) }')"
done
for base in base early; do         # early: a model that is not done, and draws some labels wrong
  # shellcheck disable=SC2086
  train "$ROOT/$base" model=diffusion $network $sampler model.sampler.num_steps=20 $common $metrics data.batch_size=64 \
    callbacks.ema.half_life=20_000 budget.value="$(budget $([ $base = base ] && echo 200000 || echo 50000))"
done
policy="model=diffusion_policy $network $sampler $short $common $metrics data.batch_size=64 callbacks.ema.half_life=256"
policy="$policy model.optimizer.lr=3e-4 callbacks.evaluation.num_samples=$N callbacks.evaluation.also_at=[0.02] trainer.log_every_n_steps=1"
judged="model/rewards=[label,second_label] model.rewards.label.model=$ROOT/classifier-0 model.rewards.second_label.model=$ROOT/classifier-1"
for seed in ${SEEDS//,/ }; do
  # shellcheck disable=SC2086
  train "$ROOT/jpeg/$seed" $policy start="$ROOT/base" model.rewards.jpeg_size.weight=-1 seed="$seed" \
    budget.value="$(budget 1536)" callbacks.evaluation.times=6
  # shellcheck disable=SC2086
  train "$ROOT/label-base/$seed" $policy start="$ROOT/base" $judged seed="$seed" \
    budget.value="$(budget 1536)" callbacks.evaluation.times=6
  # shellcheck disable=SC2086
  train "$ROOT/label-early/$seed" $policy start="$ROOT/early" $judged seed="$seed" \
    budget.value="$(budget 768)" callbacks.evaluation.times=3
done
