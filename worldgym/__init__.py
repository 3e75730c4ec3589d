"""WorldGym: learned video world models that are Gymnasium environments."""

from typing import TYPE_CHECKING

import gymnasium as gym

if TYPE_CHECKING:
    from .world import Outcome, WorldModel, WorldState

__version__ = "0.1.0"
__all__ = ["Outcome", "WorldModel", "WorldState"]


def __getattr__(name: str):
    """Import torch only when the world model itself is asked for."""
    if name in __all__:
        from . import world

        return getattr(world, name)
    raise AttributeError(f"module 'worldgym' has no attribute {name!r}")


def _register() -> None:
    """Dreams and their real twins; classes are named by path, so registering imports none of them."""
    gym.register("worldgym/Tabletop-v0", "worldgym.env:DreamEnv", kwargs={"world": "tabletop"}, max_episode_steps=40)
    gym.register("worldgym/TabletopMuJoCo-v0", "worldgym.envs_real.tabletop:TabletopEnv", max_episode_steps=40)
    gym.register("worldgym/Dream-v0", "worldgym.env:DreamEnv", max_episode_steps=40)


_register()
