#!/usr/bin/env bash
# Rounds of `worldgym improve` from the bundled Hopper, an agent among those who act, and what the agents are worth in
# other episodes: half an hour of a core for each seed.
source "$(dirname "$0")/setup.sh"

record worldgym/hopper-v1 --env worldgym/HopperMuJoCo-v0 --episodes 5000
for seed in 0 1 2; do
    $worldgym improve hopper --dataset worldgym/hopper-v1 --out "runs/improve/hopper_$seed" --seed "$seed" --rounds 6 \
        --real-steps 1600 --steps 400 --updates 500 --discount 0.97 --no-looks --horizon 16 --action-repeat 2 \
        --replan-every 2
done
$python benchmarks/improving.py hopper --runs runs/improve/hopper_{0,1,2}
