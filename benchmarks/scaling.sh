#!/usr/bin/env bash
# What do more parameters, more pixels and a longer memory give? An hour and a quarter of one core; the tokenizer of
# ablations.sh is read if it is there. A run that was cut goes on with the variants that are not made yet.
set -euo pipefail
cd "$(dirname "$0")/.."
export MUJOCO_GL="${MUJOCO_GL:-egl}" OMP_NUM_THREADS=1
data=worldgym/tabletop-v0

.venv/bin/python -c "import minari, sys; sys.exit('$data' not in minari.list_local_datasets())" ||
    .venv/bin/worldgym record --dataset $data --episodes 4000
.venv/bin/python benchmarks/scaling.py
