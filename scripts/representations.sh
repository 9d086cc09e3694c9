#!/usr/bin/env bash
# What features know, docs/self_supervised.md: CIFAR-10 pictures, each method with as many FLOPs, three seeds, probes.
#
#   DATA=/my/cifar10 bash scripts/representations.sh     # train/<class>/ and test/<class>/; 42 runs, two at a time
#   DATA=/my/cifar10 bash scripts/representations.sh "vae byol"      # some of them
#   SCALE=0.01 SEEDS=0 DATA=/my/cifar10 ROOT=/tmp/tried bash scripts/representations.sh    # a hundredth of each budget
#   DATA=/my/cifar10 bash scripts/representations.sh report          # then: the record, the figure and the tables
#
# Repeating the command continues where it was interrupted, and runs nothing twice. The budget is FLOPs, those that
# SimCLR needs for about 110,000 pictures: six minutes of a quiet CPU core. Convolutions are of a ResNet-18 of width 8,
# transformers of 64 patches are 64 wide and three deep: both have 64 features, and a forward pass costs about the same.
# Runs this short need a teacher that follows sooner (BYOL), and without batch norm in its head DINO collapses.
# Two of the rows are networks as they were made, whose learning rate is 0: only statistics of batch norms change.
set -euo pipefail
ROOT=${ROOT:-runs/representations}        # a folder for each method, and in it one for each seed
SCALE=${SCALE:-1}                         # of all budgets
SLOTS=${SLOTS:-2}                         # trainings at a time, a core each
SEEDS=${SEEDS:-0,1,2}
FLOPS=${FLOPS:-12000000000000}
PYTHON=${PYTHON:-python}
: "${DATA:?Name a folder of pictures: DATA=/my/cifar10, with train/<class>/ and test/<class>/ in it.}"
export OMP_NUM_THREADS=1
flops=$(awk -v n="$FLOPS" -v s="$SCALE" 'BEGIN { printf "%.0f", n * s }')
common="data=image_folder data.root=$DATA/train data.val_root=$DATA/test data.folders_are_classes=true data.batch_size=128
  trainer=cpu logger=[none] evaluation.reference=val callbacks.evaluation.times=0 callbacks.ema.half_life=5000
  metrics=[knn_probe,linear_probe,few_labels] metrics.knn_probe.num_train=5000 metrics.few_labels.num_train=5000
  metrics.linear_probe.num_train=2500 metrics.linear_probe.strengths=[0.001,0.01,0.1] budget=flops budget.value=$flops"
views="model/encoder=resnet18 model.encoder.width=8 model.views.first.blur=0"
vit="patch_size=4 width=64 depth=3 num_heads=4"
drawn="model.conditions=[] data.flip=true callbacks.samples.times=2"

of() {                                    # the overrides of a method
  local method=$1
  case $method in
    nt_xent)  echo "model=contrastive $views" ;;
    barlow | vicreg)
      echo "model=contrastive model/objective=$method $views model.projector.widths=[512,512,512] model.projector.last_norm=false" ;;
    byol)     echo "model=self_distillation $views model.views.second.blur=0 model.momentum=0.9" ;;
    dino)
      echo "model=self_distillation model/objective=dino model/views=dino $views model.views.second.blur=0 model.views.num_local=0" \
        "model.objective.head.batch_norm=true model.objective.held=0" ;;
    masked_autoencoder) echo "model=masked_autoencoder $(part model.encoder)" ;;
    jepa)     echo "model=jepa $(part model.encoder) model.momentum=0.98" ;;
    supervised | random) echo "model=classifier model/network=resnet18 model.network.width=8 data.flip=true" ;;
    supervised_vit | random_vit) echo "model=classifier model/network=masked_vit $(part model.network) data.flip=true" ;;
    diffusion)
      echo "model=diffusion $drawn model.network.channels=16 model.network.channel_mult=[1,2,4] model.network.num_blocks=1" \
        "model.network.attention_resolutions=[8]" ;;
    vae)      echo "model=vae $drawn" ;;
    gan)      echo "model=gan $drawn data.batch_size=64 model.generator.channels=16 model.discriminator.channels=16" ;;
    *) echo "error: there is no method '$method'." >&2; return 2 ;;
  esac
  case $method in random*) echo "model.optimizer.lr=0 budget=examples budget.value=6400" ;; esac
}

part() { local setting; for setting in $vit; do printf '%s.%s ' "$1" "$setting"; done; }

train() {                                 # folder, overrides: a run, unless it is finished
  local folder=$1; shift
  if [ -e "$folder/summary.json" ]; then return; fi
  if [ -e "$folder/config.yaml" ]; then "$PYTHON" train.py run="$folder"; return; fi
  "$PYTHON" train.py "$@" folder="$folder"
}

one() {                                   # a method and a seed
  # shellcheck disable=SC2046,SC2086
  train "$ROOT/$1/$2" $common $(of "$1") seed="$2"
}

report() {
  "$PYTHON" scripts/docs_representations.py "$ROOT"
  "$PYTHON" scripts/docs_tables.py
}

case ${1:-} in
  report) report ;;
  --one) one "$2" "$3" ;;
  *)
    methods=${1:-random random_vit nt_xent supervised byol masked_autoencoder diffusion jepa barlow vicreg dino vae gan supervised_vit}
    for method in $methods; do of "$method" > /dev/null; done
    mkdir -p "$ROOT"
    export ROOT SCALE FLOPS DATA PYTHON
    # A seed of all methods before the next one.
    for seed in ${SEEDS//,/ }; do for method in $methods; do printf '%s\n' "$method $seed"; done; done |
      xargs -P "$SLOTS" -L1 bash "$0" --one
    ;;
esac
