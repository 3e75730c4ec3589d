"""The settings of `worldgym record`. Light: the command line reads it without Minari or MuJoCo."""

from dataclasses import dataclass
from typing import Literal

from worldgym.episodes import check_resolution
from worldgym.errors import UserError

TABLETOP = "worldgym/TabletopMuJoCo-v0"
REACHER = "worldgym/ReacherMuJoCo-v0"
HOPPER = "worldgym/HopperMuJoCo-v0"
HELD_OUT = 1_000_000_007
"""Added to every seed of a judge, so that no held-out episode shares its seed with a recorded one."""

Fit = Literal["crop", "pad", "stretch"]
"""How a picture becomes square."""


@dataclass(frozen=True)
class RecordConfig:
    """Record a real environment into a Minari dataset, with exact pixels: the Tabletop in MuJoCo, or your own.

    For example:
        worldgym record --episodes 100 --dataset mine/few-v0
        worldgym record --env Reacher-v5 --dataset mine/arm-v0
        worldgym record --env CartPole-v1 --dataset mine/cart-v0 --fit pad
    """

    dataset: str = "worldgym/tabletop-v0"
    """Minari id of the dataset to write."""
    env: str = TABLETOP
    """Gymnasium id ("package:id" imports the package first); any that shows pictures. Its actions may be Box, Discrete,
    MultiDiscrete, MultiBinary, or a Dict or Tuple of those."""
    episodes: int = 4000
    """How many episodes."""
    steps: int = 48
    """Steps in each; fewer where the environment ends an episode (the Tabletop's episodes continue after success)."""
    seed: int = 0
    """Episode i is drawn from (seed, i)."""
    resolution: int = 64
    """Pixels a side of the frames."""
    variation: Literal["nominal", "train", "held_out"] = "nominal"
    """Which Tabletops: the nominal one, or factors of variation drawn from a range in each episode."""
    fit: Fit = "crop"
    """How a picture becomes square: "crop" keeps the middle, "pad" adds black bars, "stretch" distorts."""
    picture: str | None = None
    """The entry of its observations that is the picture, where those are a Dict and it renders none."""
    limits: tuple[float, float] | None = None
    """Between which numbers to act where the actions have no bounds of their own: LOW HIGH."""
    policy: str | None = None
    """Who acts next to noise: "module:function" (observation -> action), or an agent of Stable-Baselines3 as
    "sac:agent.zip". Every 16 steps a draw says who acts: noise, the policy, or both."""
    workers: int = 2
    """Processes that simulate and render."""
    ray: str | None = None
    """Where the workers are: "local" starts a Ray cluster on this machine, "auto" finds one that runs here, and
    HOST:PORT or ray://HOST:PORT is one elsewhere. By default they are processes of this machine, without Ray."""

    def __post_init__(self):
        from worldgym.storage import check_dataset_id  # brings Minari, which help can do without

        check_dataset_id(self.dataset)
        check_resolution(self.resolution)
        if self.episodes < 1 or self.steps < 1 or self.workers < 1:
            raise UserError(
                f"asked for {self.episodes} episodes of {self.steps} steps by {self.workers} workers; there must be "
                "at least one of each"
            )
        options = {"fit": self.fit != "crop", "picture": self.picture, "limits": self.limits, "policy": self.policy}
        asked = " and ".join(f"--{name}" for name, given in options.items() if given)
        if self.env in (TABLETOP, REACHER, HOPPER) and asked:
            raise UserError(
                f"{self.env} draws its own square pictures, has bounded actions and behaves as its recorder says: "
                f"leave out {asked}"
            )
