"""What `worldgym bench` measures, and by turns with it other people's ways to draw a frame.

    python benchmarks/bench.py

The baselines are plain PyTorch, as our plain step is, with random weights, as many as the world's dynamics have, its
threads and its dtype.
"""

from pathlib import Path

import tyro
from baselines import TIMED

from worldgym.cli.bench import Bench, bench

if __name__ == "__main__":
    bench(tyro.cli(Bench, default=Bench(json=Path("benchmarks/results/bench.json"))), TIMED)
