"""Other people's environments for environments.py, with episodes short enough to plan in and, where it differs, their
Gymnasium interface: `short_worlds:short/CartPole-v0` with benchmarks/ on the Python path.
"""

from importlib import import_module
from typing import Any

import gymnasium as gym
import numpy as np

STEPS = 200
"""Of an episode, at most."""


class Crafter(gym.Env):
    """Crafter (Hafner, 2021, arXiv 2109.06780), which has Gym's old interface; a seed begins its world anew."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    action_space = gym.spaces.Discrete(17)

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode
        self._crafter = import_module("crafter")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self._game = self._crafter.Env(seed=int(self.np_random.integers(2**31)))
        return self._game.reset(), {}

    def step(self, action):
        frame, reward, over, _ = self._game.step(int(action))
        return frame, float(reward), bool(over), False, {}

    def render(self):
        return self._game.render((64, 64))


OTHERS = {
    "InvertedPendulum": "InvertedPendulum-v5",
    "Pusher": "Pusher-v5",
    "HalfCheetah": "HalfCheetah-v5",
    "Swimmer": "Swimmer-v5",
    "Pendulum": "Pendulum-v1",
    "Acrobot": "Acrobot-v1",
    "LunarLander": "LunarLander-v3",
    "CarRacing": "CarRacing-v3",
    "MiniGrid": "minigrid:MiniGrid-Empty-Random-6x6-v0",
    "Pong": "ale_py:ALE/Pong-v5",
    "Breakout": "ale_py:ALE/Breakout-v5",
    "CartPole": "CartPole-v1",
}
"""Ids, and the packages that register them."""


class Other(gym.Wrapper):
    """An environment by its id."""

    def __init__(self, id: str, render_mode: str | None = None):
        super().__init__(gym.make(id, render_mode=render_mode, max_episode_steps=STEPS))


for name, id in OTHERS.items():
    gym.register(f"short/{name}-v0", Other, kwargs={"id": id}, max_episode_steps=STEPS)
gym.register("short/Crafter-v0", Crafter, max_episode_steps=STEPS)
