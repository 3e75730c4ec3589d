#!/usr/bin/env bash
# Is a past with mistakes in it worth training on? Worlds that go on from the bundled Tabletop for as many steps: with
# slips and dreams of their own in the past as it was trained, without slips, and with neither; then long dreams of each.
# Half an hour of one core, without the recording; a run that was cut goes on where it stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
export MUJOCO_GL="${MUJOCO_GL:-egl}" OMP_NUM_THREADS=1
STEPS=${STEPS:-240}
data=worldgym/tabletop-v0

.venv/bin/python -c "import minari, sys; sys.exit('$data' not in minari.list_local_datasets())" ||
    .venv/bin/worldgym record --dataset $data --episodes 4000

learn() { # name, slips, share of segments that it dreams itself
    .venv/bin/worldgym train dynamics --dataset $data --tokenizer worldgym/worlds/tabletop --begin-from tabletop \
        --out "runs/corruption/$1/world" --steps "$STEPS" --evaluate-every "$STEPS" --batch 8 --processes 1 \
        --slips "$2" --self-fed "$3" --self-fed-steps 1
}

learn both 0.1 0.5
learn no_slips 0 0.5
learn neither 0 0
.venv/bin/python benchmarks/corruption.py --worlds runs/corruption/{both,no_slips,neither}/world
