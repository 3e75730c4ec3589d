#!/usr/bin/env bash
# Every figure of the Reacher: about four hours on a core. Results land in benchmarks/results.
source "$(dirname "$0")/gymnasium_worlds.sh"
data=worldgym/reacher-v1

record $data --env worldgym/ReacherMuJoCo-v0 --episodes 3000
dream_and_plan reacher $data 8
for seed in 0 1 2; do
    learn_in_both reacher $data $seed 30000
    json="$results/reacher_learn_actor-critic_dream_seed${seed}_3000.json"
    [[ -e $json ]] || $worldgym learn reacher --agent actor-critic --discount 0.95 --starts $data --steps 3000 \
        --save-every 300 --seed "$seed" --out "runs/agents/reacher_actor-critic_seed$seed" --json "$json"
done
