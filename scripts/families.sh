#!/usr/bin/env bash
# The runs of docs/comparison.md and docs/reports/digits: eleven configurations on digits, three seeds each and of the two
# larger GANs five, evaluated alike.
#
#   bash scripts/families.sh                          # 37 runs, two at a time: about an hour of two quiet CPU cores
#   bash scripts/families.sh "gan diffusion"          # some of them
#   MORE=1 bash scripts/families.sh                   # and the two that are slow to learn, for 40 minutes more
#   SCALE=0.01 ROOT=/tmp/tried bash scripts/families.sh     # a hundredth of each budget
#
# Repeating the command continues where it was interrupted, and runs nothing twice. Budgets are examples, so that results do
# not depend on what else the machine does; they are what 180 s of one quiet core of an AMD EPYC gave (the mean of
# three runs; of the two larger GANs one run, scaled by four others beside it). Latents and codes share an autoencoder of
# 90 s, and have 90 s themselves.
#
# Then, one command for all that is made from the runs:
#
#   bash scripts/families.sh report
set -euo pipefail
ROOT=${ROOT:-runs/digits}         # a folder for each configuration, and in it one for each seed
PARTS=${PARTS:-$ROOT-parts}       # autoencoders
SCALE=${SCALE:-1}                 # of all budgets
SLOTS=${SLOTS:-2}                 # trainings at a time, a core each
SEEDS=${SEEDS:-}                  # by default 0 to 2, of the larger GANs 0 to 4
PYTHON=${PYTHON:-python}
export OMP_NUM_THREADS=1
common="trainer=cpu logger=[none] budget=examples"

budget() { awk -v n="$1" -v s="$SCALE" 'BEGIN { b = int(n * s); print (b < 64 ? 64 : b) }'; }

half="model.generator.channel_base=512 model.discriminator.channel_base=512"

of() {                            # examples, then overrides
  case $1 in
    gan)                echo 500000 model=gan data.batch_size=64 ;;
    hierarchical_vae)   echo 175000 model=hierarchical_vae data.batch_size=64 ;;
    flow)               echo 546000 model=flow data.batch_size=64 ;;
    vae)                echo 253000 model=vae data.batch_size=64 ;;
    diffusion)          echo 37000 model=diffusion data.batch_size=32 ;;
    transformer_pixels) echo 8750 model=transformer model/optimizer=muon data.batch_size=16 ;;
    latent_diffusion)   echo 87800 model=latent_diffusion data.batch_size=64 "model.autoencoder=$PARTS/latents" ;;
    transformer_codes)  echo 86500 model=transformer data.batch_size=64 "model.tokenizer=$PARTS/codes" model.network.dropout=0.2 ;;
    masked_codes)       echo 94200 model=masked data.batch_size=64 "model.tokenizer=$PARTS/codes" ;;
    consistency)        echo 33600 model=diffusion data.batch_size=64 model/objective=consistency model/sampler=consistency ;;
    stylegan2)          echo 46000 model=stylegan2 data.batch_size=16 callbacks.ema.half_life=2500 "$half" ;;
    progan)             echo 66000 model=progan data.batch_size=16 callbacks.ema.half_life=2500 ;;
    masked_pixels)      echo 9600 model=masked model/optimizer=muon data.batch_size=16 ;;
    *) echo "error: there is no configuration '$1'." >&2; return 2 ;;
  esac
}

part() {                          # name, examples, overrides: an autoencoder, unless it is there
  local name=$1 examples=$2; shift 2
  if [ -e "$PARTS/$name/summary.json" ]; then return; fi
  if [ -e "$PARTS/$name/config.yaml" ]; then "$PYTHON" train.py run="$PARTS/$name"; return; fi
  # shellcheck disable=SC2086
  "$PYTHON" train.py "$@" $common budget.value="$(budget "$examples")" folder="$PARTS/$name"
}

evaluated() { grep -qs '"bits_per_dim_' "$1"/evaluation-*.json; }

one() {                           # a configuration: its seeds as a sweep, and what they are as likelihoods
  local name=$1 examples overrides run seeds=0,1,2
  case $name in stylegan2 | progan) seeds=0,1,2,3,4 ;; esac
  read -r examples overrides <<< "$(of "$name")"
  # shellcheck disable=SC2086
  "$PYTHON" train.py -m sweep.name="$name" $overrides seed="${SEEDS:-$seeds}" $common budget.value="$(budget "$examples")" \
    outputs="$ROOT" launcher.slots=1
  for run in "$ROOT/$name"/*/; do
    case $name in
      gan) ls "$run"evaluation-*.json > /dev/null 2>&1 || "$PYTHON" scripts/evaluate.py run="$run" baselines=true ;;
      latent_diffusion | consistency | stylegan2 | progan) ;;       # no likelihood
      *) evaluated "$run" || "$PYTHON" scripts/evaluate.py run="$run" likelihood=100 ;;
    esac
  done
}

report() {
  "$PYTHON" scripts/compare.py runs="$ROOT" out=docs/reports/digits
  cp docs/reports/digits/comparison.png docs/images/comparison.png
  "$PYTHON" scripts/record_runs.py "$ROOT" docs/measured/digits.json \
    --about "families on digits, three seeds each, examples as many as 180 s of one quiet CPU core give"
  "$PYTHON" scripts/docs_tables.py
}

case ${1:-} in
  report) report ;;
  --one) one "$2" ;;
  *)
    all="stylegan2 progan diffusion transformer_pixels gan flow vae hierarchical_vae latent_diffusion transformer_codes masked_codes"
    if [ -n "${MORE:-}" ]; then all="masked_pixels consistency $all"; fi
    all=${1:-$all}
    parts=()
    if [[ $all == *latent_diffusion* ]]; then
      part latents 105000 model=vae data.batch_size=64 "model.latent_shape=[4,4,4]" model.beta=0.1 & parts+=($!)
    fi
    if [[ $all == *_codes* ]]; then part codes 79000 model=vq_vae data.batch_size=64 "metrics=[fid]" & parts+=($!); fi
    for training in ${parts[@]+"${parts[@]}"}; do wait "$training"; done
    export ROOT PARTS SCALE SEEDS PYTHON
    # Two configurations at a time, each with one seed after the other.
    tr -s ' ' '\n' <<< "$all" | xargs -P "$SLOTS" -I{} bash "$0" --one {}
    ;;
esac
