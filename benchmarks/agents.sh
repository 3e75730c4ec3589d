#!/usr/bin/env bash
# Agents that learn in the dream against the same agents in MuJoCo, and MBPO against SAC for real steps: about an hour on
# two idle cores. A run that was cut goes on where it stopped. Results land in benchmarks/results.
source "$(dirname "$0")/setup.sh"
world="${1:-tabletop}"
name="$(basename "$world")"

learn() { # agent, where, steps, seed
    local json="$results/${name}_learn_$1_$2_seed$4_$3.json"
    # More steps go on with the run of fewer: a point of a learning curve each. Made already? Then it is in the past.
    [[ -e $json ]] || $worldgym learn "$world" --agent "$1" --in "$2" --instruction "reach the centre" --steps "$3" \
        --seed "$4" --episodes 50 --out "runs/agents/${name}_$1_$2_seed$4" --json "$json"
}

# Real steps: MBPO's with fewer of them against SAC's learning curve, three seeds each. SAC's last point is the same agent
# in MuJoCo for as many steps as it gets in the dream.
for seed in 0 1 2; do
    for steps in 500 1000 1500 2500; do
        learn mbpo mujoco $steps $seed
    done
    for steps in 1500 3000 4500 8000; do
        learn sac mujoco $steps $seed
    done
    learn sac dream 8000 $seed
done
for where in dream mujoco; do
    learn ppo $where 50000 0
done
