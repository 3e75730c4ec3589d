#!/usr/bin/env bash
# What LeRobot and WorldGym make of each other, for every LeRobot with data sets of layout v3.0 that Python 3.11 installs
# (later ones need Python 3.12). LeRobot wants an older hub client and an older torch than WorldGym, so neither is
# installed with its dependencies: the environment borrows those of .venv, and pip gets the rest by name. Five minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=runs/with_lerobot
export MUJOCO_GL="${MUJOCO_GL:-egl}" OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
[ -e $runs/venv ] || .venv/bin/python -m venv $runs/venv
site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "import site; site.addsitedir('$site')" > "$($runs/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/borrowed.pth"
install() { HF_HUB_OFFLINE=0 $runs/venv/bin/python -m pip install --quiet --no-deps "$@"; }
install 'datasets<5' 'transformers<5' 'tokenizers<0.23' 'huggingface-hub<0.36' 'diffusers<0.36' torchvision==0.28.0 av cachebox \
    'deepdiff<9' dill draccus==0.10.0 einops hf-xet jsonlines mergedeep multiprocess mypy-extensions orderly-set pandas pyserial \
    python-dateutil pytz pyyaml-include six termcolor toml typing-inspect xxhash
for version in ${1:-0.4.0 0.4.1 0.4.2 0.4.3 0.4.4}; do
    install "lerobot==$version"
    $runs/venv/bin/python -W ignore benchmarks/with_lerobot.py --json benchmarks/results/lerobot_$version.json
done
