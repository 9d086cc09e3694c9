#!/usr/bin/env bash
# The runs of docs/text_to_image.md: which family draws what it is told? Scenes of one to three objects at 32 pixels.
#
#   bash scripts/captions.sh                          # five families, one seed: about two hours of one quiet CPU core
#   bash scripts/captions.sh "transformer_codes gan"  # some of them
#   SEEDS=0,1,2 bash scripts/captions.sh transformer_codes   # the best of them, with three seeds
#   SCALE=0.01 ROOT=/tmp/tried bash scripts/captions.sh      # a hundredth of each budget
#
# Repeating the command continues where it was interrupted, and runs nothing twice. Budgets are examples, as many as 20
# minutes of one quiet core of an Intel Xeon at 2.3 GHz gave; of those with an autoencoder, its 5 minutes are among them.
#
# Then, one command for all that is made from the runs:
#
#   bash scripts/captions.sh report
set -euo pipefail
ROOT=${ROOT:-runs/captions}       # a folder for each configuration, and in it one for each seed
PARTS=${PARTS:-$ROOT-parts}       # autoencoders
SCALE=${SCALE:-1}                 # of all budgets
SLOTS=${SLOTS:-2}                 # trainings at a time, a core each
SEEDS=${SEEDS:-0}
N=${N:-500}                       # samples of an evaluation
PYTHON=${PYTHON:-python}
export OMP_NUM_THREADS=1
common="trainer=cpu logger=[none] budget=examples"
told="data=shapes model.conditions=[caption] task=text_to_image metrics=[scene_accuracy] evaluation.num_samples=$N"
told="$told callbacks.evaluation.times=5"

budget() { awk -v n="$1" -v s="$SCALE" 'BEGIN { b = int(n * s); print (b < 64 ? 64 : b) }'; }

of() {                            # examples, then overrides
  local codes="model.tokenizer=$PARTS/codes data.batch_size=32 model/optimizer=muon"
  local words="model.network.attends_to_words=true"
  case $1 in
    transformer_codes) echo 60000 model=transformer "$codes" model.guidance=2 ;;
    masked_codes)      echo 60000 model=masked "$codes" model.guidance=2 ;;
    latent_diffusion)  echo 60000 model=latent_diffusion "model.autoencoder=$PARTS/latents" data.batch_size=32 model/network=dit \
                         model.network.patch_size=1 model.network.width=128 model.network.depth=6 model.network.num_heads=4 \
                         $words model.objective.p_mean=0 model.objective.p_std=1.4 model.guidance=2 ;;
    diffusion)         echo 160000 model=diffusion data.batch_size=32 model.network.patch_size=2 model.network.dropout=0 \
                         $words model.objective.p_mean=0.4 model.objective.p_std=1.5 model.guidance=2 ;;
    gan)               echo 400000 model=gan data.batch_size=64 ;;
    *) echo "error: there is no configuration '$1'." >&2; return 2 ;;
  esac
}

part() {                          # name, examples, overrides: an autoencoder, unless it is there
  local name=$1 examples=$2; shift 2
  if [ -e "$PARTS/$name/summary.json" ]; then return; fi
  if [ -e "$PARTS/$name/config.yaml" ]; then "$PYTHON" train.py run="$PARTS/$name"; return; fi
  # shellcheck disable=SC2086
  "$PYTHON" train.py "$@" data=shapes metrics=[] model.latent_shape=[4,8,8] model.encoder.dropout=0 model.decoder.dropout=0 \
    $common budget.value="$(budget "$examples")" folder="$PARTS/$name"
}

evaluated() {                     # a run with other settings, unless it has been
  local run=$1; shift
  if grep -qsxF "$*" "$run/evaluated.txt"; then return; fi
  "$PYTHON" scripts/evaluate.py run="$run" "$@"
  echo "$*" >> "$run/evaluated.txt"
}

one() {                           # a configuration: its seeds as a sweep, then other settings of the sampler
  local name=$1 examples overrides run
  read -r examples overrides <<< "$(of "$name")"
  # shellcheck disable=SC2086
  "$PYTHON" train.py -m sweep.name="$name" $overrides $told seed="$SEEDS" $common budget.value="$(budget "$examples")" \
    outputs="$ROOT" launcher.slots=1
  for run in "$ROOT/$name"/*/; do
    case $name in
      gan) evaluated "$run" task.shuffled=true ;;
      *_codes)
        evaluated "$run" task.shuffled=true model.sampler.temperature=0.7
        for strength in 1 2 4 8; do evaluated "$run" model.guidance=$strength model.sampler.temperature=0.7; done
        ;;
      *)
        evaluated "$run" task.shuffled=true
        for strength in 1 4 8; do evaluated "$run" model.guidance=$strength; done
        ;;
    esac
  done
}

report() {
  "$PYTHON" scripts/record_runs.py "$ROOT" docs/measured/captions.json --curve scene_accuracy \
    --about "families told what to draw: scenes of one to three objects at 32 pixels"
  "$PYTHON" scripts/docs_tables.py
}

case ${1:-} in
  report) report ;;
  --one) one "$2" ;;
  *)
    all="transformer_codes masked_codes latent_diffusion diffusion gan"
    names=${1:-$all}
    case $names in *_codes*) part codes 80000 model=vq_vae data.batch_size=32 model.quantizer.num_codes=512 & ;; esac
    case $names in *latent*) part latents 50000 model=vae data.batch_size=64 model.beta=0.1 model/likelihood=squared_error & ;; esac
    for job in $(jobs -p); do wait "$job"; done
    export ROOT PARTS SCALE SEEDS N PYTHON
    # Two configurations at a time, each with one seed after the other.
    tr -s ' ' '\n' <<< "$names" | xargs -P "$SLOTS" -I{} bash "$0" --one {}
    ;;
esac
