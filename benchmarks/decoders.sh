#!/usr/bin/env bash
# Train a diffusion decoder of each kind alike, then show the same dreams by all of them and by the bundled one. An hour on
# a core.
source "$(dirname "$0")/setup.sh"
STEPS=${STEPS:-1000}
for offset in 0.25 0.5 1.0; do
    # Without a window there is no late chunk to learn from: every window is one chunk from all noise to none.
    first=$([[ $offset == 1.0 ]] && echo 1.0 || echo 0.2)
    $worldgym train decoder --out "runs/tabletop/decoder_$offset" --steps "$STEPS" --device cpu \
        --decoder.swin.offset "$offset" --decoder.swin.first "$first"
done
$python benchmarks/decoders.py --decoders diffusion runs/tabletop/decoder_{0.25,0.5,1.0}/decoder --dreams 16 --steps 24 --bins 1 9 17
