#!/usr/bin/env bash
# Train a diffusion decoder of each kind alike, then show the same dreams by all of them. Two hours on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
STEPS=${STEPS:-1500}
for offset in 0.25 0.5 1.0; do
    accelerate launch --cpu --num_processes 2 -m worldgym.pan.train_decoder \
        --out "runs/tabletop/decoder_$offset" --fit.steps "$STEPS" --decoder.swin.offset "$offset"
done
python benchmarks/decoders.py --decoders runs/tabletop/decoder_{0.25,0.5,1.0}/decoder
