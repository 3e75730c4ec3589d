#!/usr/bin/env bash
# Every figure of the Hopper: about an hour and a half on a core. Results land in benchmarks/results.
source "$(dirname "$0")/gymnasium_worlds.sh"
data=worldgym/hopper-v1

record $data --env worldgym/HopperMuJoCo-v0 --episodes 5000
dream_and_plan hopper $data 12
for seed in 0 1 2; do learn_in_both hopper $data $seed 10000; done
learn_in_both hopper $data 0 30000 _30000
