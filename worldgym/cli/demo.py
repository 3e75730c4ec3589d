"""`worldgym demo`: the whole way in a minute."""

from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from .arguments import TabletopByDefault


@dataclass(frozen=True)
class Demo:
    """The whole way in a minute: dream, plan in the dream, succeed in MuJoCo.

    For example:
        worldgym demo
    """

    world: TabletopByDefault = "tabletop"
    """A Tabletop: a bundled world, a checkpoint folder, or user/name on the hub."""
    out: Path = Path("runs/demo")
    """Where the pictures and the page go."""
    episodes: int = 10
    """Episodes for each of the two tasks and each way to act."""
    seed: int = 0
    """Of the episodes."""

    def __post_init__(self):
        if self.episodes < 1:
            raise UserError(f"episodes is {self.episodes}; it must be positive")


def demo(config: Demo) -> None:
    from ..envs_real.twins import held_out_cases
    from ..world import WorldModel
    from .demonstration import demonstrate

    world = WorldModel.load(config.world)
    held_out_cases(world.config)
    demonstrate(world, config.world, config.out, config.episodes, config.seed)
