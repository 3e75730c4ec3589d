# What hopper.sh and reacher.sh do alike: they begin with `source "$(dirname "$0")/gymnasium_worlds.sh"`.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

dream_and_plan() { # world, its recording, steps that a plan looks ahead
    $worldgym evaluate "$1" --dataset "$2" --episodes 128 --json "$results/$1_dream.json"
    cp "runs/evaluate/$1/dream.gif" "docs/images/$1.gif"
    for on in dream mujoco; do
        $worldgym plan "$1" --on $on --horizon "$3" --action-repeat 2 --replan-every 2 --episodes 50 \
            --json "$results/$1_plan_$on.json"
    done
    $worldgym plan "$1" --planner random --episodes 50 --json "$results/$1_plan_random.json"
}

learn() { # world, where, seed, steps, what to add to the name of the run's folder, further options
    local json="$results/$1_learn_sac_$2_seed$3_$4.json"
    [[ -e $json ]] || $worldgym learn "$1" --agent sac --in "$2" --steps "$4" --discount 0.95 --updates 1 \
        --episodes 50 --seed "$3" "${@:6}" --out "runs/agents/$1_sac_$2_seed$3$5" --json "$json"
}

# A dream of a whole episode is no longer its world; of twelve steps, begun anywhere in the recording, it is.
learn_in_both() { # world, its recording, seed, steps, what to add to the names of the runs' folders
    learn "$1" dream "$3" "$4" "${5:-}" --starts "$2" --horizon 12
    learn "$1" mujoco "$3" "$4" "${5:-}"
}
