#!/usr/bin/env bash
# What is each part of the design worth? Tokenizers and dynamics from nothing, each with one part of ours replaced, on
# the Tabletop's recording: an hour of two cores. A run that was cut goes on with the variants that are not made yet.
source "$(dirname "$0")/setup.sh"
export OMP_NUM_THREADS=1
ablate="$python benchmarks/ablations.py"

record worldgym/tabletop-v0 --episodes 4000

# Two at a time; the first of each line also trains a tokenizer that others read.
$ablate --runs ours_0 ours_1 ours_2 queries_0 queries_kept_0 tokens_alone_0 &
$ablate --runs raster_0 raster_1 raster_2 single_0 symmetric_0
wait $!
$ablate # scales_0, timeless_0, and the table
