#!/usr/bin/env bash
# What adaptive augmentation does for few images, docs/stylegan2.md: StyleGAN2 on 500 pictures, with it and without.
#
#   DATA=/my/cifar10 bash scripts/few_images.sh               # train/<class>/ and test/<class>/; two hours of one CPU core
#   SCALE=0.01 DATA=/my/cifar10 ROOT=/tmp/tried bash scripts/few_images.sh    # a hundredth of each budget
#
# Both train on 50 pictures of each class, the first by name. A classifier of all pictures judges: FID of its features
# against those of test/, which no GAN has seen. Repeating the command continues where it was interrupted, and runs
# nothing twice.
set -euo pipefail
ROOT=${ROOT:-runs/few_images}
SCALE=${SCALE:-1}                 # of all budgets
SEEDS=${SEEDS:-0}
ARMS=${ARMS:-none,ada}
PYTHON=${PYTHON:-python}
: "${DATA:?Name a folder of pictures: DATA=/my/cifar10, with train/<class>/ and test/<class>/ in it.}"
export OMP_NUM_THREADS=1
data="data=image_folder data.val_root=$DATA/test data.folders_are_classes=true trainer=cpu logger=[none]"

mkdir -p "$ROOT"
for class in "$DATA"/train/*/; do
  few=$ROOT/pictures/$(basename "$class")
  if [ ! -d "$few" ]; then
    mkdir -p "$few"
    find "$class" -type f | sort | awk 'NR <= 50' | xargs -I{} cp {} "$few"
  fi
done
budget() { awk -v n="$1" -v s="$SCALE" 'BEGIN { b = int(n * s); print (b < 64 ? 64 : b) }'; }

train() {                         # folder, overrides: a run, unless it is finished
  local folder=$1; shift
  if [ -e "$folder/summary.json" ]; then return; fi
  if [ -e "$folder/config.yaml" ]; then "$PYTHON" train.py run="$folder"; return; fi
  "$PYTHON" train.py "$@" folder="$folder"
}

# shellcheck disable=SC2086
train "$ROOT/judge" model=classifier $data data.root="$DATA/train" metrics=[accuracy] budget.value="$(budget 300000)"
for seed in ${SEEDS//,/ }; do
  for arm in ${ARMS//,/ }; do
    # shellcheck disable=SC2046,SC2086
    train "$ROOT/$arm/$seed" model=stylegan2 model/augment="$arm" $data data.root="$ROOT/pictures" data.batch_size=32 model.conditions=[] \
      model.generator.channel_base=512 model.generator.channel_max=48 model.discriminator.channel_base=512 \
      model.discriminator.channel_max=48 model.objective.penalty.gamma=null model.objective.penalty.every=16 \
      $([ "$arm" = ada ] && echo model.augment.kimg=20) seed="$seed" \
      metrics=[fid] metrics.extractor="$ROOT/judge" evaluation.reference=val evaluation.num_samples=5000 evaluation.bootstrap=200 \
      callbacks.evaluation.times=8 callbacks.evaluation.num_samples=2000 callbacks.ema.half_life=5000 callbacks.samples.times=4 \
      budget.value="$(budget 200000)"
  done
done
