"""What `worldgym record` can be asked for. Light: the command line reads it without Minari or MuJoCo."""

from dataclasses import dataclass
from typing import Literal

TABLETOP = "worldgym/TabletopMuJoCo-v0"
REACHER = "worldgym/ReacherMuJoCo-v0"
HOPPER = "worldgym/HopperMuJoCo-v0"


@dataclass(frozen=True)
class RecordConfig:
    """Record a real environment into a Minari dataset, with exact pixels: the Tabletop in MuJoCo, or your own.

    For example:
        worldgym record --episodes 100 --dataset mine/few-v0
        worldgym record --env Reacher-v5 --dataset mine/arm-v0
    """

    dataset: str = "worldgym/tabletop-v0"
    """Minari id of the dataset to write."""
    env: str = TABLETOP
    """Gymnasium id ("package:id" imports the package first); any with bounded vector actions that shows pictures."""
    episodes: int = 4000
    """How many episodes."""
    steps: int = 48
    """Steps in each; fewer where the environment ends an episode (the Tabletop's go on after success)."""
    seed: int = 0
    """Episode i is drawn from (seed, i)."""
    resolution: int = 64
    """Pixels a side of the frames."""
    variation: Literal["nominal", "train", "held_out"] = "nominal"
    """Which Tabletops: the nominal one, or factors of variation drawn from a range in each episode."""
    workers: int = 2
    """Processes that simulate and render."""
