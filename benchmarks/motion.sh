#!/usr/bin/env bash
# What is the motion prompt worth? The Reacher, whose speed no frame tells, four times alike: told nothing of motion,
# prompted with trajectories, given the differences of frames, and both. All go on from the bundled world, which has
# both, for as many steps: what one of them is worth when a world can get used to doing without. Half an hour on two
# cores, recording and tokenizer included; a run that was cut goes on where it stopped.
source "$(dirname "$0")/setup.sh"
STEPS=${STEPS:-240}
SEEDS=${SEEDS:-0}
data=worldgym/reacher-v0

record $data --env worldgym/ReacherMuJoCo-v0 --episodes 3000
$worldgym train tokenizer --dataset $data --out runs/reacher/tokenizer --begin-from tabletop --steps 1500

learn() { # name, seed, how it is told of motion
    $worldgym train dynamics --dataset $data --tokenizer runs/reacher/tokenizer --begin-from reacher \
        --out "runs/motion/$1_$2/world" --steps "$STEPS" --learning-rate 3e-4 --seed "$2" --self-forcing 0 "${@:3}"
}

for seed in $SEEDS; do
    learn nothing "$seed"
    learn prompt "$seed" --prompt 4
    learn differences "$seed" --memory 4
    learn both "$seed" --prompt 3 --memory 2
done
$python benchmarks/motion.py --worlds runs/motion/*_*/world
