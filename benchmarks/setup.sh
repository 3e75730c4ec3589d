# What the scripts next to it share: they begin with `source "$(dirname "$0")/setup.sh"`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export MUJOCO_GL="${MUJOCO_GL:-egl}"
python=.venv/bin/python
worldgym=.venv/bin/worldgym
results=benchmarks/results

record() { # Minari id, options of `worldgym record`: a recording that is there stays as it is
    $python -c "import minari, sys; sys.exit('$1' not in minari.list_local_datasets())" ||
        $worldgym record --dataset "$@"
}
