#!/usr/bin/env bash
# What do more parameters, more pixels and a longer memory give? An hour and a quarter of one core; the tokenizer of
# ablations.sh is read if it is there. A run that was cut goes on with the variants that are not made yet.
source "$(dirname "$0")/setup.sh"
export OMP_NUM_THREADS=1

record worldgym/tabletop-v0 --episodes 4000
$python benchmarks/scaling.py
