"""WorldGym: learned video world models that are Gymnasium environments."""

from importlib import import_module
from typing import TYPE_CHECKING

import gymnasium as gym

if TYPE_CHECKING:
    from .checks import check_dream_env, check_vector_env, check_world
    from .world import Outcome, WorldModel, WorldState

__version__ = "0.1.0"
__all__ = ["Outcome", "WorldModel", "WorldState", "check_dream_env", "check_vector_env", "check_world"]


def __getattr__(name: str):
    """Import torch only when something that needs it is asked for."""
    if name in __all__:
        return getattr(import_module(".checks" if name.startswith("check_") else ".world", __name__), name)
    raise AttributeError(f"module 'worldgym' has no attribute {name!r}")


def _register() -> None:
    """Dreams and their real twins; classes are named by path, so registering imports none of them."""
    for name, steps, kwargs in (
        ("Tabletop", 40, {"world": "tabletop"}), ("Reacher", 50, {"world": "reacher"}),
        ("Hopper", 50, {"world": "hopper"}), ("Dream", 40, {}),
    ):  # fmt: skip
        gym.register(
            f"worldgym/{name}-v0", "worldgym.env:DreamEnv", max_episode_steps=steps, kwargs=kwargs,
            vector_entry_point="worldgym.vector:DreamVectorEnv",
        )  # fmt: skip
    gym.register(
        "worldgym/Pan-v0", "worldgym.pan.env:PanEnv", max_episode_steps=10,
        vector_entry_point="worldgym.pan.env:PanVectorEnv",
    )  # fmt: skip
    gym.register("worldgym/Remote-v0", "worldgym.serve.client:RemoteEnv")  # whose server counts the steps
    gym.register("worldgym/TabletopMuJoCo-v0", "worldgym.envs_real.tabletop:TabletopEnv", max_episode_steps=40)
    gym.register("worldgym/ReacherMuJoCo-v0", "worldgym.envs_real.reacher:ReacherEnv", max_episode_steps=50)
    gym.register("worldgym/HopperMuJoCo-v0", "worldgym.envs_real.hopper:HopperEnv", max_episode_steps=50)


_register()
