#!/usr/bin/env bash
# Growing against not growing, docs/progan.md: a progressive GAN, one that is killed while it grows, and StyleGAN2.
#
#   DATA=/my/cifar10 bash scripts/growing.sh                  # train/<class>/ and test/<class>/; half an hour of one CPU core
#   SCALE=0.01 DATA=/my/cifar10 ROOT=/tmp/tried bash scripts/growing.sh       # a hundredth of each budget
#
# The killed run gets SIGKILL while 16x16 is faded in, goes on, and has to end with the weights of the one that was
# never stopped, bit for bit. StyleGAN2 has the networks it has from the start, and as many FLOPs. A classifier of all
# pictures judges, that of scripts/few_images.sh: JUDGE=runs/few_images/judge. Repeating the command continues where it
# was interrupted, and runs nothing twice.
set -euo pipefail
ROOT=${ROOT:-runs/growing}
SCALE=${SCALE:-1}                 # of all budgets
SEEDS=${SEEDS:-0}
JUDGE=${JUDGE:-runs/few_images/judge}
PYTHON=${PYTHON:-python}
: "${DATA:?Name a folder of pictures: DATA=/my/cifar10, with train/<class>/ and test/<class>/ in it.}"
export OMP_NUM_THREADS=1
common="data=image_folder data.root=$DATA/train data.val_root=$DATA/test data.folders_are_classes=true data.flip=true data.batch_size=32
  trainer=cpu logger=[none] metrics=[fid,precision_recall] metrics.extractor=$JUDGE evaluation.reference=val evaluation.num_samples=5000
  callbacks.evaluation.num_samples=1000 callbacks.ema.half_life=5000"

mkdir -p "$ROOT"
examples() { awk -v n="$1" -v s="$SCALE" 'BEGIN { b = int(n * s / 32) * 32; print (b < 64 ? 64 : b) }'; }

# As published: the weight of R1 follows from the sizes, and conditions are mapped slowly by eight layers.
paper="model.objective.penalty.gamma=null model.objective.penalty.every=16 model.discriminator.mapping_layers=8
  model.discriminator.mapping_lr=0.01"
stage=$(examples 10000)           # each resolution is faded in over so many examples, and stays for as many
growing="model=progan model.growth.fade=$stage model.growth.stable=$stage model.generator.channels=8 model.generator.max_channels=64
  model.discriminator.channels=8 model.discriminator.max_channels=64 callbacks.samples.times=10 callbacks.evaluation.times=10
  budget.value=$((10 * stage))"

train() {                         # folder, overrides: a run, unless it is finished
  local folder=$1; shift
  if [ -e "$folder/summary.json" ]; then return; fi
  if [ -e "$folder/config.yaml" ]; then "$PYTHON" train.py run="$folder"; return; fi
  "$PYTHON" train.py "$@" folder="$folder"
}

saved() {                         # examples at the newest checkpoint
  find "$1/checkpoints" -name 'examples=*.ckpt' 2> /dev/null | sort | tail -n 1 | sed 's/.*=0*//; s/[.]ckpt//' | grep . || echo 0
}

killed() {                        # folder, overrides: the same, killed while 16x16 is faded in, after a checkpoint there
  local folder=$1 pid; shift
  if [ ! -e "$folder/config.yaml" ]; then
    "$PYTHON" train.py "$@" folder="$folder" callbacks.checkpoint.every_minutes=0.1 & pid=$!
    while [ "$(saved "$folder")" -lt $((stage * 16 / 5)) ]; do
      kill -0 $pid 2> /dev/null || { echo "error: it ended before it could be killed. Use a larger SCALE." >&2; return 1; }
      sleep 0.1
    done
    kill -KILL $pid
    wait $pid || echo "killed; the newest checkpoint has $(saved "$folder") examples"
  fi
  train "$folder"
}

same() {                          # two runs: whether they end with the same weights
  "$PYTHON" - "$@" << 'PROGRAM'
import sys
from pathlib import Path

from genlab.checkpoint.read import newest

first, second = (newest(Path(run)).state for run in sys.argv[1:])
differ = [name for name in {**first, **second} if name not in second or not first[name].equal(second[name])]
sys.exit(f"error: the killed run ends otherwise in {differ[0]}." if differ else None)
PROGRAM
  echo "The killed run ended with the same weights, bit for bit."
}

for seed in ${SEEDS//,/ }; do
  # shellcheck disable=SC2086
  train "$ROOT/progan/$seed" $growing seed="$seed" $common
  if [ "$seed" = "${SEEDS%%,*}" ]; then
    # shellcheck disable=SC2086
    killed "$ROOT/killed" $growing seed="$seed" $common
    same "$ROOT/progan/$seed" "$ROOT/killed"
  fi
  flops=$("$PYTHON" -c "import json, sys; print(int(json.load(open(sys.argv[1]))['flops']))" "$ROOT/progan/$seed/summary.json")
  # shellcheck disable=SC2086
  train "$ROOT/stylegan2/$seed" model=stylegan2 model.generator.channel_base=256 model.generator.channel_max=64 \
    model.discriminator.channel_base=256 model.discriminator.channel_max=64 callbacks.samples.times=10 callbacks.evaluation.times=10 \
    $paper budget=flops budget.value="$flops" seed="$seed" $common
done
