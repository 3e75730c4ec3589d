#!/usr/bin/env bash
# Every figure of the Reacher: about four hours on a core. Results land in benchmarks/results.
set -euo pipefail
cd "$(dirname "$0")/.."
export MUJOCO_GL="${MUJOCO_GL:-egl}"
worldgym=.venv/bin/worldgym
results=benchmarks/results
data=worldgym/reacher-v0

.venv/bin/python -c "import minari, sys; sys.exit('$data' not in minari.list_local_datasets())" ||
    $worldgym record --env worldgym/ReacherMuJoCo-v0 --dataset $data --episodes 3000
$worldgym evaluate reacher --dataset $data --episodes 128 --json $results/reacher_dream.json
cp runs/evaluate/reacher/dream.gif docs/images/reacher.gif
for on in dream mujoco; do
    $worldgym plan reacher --on $on --horizon 8 --action-repeat 2 --replan-every 2 --episodes 50 --json $results/reacher_plan_$on.json
done
learn() { # where, seed, further options
    local json="$results/reacher_learn_sac_$1_seed$2_30000.json"
    [[ -e $json ]] || $worldgym learn reacher --agent sac --in "$1" --steps 30000 --discount 0.95 --updates 1 \
        --episodes 50 --seed "$2" "${@:3}" --out "runs/agents/reacher_sac_$1_seed$2" --json "$json"
}
# A dream of fifty steps is no longer the Reacher; of twelve, begun anywhere in the recording, it is.
for seed in 0 1 2; do
    learn dream $seed --starts $data --horizon 12
    learn mujoco $seed
done
$worldgym plan reacher --planner random --episodes 50 --json $results/reacher_plan_random.json
