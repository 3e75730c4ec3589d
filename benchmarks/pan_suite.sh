#!/usr/bin/env bash
# PAN's evaluation of the bundled Tabletop: about twenty minutes on two idle cores, half of them planning. The figures
# land in benchmarks/results, the page in runs/evaluate.
source "$(dirname "$0")/setup.sh"

$worldgym evaluate tabletop --suite pan --episodes 128 --plan-episodes 20 --seed 0 \
    --json $results/pan_suite.json --report runs/evaluate/tabletop_pan
$python benchmarks/results_page.py --write
