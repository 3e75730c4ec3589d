#!/usr/bin/env bash
# Every figure of the Hopper: three quarters of an hour on two cores. Results land in benchmarks/results.
set -euo pipefail
cd "$(dirname "$0")/.."
export MUJOCO_GL="${MUJOCO_GL:-egl}"
worldgym=.venv/bin/worldgym
results=benchmarks/results
data=worldgym/hopper-v1

.venv/bin/python -c "import minari, sys; sys.exit('$data' not in minari.list_local_datasets())" ||
    $worldgym record --env worldgym/HopperMuJoCo-v0 --dataset $data --episodes 4000
$worldgym evaluate hopper --dataset $data --episodes 128 --json $results/hopper_dream.json
cp runs/evaluate/hopper/dream.gif docs/images/hopper.gif
for on in dream mujoco; do
    $worldgym plan hopper --on $on --horizon 12 --hold 2 --replan-every 2 --episodes 50 --json $results/hopper_plan_$on.json
done
$worldgym plan hopper --planner random --episodes 50 --json $results/hopper_plan_random.json
