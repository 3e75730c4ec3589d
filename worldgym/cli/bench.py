"""`worldgym bench`: how fast a world dreams."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .arguments import TabletopByDefault

if TYPE_CHECKING:
    from ..bench import Baseline


@dataclass(frozen=True)
class Bench:
    """How fast a world dreams and is planned in, next to simulators.

    For example:
        worldgym bench --quick
    """

    world: TabletopByDefault = "tabletop"
    """A bundled world, a checkpoint folder, or user/name on the hub."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the matrix products."""
    quick: bool = False
    """A short run: two batch sizes and few rounds."""
    device: str = "auto"
    """"auto" takes a GPU where there is one."""
    json: Path | None = None
    """Write the figures here, with command, commit and hardware; the plot goes next to them."""


def bench(config: Bench, baselines: "Sequence[Baseline]" = ()) -> dict[str, Any]:
    import torch

    from ..bench import HORIZON, BenchSizes, plot, table
    from ..bench import bench as measure
    from ..dreams import DreamOptions, Dreams
    from ..envs_real.twins import TWINS, twin_of
    from ..planners.cem import CEM
    from ..planners.mpc import DreamReturns, Returns, TwinReturns
    from ..results import current_commit, write_results
    from ..world import WorldModel

    commit = current_commit()
    world = WorldModel.load(config.world, config.device, getattr(torch, config.dtype))
    dreams = Dreams(1, DreamOptions(config.world, device=config.device))
    dreams.reset(seeds=[0])
    returns = DreamReturns(world, world.config.instructions[0])
    returns.ground(dreams.render().cpu().numpy())
    judges: dict[str, Returns] = {"dream": returns}
    if world.config.twin in TWINS:
        twin = twin_of(world.config, world.config.instructions[0])
        twin.reset(seed=0)
        judges["mujoco"] = TwinReturns(twin)
    low, high = np.full((2, world.config.action_size), [[-1.0], [1.0]], np.float32)
    samples, rounds = 64, 4
    decide: dict[str, Callable[[], Any]] = {
        on: CEM(
            judge, low, high, horizon=HORIZON, samples=samples, iterations=rounds, choices=world.config.codec.choices
        ).plan
        for on, judge in judges.items()
    }
    sizes = BenchSizes.quick() if config.quick else BenchSizes()
    metrics = measure(world, config.world, sizes, decide, samples * rounds * HORIZON, baselines)
    print(table(metrics))
    if config.json:
        write_results(config.json, 0, metrics, commit)
        plot(metrics, config.json.with_suffix(".png"))
    return metrics
