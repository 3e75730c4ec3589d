#!/usr/bin/env bash
# Is a past with wrong tokens in it worth training on? Two worlds that go on from the bundled Tabletop for as many steps,
# with slips and without, half of the segments self-dreamed in both; then long dreams of each. Half an hour of one core,
# without the recording; a run that was cut goes on where it stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
export MUJOCO_GL="${MUJOCO_GL:-egl}" OMP_NUM_THREADS=1
STEPS=${STEPS:-240}
data=worldgym/tabletop-v0

.venv/bin/python -c "import minari, sys; sys.exit('$data' not in minari.list_local_datasets())" ||
    .venv/bin/worldgym record --dataset $data --episodes 4000

learn() { # name, mean share of wrong tokens
    .venv/bin/worldgym train dynamics --dataset $data --tokenizer worldgym/worlds/tabletop --begin-from tabletop \
        --out "runs/corruption/$1/world" --steps "$STEPS" --evaluate-every "$STEPS" --batch 8 --processes 1 \
        --token-noise "$2" --self-forcing 0.5 --self-forcing-steps 1
}

learn slips 0.1
learn no_slips 0
.venv/bin/python benchmarks/corruption.py --worlds runs/corruption/slips/world runs/corruption/no_slips/world
