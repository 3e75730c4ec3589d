#!/usr/bin/env bash
# Does each dream rank policies as MuJoCo does? Twenty minutes on a core, and as much for each agent that is not there.
# Results land in benchmarks/results, the reports in runs/rank.
source "$(dirname "$0")/setup.sh"

rank() { # name of the results, world, options
    name=$1
    shift
    $worldgym rank "$@" --report "runs/rank/$name" --json "$results/rank_$name.json"
}
agent() { # folder, world, options: an agent in its making is a policy for each of its checkpoints
    out=$1
    shift
    [[ -e $out/run.json ]] || $worldgym learn "$@" --out "$out"
}

agent runs/rank/agents/reach tabletop --agent sac --in dream --sees state --instruction "reach the centre" --steps 8000
rank tabletop_reach tabletop --instruction "reach the centre" --agents runs/rank/agents/reach --samples 4 16
agent runs/rank/agents/push tabletop --agent actor-critic --discount 0.95 --starts worldgym/tabletop-v0 \
    --instruction "push the red block to the centre" --steps 3000 --save-every 500
rank tabletop_push tabletop --instruction "push the red block to the centre" --agents runs/rank/agents/push --samples 4 16
agent runs/rank/agents/reacher reacher --agent actor-critic --discount 0.95 --starts worldgym/reacher-v1 --steps 3000 \
    --save-every 300
rank reacher reacher --imagined --agents runs/rank/agents/reacher --horizon 8 --action-repeat 2 --replan-every 2
for seed in 0 1 2; do # guided.py takes these as well
    agent runs/agents/hopper_$seed hopper --agent actor-critic --discount 0.97 --starts worldgym/hopper-v1 --steps 4000 \
        --seed $seed
done
rank hopper hopper --imagined --agents runs/agents/hopper_{0,1,2} --horizon 16 --action-repeat 2 --replan-every 2
cp runs/rank/tabletop_push/policies.png docs/images/ranked_policies.png
