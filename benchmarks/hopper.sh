#!/usr/bin/env bash
# Every figure of the Hopper: about an hour and a half on a core. Results land in benchmarks/results.
set -euo pipefail
cd "$(dirname "$0")/.."
export MUJOCO_GL="${MUJOCO_GL:-egl}"
worldgym=.venv/bin/worldgym
results=benchmarks/results
data=worldgym/hopper-v1

.venv/bin/python -c "import minari, sys; sys.exit('$data' not in minari.list_local_datasets())" ||
    $worldgym record --env worldgym/HopperMuJoCo-v0 --dataset $data --episodes 5000
$worldgym evaluate hopper --dataset $data --episodes 128 --json $results/hopper_dream.json
cp runs/evaluate/hopper/dream.gif docs/images/hopper.gif
for on in dream mujoco; do
    $worldgym plan hopper --on $on --horizon 12 --action-repeat 2 --replan-every 2 --episodes 50 --json $results/hopper_plan_$on.json
done
$worldgym plan hopper --planner random --episodes 50 --json $results/hopper_plan_random.json
learn() { # where, seed, steps, folder of the run, further options
    local json="$results/hopper_learn_sac_$1_seed$2_$3.json"
    [[ -e $json ]] || $worldgym learn hopper --agent sac --in "$1" --steps "$3" --discount 0.95 --updates 1 \
        --episodes 50 --seed "$2" "${@:5}" --out "$4" --json "$json"
}
both() { # seed, steps, what to add to the folders' names
    learn dream "$1" "$2" "runs/agents/hopper_sac_dream_seed$1$3" --starts $data --horizon 12
    learn mujoco "$1" "$2" "runs/agents/hopper_sac_mujoco_seed$1$3"
}
for seed in 0 1 2; do both $seed 10000 ""; done
both 0 30000 _30000
