#!/usr/bin/env bash
# All that a GPU changes, in one command and within thirty minutes: every stage of a Tabletop is trained briefly, and the
# bundled one is timed. Results land in benchmarks/results/gpu; each names the card.
#   benchmarks/gpu.sh                                      # on a machine with a GPU
#   SIZE=toy RESULTS=runs/gpu/results benchmarks/gpu.sh    # tries the command itself, on any machine
source "$(dirname "$0")/setup.sh"
results="${RESULTS:-benchmarks/results/gpu}" runs="${RUNS:-runs/gpu/${SIZE:-full}}"
case "${SIZE:-full}" in
full)
    data=worldgym/gpu-v0 episodes=600 length=48 held_out=64
    tokenizer=(--steps 2000) dynamics=(--steps 2000) state=(--steps 2000) frames=(--steps 500)
    decoder=(--steps 300)
    bench=() futures=(--futures 64 1024 16384)
    ;;
toy)
    data=worldgym/gpu-toy-v0 episodes=100 length=24 held_out=8
    tokenizer=(--steps 2 --batch 4) dynamics=(--steps 2 --batch 2 --processes 1) state=(--steps 2 --batch 4)
    frames=(--steps 2 --batch 2 --processes 1) decoder=(--steps 2 --batch 4)
    bench=(--quick) futures=(--futures 64 --rounds 1)
    ;;
*) echo "SIZE is $SIZE; it must be full or toy" >&2; exit 2 ;;
esac
mkdir -p "$results"
$python -c "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU here: the CPU')"

timed() { # name, command: how long a stage took, next to what it ran on
    local began=$SECONDS
    "${@:2}"
    $python benchmarks/stage_seconds.py "$1" $((SECONDS - began)) "$results/seconds.json"
}

timed record record $data --episodes $episodes --steps $length
timed tokenizer $worldgym train tokenizer --dataset $data --out "$runs/tokenizer" "${tokenizer[@]}"
timed dynamics $worldgym train dynamics --dataset $data --tokenizer "$runs/tokenizer" --out "$runs/world" "${dynamics[@]}"
timed state $worldgym train state --dataset $data --world "$runs/world" --out "$runs/planned" "${state[@]}"
timed frames $worldgym train frames --dataset $data --world "$runs/planned" --out "$runs/drawn" "${frames[@]}"
timed decoder $worldgym train decoder --dataset $data --world "$runs/drawn" --out "$runs/decoder" "${decoder[@]}"
timed evaluate $worldgym evaluate "$runs/drawn" --episodes $held_out --json "$results/dream.json"
for dtype in float32 bfloat16; do
    timed "bench_$dtype" $worldgym bench tabletop --dtype $dtype "${bench[@]}" --json "$results/bench_$dtype.json"
done
timed imagined $python benchmarks/imagined.py tabletop --dataset $data --episodes $held_out --device auto "${futures[@]}" --json "$results/imagined.json"
