"""The bundled worlds' environments, recorded as anybody's are: by random actions alone, one task each.

`own_worlds:own/Hopper-v0` with benchmarks/ on the Python path. Their own recorders know gaits and controllers, which a
world from nothing must not.
"""

from typing import Any

import gymnasium as gym

import worldgym  # noqa: F401  (registers them)

OWN: dict[str, tuple[int, dict[str, Any]]] = {
    "Reacher": (50, {"id": "worldgym/ReacherMuJoCo-v0"}),
    "Hopper": (50, {"id": "worldgym/HopperMuJoCo-v0"}),
    "Reach": (40, {"id": "worldgym/TabletopMuJoCo-v0", "instruction": "reach the centre"}),
    "Push": (40, {"id": "worldgym/TabletopMuJoCo-v0", "instruction": "push the red block to the centre"}),
}
"""How many steps an episode has at most, and what is made."""


class Own(gym.Wrapper):
    """An environment by its id."""

    def __init__(self, id: str, render_mode: str | None = None, **options: Any):
        super().__init__(gym.make(id, render_mode=render_mode, **options))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Its one task is its own, whatever the recording calls it."""
        return self.env.reset(seed=seed)


for name, (steps, made) in OWN.items():
    gym.register(f"own/{name}-v0", Own, kwargs=made, max_episode_steps=steps)
