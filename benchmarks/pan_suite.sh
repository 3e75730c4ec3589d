#!/usr/bin/env bash
# PAN's evaluation of the bundled Tabletop: about twenty minutes on two idle cores, half of them planning. The figures
# land in benchmarks/results, the page in runs/evaluate.
set -euo pipefail
cd "$(dirname "$0")/.."
export MUJOCO_GL="${MUJOCO_GL:-egl}"

.venv/bin/worldgym evaluate tabletop --suite pan --episodes 128 --plan-episodes 20 --seed 0 \
    --json benchmarks/results/pan_suite.json --report runs/evaluate/tabletop_pan
.venv/bin/python benchmarks/results_page.py --write
