#!/usr/bin/env bash
# The recurrent state of a bundled world, the frames that are drawn from it, and the figures of both: two hours a world on
# one core. improving.sh lets an agent and a planner add to the Hopper's.
# benchmarks/states.sh tabletop|reacher|hopper
source "$(dirname "$0")/setup.sh"
world=$1 longer=()
case $world in
tabletop) data=worldgym/tabletop-v0 recording=(--episodes 4000) training=()
    frames=(--steps 800 --learning-rate 0.00015 --rereads)
    ;;
reacher)
    data=worldgym/reacher-v1 recording=(--env worldgym/ReacherMuJoCo-v0 --episodes 3000)
    training=(--no-looks --ahead 12 --observed 4) longer=(8000 9000)
    frames=(--steps 1400)
    ;;
hopper)
    data=worldgym/hopper-v1 recording=(--env worldgym/HopperMuJoCo-v0 --episodes 5000)
    training=(--no-looks --points 0) frames=(--steps 1000)
    ;;
*) echo "unknown world $world" >&2; exit 2 ;;
esac

record $data "${recording[@]}"
planned="runs/states/$world/planned"
$worldgym train state --world "$world" --dataset $data --out "$planned" "${training[@]}"
for steps in "${longer[@]}"; do # trained on from its own weights, further ahead
    $worldgym train state --world "$planned" --no-fresh --dataset $data --out "${planned}_$steps" --steps "$steps" \
        --no-looks --ahead 24 --observed 4 --learning-rate 0.0015
    planned="${planned}_$steps"
done
$worldgym train frames --world "$planned" --dataset $data --out "runs/states/$world/drawn" --processes 1 "${frames[@]}"
$worldgym export "runs/states/$world/drawn" "worlds/$world"
$python benchmarks/imagined.py "$world" --dataset $data
