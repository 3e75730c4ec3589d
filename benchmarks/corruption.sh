#!/usr/bin/env bash
# Is a past with wrong tokens in it worth training on? Two worlds that go on from the bundled Tabletop for as many steps,
# with slips and without, half of the segments self-dreamed in both; then long dreams of each. Half an hour of one core,
# without the recording; a run that was cut goes on where it stopped.
source "$(dirname "$0")/setup.sh"
export OMP_NUM_THREADS=1
STEPS=${STEPS:-240}
data=worldgym/tabletop-v0

record $data --episodes 4000

learn() { # name, mean share of wrong tokens
    $worldgym train dynamics --dataset $data --tokenizer worldgym/worlds/tabletop --begin-from tabletop \
        --out "runs/corruption/$1/world" --steps "$STEPS" --evaluate-every "$STEPS" --batch 8 --processes 1 \
        --token-noise "$2" --self-forcing 0.5 --self-forcing-steps 1
}

learn slips 0.1
learn no_slips 0
$python benchmarks/corruption.py --worlds runs/corruption/slips/world runs/corruption/no_slips/world
