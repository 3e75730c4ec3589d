"""Add how long a stage of gpu.sh took to a results file: `python benchmarks/stage_seconds.py STAGE SECONDS FILE`."""

import json
import sys
from pathlib import Path

from worldgym.results import current_commit, write_results

if __name__ == "__main__":
    stage, seconds, file = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    before = json.loads(file.read_text(encoding="utf-8"))["metrics"] if file.exists() else {}
    write_results(file, 0, {**before, stage: seconds}, current_commit())
