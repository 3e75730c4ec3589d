"""How fast a world dreams, next to simulators and to other people's ways to draw a frame.

    python benchmarks/bench.py

What `worldgym bench` measures, and by turns with it the baselines: plain PyTorch, as our plain step is, with random
weights, as many as the world's dynamics have, its threads and its dtype.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium as gym
import numpy as np
import torch
import tyro
from baselines import TIMED

from worldgym.bench import HORIZON, BenchSizes, bench, plot, table
from worldgym.dreams import DreamOptions, Dreams
from worldgym.planners import CEM, DreamReturns, TwinReturns
from worldgym.results import current_commit, write_results
from worldgym.world import WorldModel

SAMPLES, ITERATIONS = 64, 4
"""Of a decision of CEM."""


@dataclass(frozen=True)
class Speed:
    """Time a world with pixels, without and in planning, against baselines and simulators."""

    world: Annotated[str, tyro.conf.Positional] = "tabletop"
    """A bundled world that has a twin, or a checkpoint folder of one."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    quick: bool = False
    device: str = "auto"
    json: Path = Path("benchmarks/results/bench.json")
    """The plot goes next to it."""


def main(config: Speed) -> None:
    commit, world = current_commit(), WorldModel.load(config.world, config.device, getattr(torch, config.dtype))
    sizes = BenchSizes.quick() if config.quick else BenchSizes()
    tried = SAMPLES * ITERATIONS * HORIZON
    metrics: dict[str, Any] = bench(world, config.world, sizes, decisions(world, config), tried, TIMED)
    print(table(metrics))
    write_results(config.json, 0, metrics, commit)
    plot(metrics, config.json.with_suffix(".png"))


def decisions(world: WorldModel, config: Speed) -> dict[str, Callable[[], Any]]:
    """One decision of CEM in the dream, and one on true physics."""
    instruction = world.config.instructions[0]
    dreams = Dreams(1, DreamOptions(config.world, device=config.device))
    dreams.reset(seeds=[0])
    in_dream = DreamReturns(world, instruction)
    in_dream.ground(dreams.render().cpu().numpy())
    twin = gym.make(world.config.twin, instruction=instruction)
    twin.reset(seed=0)
    low, high = np.full((2, world.config.action_size), [[-1.0], [1.0]], np.float32)
    return {
        on: CEM(returns, low, high, horizon=HORIZON, samples=SAMPLES, iterations=ITERATIONS).plan
        for on, returns in (("dream", in_dream), ("mujoco", TwinReturns(twin)))
    }


if __name__ == "__main__":
    main(tyro.cli(Speed))
