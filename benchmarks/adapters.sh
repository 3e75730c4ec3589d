#!/usr/bin/env bash
# Meta-World, dm_control and Gymnasium-Robotics. None runs with the newest MuJoCo, so each has an environment of its own
# (2 GB), as whoever installs the extra has it: the tests that need the package, recordings, short trainings, dreams.
# Three quarters of an hour on a core; a run that was cut goes on where it stopped. `adapters.sh robotics` does one extra.
source "$(dirname "$0")/setup.sh"
runs=runs/adapters
export OMP_NUM_THREADS=1 MINARI_DATASETS_PATH="$PWD/$runs/datasets"
mkdir -p $runs
grep -v '^mujoco==' constraints.txt > $runs/constraints.txt

setup() { # extra
    bin=$runs/$1/venv/bin
    [ -e "$bin/python" ] || $python -m venv "$runs/$1/venv"
    "$bin/python" -m pip install --quiet -c $runs/constraints.txt -e ".[$1]" beartype pytest
    "$bin/pytest" -q tests/envs_real/test_adapters.py
}

learn() { # name, id, what it goes on from, steps of both trainings, what else is told the dynamics
    data=adapters/$1-v0
    [ -e "$MINARI_DATASETS_PATH/$data" ] ||
        "$bin/worldgym" record --env "$2" --dataset $data --episodes 120 --steps 32 --workers 1
    from=$runs/$3/world
    [ -e "$from" ] || from=$3
    "$bin/worldgym" train tokenizer --dataset $data --out $runs/$1/tokenizer --begin-from "$from" --steps "$4" --batch 16
    "$bin/worldgym" train dynamics --dataset $data --tokenizer $runs/$1/tokenizer --out $runs/$1/world \
        --begin-from "$from" --steps "$5" --batch 4 --processes 1 --self-forcing 0 "${@:6}"
}

for extra in ${1:-robotics dm-control metaworld}; do
    setup $extra
    case $extra in
    metaworld) # one robot and one table: the other five tasks go on from the first one's world
        id=worldgym.envs_real.metaworld:MetaWorld
        learn hammer $id-hammer-v3 tabletop 700 400
        for task in button-press-topdown-wall coffee-push door-lock handle-pull-side plate-slide; do
            learn $task $id-$task-v3 hammer 150 100
        done
        "$bin/python" benchmarks/adapters.py hammer button-press-topdown-wall coffee-push door-lock handle-pull-side \
            plate-slide --packages metaworld mujoco
        ;;
    dm-control) # what moves fast is told by the difference of two frames
        learn cheetah-run shimmy:dm_control/cheetah-run-v0 tabletop 700 400 --memory 2
        learn walker-walk shimmy:dm_control/walker-walk-v0 cheetah-run 200 150 --memory 2
        "$bin/python" benchmarks/adapters.py cheetah-run walker-walk --packages dm_control shimmy mujoco
        ;;
    robotics)
        learn fetch-reach-dense gymnasium_robotics:FetchReachDense-v4 tabletop 700 400
        learn fetch-push-dense gymnasium_robotics:FetchPushDense-v4 fetch-reach-dense 150 100
        "$bin/python" benchmarks/adapters.py fetch-reach-dense fetch-push-dense --packages gymnasium-robotics mujoco
        ;;
    esac
done
