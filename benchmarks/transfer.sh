#!/usr/bin/env bash
# Does the dream rank policies as MuJoCo does, and on which other tables do its plans work? About two hours on two idle
# cores, most of it planning. Results land in benchmarks/results, the report in runs/transfer.
set -euo pipefail
cd "$(dirname "$0")/.."
export MUJOCO_GL="${MUJOCO_GL:-egl}"
world="${1:-tabletop}"
name="$(basename "$world")"
worldgym=.venv/bin/worldgym

# An agent in its making is a policy for each of its checkpoints.
$worldgym learn "$world" --agent sac --in dream --instruction "reach the centre" --steps 8000 --out "runs/transfer/$name/agent"
$worldgym transfer "$world" --instruction "reach the centre" --agents "runs/transfer/$name/agent" --samples 16 \
    --iterations 1 --episodes 20 --table-episodes 20 --factors colors camera_tilt --report "runs/transfer/$name/reach_the_centre" \
    --json "benchmarks/results/${name}_transfer_reach_the_centre.json"
cp "runs/transfer/$name/reach_the_centre/policies.png" docs/images/transfer_policies.png
# Every factor, inside its training range and outside, by the agent that learned in the dream.
$worldgym transfer "$world" --instruction "reach the centre" --agents "runs/transfer/$name/agent" --episodes 0 \
    --table-episodes 50 --no-table-planner --report "runs/transfer/$name/tables" \
    --json "benchmarks/results/${name}_transfer_tables.json"
$worldgym transfer "$world" --episodes 50 --table-episodes 50 --report "runs/transfer/$name" \
    --json "benchmarks/results/${name}_transfer.json"
