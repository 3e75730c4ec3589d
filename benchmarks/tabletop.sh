#!/usr/bin/env bash
# Every figure of the Tabletop in the README: about half an hour on two cores. Results land in benchmarks/results.
source "$(dirname "$0")/setup.sh"

$worldgym evaluate tabletop --episodes 256 --json $results/tabletop_dream.json --report runs/evaluate/tabletop
for task in reach push; do
    instruction=("reach *")
    [[ $task == push ]] && instruction=("push the * to the centre" "push the * side" "push the * corner")
    for on in dream mujoco; do
        $worldgym plan tabletop --on $on --instruction "${instruction[@]}" --episodes 50 --json $results/tabletop_plan_${task}_$on.json
    done
    $worldgym plan tabletop --planner random --instruction "${instruction[@]}" --episodes 50 --json $results/tabletop_plan_${task}_random.json
done
$python benchmarks/table.py
