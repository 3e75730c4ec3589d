#!/usr/bin/env bash
# On which other tables do a dream's plans and agents work? An hour on a core. Results land in benchmarks/results, the
# report in runs/transfer.
source "$(dirname "$0")/setup.sh"
world="${1:-tabletop}"
name="$(basename "$world")"

# The agent's dreams begin on tables of the training ranges.
varied=worldgym/tabletop-varied-v0
record $varied --variation train --episodes 300
$worldgym learn "$world" --agent sac --in dream --sees state --starts $varied --instruction "reach the centre" --steps 8000 \
    --out "runs/transfer/$name/agent"
$worldgym transfer "$world" --instruction "reach the centre" --agents "runs/transfer/$name/agent" --samples 16 \
    --iterations 1 --table-episodes 50 --report "runs/transfer/$name/reach_the_centre" \
    --json "$results/${name}_transfer_reach_the_centre.json"
# Pushing is what a strange table makes hard. The planner alone.
$worldgym transfer "$world" --instruction "push the * to the centre" --factors colors friction camera_tilt \
    --samples 32 --table-episodes 50 --report "runs/transfer/$name/push_to_the_centre" \
    --json "$results/${name}_transfer_push_to_the_centre.json"
