"""A world on LeRobot's EnvHub: what the `env.py` does that `worldgym.hub.push` adds to a world.

    from lerobot.envs.factory import make_env
    envs = make_env("user/tabletop", n_envs=8, trust_remote_code=True)
    envs["tabletop"][0]       # 8 dreams of its first instruction, one batch

LeRobot downloads `env.py` alone and runs it with its user's consent. LeRobot itself is not needed here.
"""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array

from .actions import read_codec
from .checkpoint import load_config
from .env import DreamVectorEnv
from .hub import pull
from .spaces import on_host

NEW_ROLLOUT = "lerobot_new_rollout"
"""Among the options of a reset, LeRobot's mark of a new rollout, which every reset of a dream is."""
TASK = ("task", "task_description")
"""Where LeRobot looks for the instruction of a policy."""


class LeRobotDreams(VectorWrapper):
    """Dreams as LeRobot's rollouts take them: pictures are in "pixels", `call("task")` is the instruction, and
    "final_info" says "is_success". Actions are vectors, float32 [a] in [-1, 1], as in `minari_to_lerobot`."""

    def __init__(self, env: VectorEnv):
        super().__init__(env)
        self.single_observation_space = gym.spaces.Dict({"pixels": env.single_observation_space})
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.codec = self._dreams.dreams.codec
        self.single_action_space = read_codec(None, self.codec.size).space
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None):
        known = {name: value for name, value in (options or {}).items() if name != NEW_ROLLOUT}
        frames, infos = self.env.reset(seed=seed, options=known)
        return {"pixels": frames}, infos

    def step(self, actions: np.ndarray):
        frames, rewards, terminations, truncations, infos = self.env.step(self._own(actions))
        if "final_info" in infos:
            told = infos["final_info"]
            told |= {"is_success": told["success"], "_is_success": told["_success"]}
            for index in np.flatnonzero(infos["_final_obs"]):
                infos["final_obs"][index] = {"pixels": infos["final_obs"][index]}
        return {"pixels": frames}, rewards, terminations, truncations, infos

    def _own(self, vectors: np.ndarray) -> Any:
        """Actions of the world's own space."""
        if self.codec.plain:
            return vectors
        plain = read_codec(None, self.codec.size)
        own = [self.codec.decode(vector) for vector in plain.encode_batch(on_host(vectors), self.num_envs)]
        batch = create_empty_array(self.codec.space, self.num_envs)
        return concatenate(self.codec.space, own, batch)  # type: ignore[arg-type]  # of Gymnasium's own making

    @property
    def envs(self) -> "list[OneDream]":
        """Each dream alone, where LeRobot up to 0.4 looks for its task and its picture."""
        return [OneDream(self, index) for index in range(self.num_envs)]

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """A method or an attribute of each dream."""
        if name in TASK and not args and not kwargs:
            return self.get_attr(name)
        return self._dreams.call(name, *args, **kwargs)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """An attribute of each dream."""
        return self._dreams.get_attr("instruction" if name in TASK else name)

    @property
    def _dreams(self) -> DreamVectorEnv:
        assert isinstance(self.env.unwrapped, DreamVectorEnv)
        return self.env.unwrapped


class OneDream:
    """One dream of a batch, to be looked at."""

    def __init__(self, batch: LeRobotDreams, index: int):
        self._batch, self._index = batch, index

    @property
    def task(self) -> str:
        return self._batch.get_attr("task")[self._index]

    task_description = task

    def render(self) -> np.ndarray:
        return self._batch.call("render")[self._index]


def make_tasks(
    folder: Path, repo: str, n_envs: int = 1, task: str | None = None
) -> dict[str, dict[int, LeRobotDreams]]:
    """{name of the world: {number of the instruction: a batch of dreams that are judged by it}}.

    Args:
        folder: where `env.py` lies. If the hub's cache has that file alone, the rest of the same commit is fetched.
        repo: user/name that `env.py` came from.
        n_envs: dreams in each batch.
        task: the one instruction to make; all by default. Batches of one world share its weights.

    Raises:
        ValueError: unknown task; the world is neither next to `env.py` nor on the hub.
    """
    if not (folder / "model.safetensors").exists():
        if folder.parent.name != "snapshots":
            raise ValueError(
                f"{folder} holds an env.py without its world; put the other files of {repo} on the hub next to it"
            )
        pull(repo, folder.name, folder.parents[2])
    config, _ = load_config(folder)
    if task is not None and task not in config.instructions:
        raise ValueError(f"unknown task {task!r}; the world {config.name!r} has: {'; '.join(config.instructions)}")
    return {
        config.name: {
            number: LeRobotDreams(
                gym.make_vec(
                    "worldgym/Dream-v0", n_envs, world=str(folder), instruction=instruction, render_mode="rgb_array",
                    autoreset_mode="SameStep",
                )
            )
            for number, instruction in enumerate(config.instructions)
            if task in (None, instruction)
        }
    }  # fmt: skip
