#!/usr/bin/env bash
# Rounds of `worldgym improve` from the bundled Hopper and Reacher, an agent among those who act, and what their agents
# are worth in other episodes: forty minutes of a core for each run.
source "$(dirname "$0")/setup.sh"

improve() { # world, seed, options
    world=$1 seed=$2
    shift 2
    $worldgym improve "$world" --out "runs/improve/${world}_$seed" --seed "$seed" --rounds 6 --real-steps 1600 \
        --steps 400 --updates 500 --no-looks --action-repeat 2 --replan-every 2 "$@"
}

record worldgym/hopper-v1 --env worldgym/HopperMuJoCo-v0 --episodes 5000
record worldgym/reacher-v1 --env worldgym/ReacherMuJoCo-v0 --episodes 3000
for seed in 0 1 2; do
    improve hopper $seed --dataset worldgym/hopper-v1 --discount 0.97 --horizon 16
done
$python benchmarks/improving.py hopper --runs runs/improve/hopper_{0,1,2}
improve reacher 0 --dataset worldgym/reacher-v1 --horizon 8
$python benchmarks/improving.py reacher --runs runs/improve/reacher_0
