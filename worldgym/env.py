"""The dream as a `gymnasium.Env`: a batch of one of dreams.py."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import gymnasium as gym
import numpy as np
from torch import Tensor

from .dreams import DreamOptions, Dreams
from .spaces import read_action
from .world import WorldModel

if TYPE_CHECKING:
    from .vector import DreamVectorEnv

RESET_OPTIONS = ("frames", "actions", "instruction")


class DreamEnv(gym.Env):
    """A learned world behind the Gymnasium API. Its physics is a neural network.

    `reset` starts from a held-out real frame that is bundled with the world, or from what was really seen:
    `reset(options={"frames": uint8 [t, h, w, 3], "actions": float32 [t - 1, a]})`. `options={"instruction": ...}`
    changes the task.
    `info` has "success" (bool), "uncertainty" (nats), "num_frames" (int), and unless actions are vectors
    "action_ok" (bool): False for a sentence that the world was not trained on, which is dreamed all the same. A dream
    that is cut because it grew too uncertain has "truncation_reason": "max_uncertainty".

    Args:
        world: a bundled name or a checkpoint folder.
        options: see `DreamOptions`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, world: str, *, render_mode: Literal["rgb_array"] | None = None, **options: Any):
        self._take(Dreams(1, DreamOptions(world, **options)), render_mode)

    @classmethod
    def of(cls, dreams: Dreams, render_mode: str | None = None) -> "DreamEnv":
        """The environment of a single dream that is already under way."""
        env = cls.__new__(cls)
        env._take(dreams, render_mode)
        return env

    def _take(self, dreams: Dreams, render_mode: str | None) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode {render_mode!r} must be None or 'rgb_array'")
        self.dreams, self.render_mode = dreams, render_mode
        self.action_space, self.observation_space = dreams.action_space, dreams.observation_space
        self._np_random = dreams.randoms[0]

    @property
    def world(self) -> WorldModel:
        return self.dreams.world

    @property
    def phrases(self) -> list[str]:
        """The sentences behind `action_mode="discrete"`."""
        return self.dreams.phrases

    @property
    def instruction(self) -> str | None:
        """What the dream is judged by; may be set at any time."""
        return self.dreams.instructions[0]

    @instruction.setter
    def instruction(self, instruction: str) -> None:
        self.dreams.instruct([instruction])

    @property
    def _max_episode_steps(self) -> int | None:
        """Where Gymnasium's TimeLimit keeps it, and LeRobot's rollout looks for it; None if none is set here."""
        return self.dreams.max_episode_steps

    # -- Gymnasium ----------------------------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        options = options or {}
        if unknown := set(options) - set(RESET_OPTIONS):
            raise ValueError(f"unknown reset options {sorted(unknown)}; known are {', '.join(RESET_OPTIONS)}")
        self.dreams.reset(
            seeds=[seed],
            frames=np.asarray(options["frames"])[None] if "frames" in options else None,
            actions=np.asarray(options["actions"])[None] if "actions" in options else None,
            instructions=[options["instruction"]] if "instruction" in options else None,
        )
        super().reset(seed=seed)
        self._np_random = self.dreams.randoms[0]  # the same generator, already further on
        return self._observation(), self.dreams.first_info

    def step(self, action):
        step = self.dreams.step([read_action(action, self.action_space, self.phrases)])
        info = {key: value.tolist()[0] for key, value in step.info.items()}
        return self._observation(), float(step.reward[0]), bool(step.terminated[0]), bool(step.truncated[0]), info

    def render(self) -> np.ndarray:
        return self.dreams.render()[0].cpu().numpy()

    # -- going several ways ---------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """Everything that evolves: what follows a `restore` is what would have followed here."""
        return self.dreams.snapshot()

    def restore(self, blob: bytes) -> None:
        """Return to a `snapshot()` of this world, taken in this process or another.

        The time limit of `gym.make` counts in a wrapper around this: `worldgym.env.restore(env, blob)` sets it, too.
        """
        self.dreams.restore(blob)
        self._np_random = self.dreams.randoms[0]

    @overload
    def fork(self) -> "DreamEnv": ...

    @overload
    def fork(self, copies: int) -> "DreamVectorEnv": ...

    def fork(self, copies: int | None = None) -> "DreamEnv | DreamVectorEnv":
        """An independent environment that goes on from here; with a number of `copies`, one batch of so many.

        They share the weights, the past, and the chances: the same actions lead to the same future.
        """
        from .vector import DreamVectorEnv

        if copies is None:
            return DreamEnv.of(self.dreams.fork(1), self.render_mode)
        return DreamVectorEnv.of(self.dreams.fork(copies), render_mode=self.render_mode)

    def _observation(self) -> np.ndarray | dict[str, np.ndarray]:
        return row(to_numpy(self.dreams.observe()), 0)


def restore(env: gym.Env, blob: bytes) -> None:
    """`env.unwrapped.restore(blob)` of a dream that `gym.make` has wrapped: its TimeLimit, too, goes on from there.

    Other wrappers keep what they have gathered; of an environment that was never reset, they see a reset first.
    (`DreamVectorEnv` and `DreamVecEnv` count for themselves.)
    """
    dream = env.unwrapped
    if not isinstance(dream, DreamEnv):
        raise TypeError(f"{dream} is no dream; a real twin's own is env.unwrapped.restore")
    if dream.dreams.state is None:
        env.reset()
    dream.restore(blob)
    while isinstance(env, gym.Wrapper):
        if isinstance(env, gym.wrappers.TimeLimit):
            vars(env)["_elapsed_steps"] = int(dream.dreams.elapsed[0])
        env = env.env


def to_numpy(observation: Tensor | dict[str, Tensor]) -> Any:
    if isinstance(observation, dict):
        return {key: value.cpu().numpy() for key, value in observation.items()}
    return observation.cpu().numpy()


def row(observation: Any, index: int) -> Any:
    """One dream's part of a batch of observations, a copy."""
    if isinstance(observation, dict):
        return {key: row(value, index) for key, value in observation.items()}
    return observation[index].clone() if isinstance(observation, Tensor) else observation[index].copy()


def get_each(dreams: Dreams, rows: Sequence[int], render_mode: str | None, name: str) -> list[Any]:
    """An attribute of `DreamEnv` for each of these dreams."""
    return [getattr(DreamEnv.of(dreams.select([index]), render_mode), name) for index in rows]


def call_each(
    dreams: Dreams, rows: Sequence[int], render_mode: str | None, name: str, args: tuple, kwargs: dict[str, Any]
) -> list[Any]:
    """A method of `DreamEnv`, called for each of these dreams as if it were alone."""
    results = []
    for index in rows:
        env = DreamEnv.of(dreams.select([index]), render_mode)
        state = env.dreams.state
        results.append(getattr(env, name)(*args, **kwargs))
        if env.dreams.state is not state:
            dreams.put([index], env.dreams)
    return results


def set_each(dreams: Dreams, rows: Sequence[int], name: str, values: Sequence[Any]) -> None:
    """Set an attribute of `DreamEnv` in each of these dreams; only the instruction can be set."""
    if name != "instruction":
        raise AttributeError(f"{name!r} cannot be set in a dream; 'instruction' can")
    instructions: list[Any] = list(dreams.instructions)
    for index, value in zip(rows, values, strict=True):
        instructions[index] = value
    dreams.instruct(instructions)
