"""Meta-World's tasks as iVideoGPT and SAMPO learn them: seen from the corner, every action taken twice.

Importing this registers them all, `MetaWorld-hammer-v3` and so on, hence the name by which they are recorded:
`worldgym record --env worldgym.envs_real.metaworld:MetaWorld-hammer-v3`.
"""

from typing import Any, Literal

import gymnasium as gym
import metaworld
import numpy as np

REPEAT = 2
"""Steps of Meta-World's, of 12.5 ms, in one step here; their rewards are summed, and success in any of them counts."""
STEPS = 200
"""In an episode, as the papers have it."""


class MetaWorldEnv(gym.Wrapper):
    """One task with its fifty goals, drawn by the seed.

    Meta-World's own ids (`Meta-World/MT1`) take the task as an argument, leave the seed of `reset` unheeded, and show
    what this camera sees upside down.
    """

    def __init__(self, task: str, render_mode: Literal["rgb_array"] | None = None):
        benchmark = metaworld.MT1(task, seed=0)
        self._theirs: Any = benchmark.train_classes[task](render_mode=render_mode, camera_name="corner")
        self._goals = benchmark.train_tasks
        super().__init__(self._theirs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        if seed is not None:
            self._theirs.seed(seed)
        self._theirs.set_task(self._goals[self.np_random.integers(len(self._goals))])
        return self._theirs.reset(options=options)

    def step(self, action: np.ndarray):
        total, success = 0.0, False
        for _ in range(REPEAT):
            observation, reward, terminated, truncated, info = self._theirs.step(action)
            total += float(reward)
            success |= bool(info["success"])
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, {**info, "success": success}

    def render(self) -> np.ndarray:
        return self._theirs.render()[::-1]


for _task in metaworld.ALL_V3_ENVIRONMENTS:
    gym.register(
        f"MetaWorld-{_task}", f"{__name__}:MetaWorldEnv", max_episode_steps=STEPS, kwargs={"task": _task},
        disable_env_checker=True,  # which warns of Meta-World's own observations, which are not used here
    )  # fmt: skip
