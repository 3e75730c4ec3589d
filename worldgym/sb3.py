"""Many dreams as a Stable-Baselines3 `VecEnv`: one batch of dreams.py, one forward pass for all of them.

from worldgym.sb3 import DreamVecEnv
PPO("CnnPolicy", DreamVecEnv("worldgym/Tabletop-v0", 64, instruction="reach the centre")).learn(100_000)
"""

import time
import warnings
from collections.abc import Sequence
from importlib import import_module
from secrets import randbits
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices
from torch import Tensor

from .dreams import DreamBatch, DreamOptions, Dreams
from .env import RESET_OPTIONS, call_each, get_each, row, set_each, to_numpy
from .spaces import on_host


class DreamVecEnv(VecEnv):
    """`DreamVecEnv("worldgym/Tabletop-v0", 64, ...the keyword arguments of gym.make)`.

    At an end, `infos[i]` has "terminal_observation", "TimeLimit.truncated" and "episode" (return, length, seconds),
    and the dream restarts at once; no VecMonitor is needed. With an instruction there is also "is_success".

    Args:
        id: of a dream, with the module that registers it if it is not imported yet, "worldgym:worldgym/Tabletop-v0";
            its own `max_episode_steps` holds unless another is given.
        options: see `DreamOptions`; actions that are sentences are "discrete" ones here.
    """

    def __init__(
        self,
        id: str,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        render_mode: Literal["rgb_array"] | None = None,
        **options: Any,
    ):
        module, _, name = id.rpartition(":")
        if module:
            import_module(module)
        spec = gym.spec(name)
        if spec.vector_entry_point != "worldgym.vector:DreamVectorEnv":
            raise ValueError(f"{id} is no dream; stable_baselines3.common.env_util.make_vec_env({id!r}) makes others")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode {render_mode!r} must be None or 'rgb_array'")
        if (mode := options.get("action_mode", "vector")) not in ("vector", "discrete"):
            raise ValueError(
                f"action_mode is {mode!r}, but Stable-Baselines3 knows no text; 'discrete' chooses among the sentences"
            )
        limit = spec.max_episode_steps if max_episode_steps is None else max_episode_steps
        self._take(Dreams(num_envs, DreamOptions(**{**spec.kwargs, **options}), limit), render_mode)

    @classmethod
    def of(cls, dreams: DreamBatch, render_mode: str | None = None) -> "DreamVecEnv":
        """The environment of dreams that are already under way."""
        env = cls.__new__(cls)
        env._take(dreams, render_mode)
        return env

    def _take(self, dreams: DreamBatch, render_mode: str | None) -> None:
        self.dreams = dreams
        self.render_mode: str | None = render_mode
        self._actions: list[np.ndarray | str] = []
        self._began = np.full(len(dreams), time.monotonic())
        super().__init__(len(dreams), dreams.observation_space, dreams.action_space)

    # -- Stable-Baselines3 ------------------------------------------------------------------------------------------

    def reset(self) -> Any:
        """The first observations; seeds and options that were set before are used once."""
        options = self._options if any(self._options) else None
        asked: dict[str, list[Any] | None] = dict.fromkeys(RESET_OPTIONS)
        if options is not None:
            names = set(options[0])
            if unknown := names - set(RESET_OPTIONS):
                raise ValueError(f"unknown reset options {sorted(unknown)}; known are {', '.join(RESET_OPTIONS)}")
            if any(set(other) != names for other in options):
                raise ValueError(f"all dreams must have the same reset options; the first has {sorted(names)}")
            asked |= {name: [other[name] for other in options] for name in names}
        frames = None if asked["frames"] is None else np.stack(on_host(asked["frames"]))
        actions = None
        if asked["actions"] is not None:
            actions = np.stack([self.dreams.read_past(given) for given in asked["actions"]])
        self.dreams.reset(None, self._seeds, frames, actions, asked["instruction"])
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [self.dreams.first_info for _ in range(self.num_envs)]
        self._began[:] = time.monotonic()
        return to_numpy(self.dreams.observe())

    def step_async(self, actions: np.ndarray | Tensor | Sequence) -> None:
        if len(actions) != self.num_envs:
            raise ValueError(f"got {len(actions)} actions for {self.num_envs} dreams")
        self._actions = [self.dreams.read(action) for action in actions]

    def step_wait(self):
        dreams = self.dreams
        step = dreams.step(self._actions)
        observation, ended = to_numpy(dreams.observe()), dreams.over.copy()
        columns = {key: values.tolist() for key, values in step.info.items()}
        infos: list[dict[str, Any]] = [
            dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
        ]
        for index, info in enumerate(infos):
            info["TimeLimit.truncated"] = bool(step.truncated[index] and not step.terminated[index])
        now = time.monotonic()
        for index in np.flatnonzero(ended).tolist():
            infos[index] |= {
                "terminal_observation": row(observation, index),
                "episode": {
                    "r": round(float(dreams.returns[index]), 6),
                    "l": int(dreams.elapsed[index]),
                    "t": round(now - self._began[index], 6),
                },
            }
            if dreams.instructions[index] is not None:
                infos[index]["is_success"] = infos[index]["success"]
            self.reset_infos[index] = self.dreams.first_info
        if ended.any():
            dreams.reset(ended)
            self._began[ended] = now
            observation = to_numpy(dreams.observe())
        return observation, step.reward.astype(np.float32), ended, infos

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seeds of the next reset, counted up over the dreams. NumPy's global generator is left alone."""
        return super().seed(randbits(31) if seed is None else seed)

    def close(self) -> None:
        """Nothing to do: the weights may be in use elsewhere."""

    def get_images(self) -> Sequence[np.ndarray | None]:
        if self.render_mode != "rgb_array":
            warnings.warn(f"render_mode is {self.render_mode}; make the environment with 'rgb_array'", stacklevel=2)
            return [None] * self.num_envs
        return list(self.dreams.render().cpu().numpy())

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of `DreamEnv` for each of these dreams."""
        return get_each(self.dreams, self._rows(indices), self.render_mode, attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set the "instruction" of these dreams."""
        rows = self._rows(indices)
        set_each(self.dreams, rows, attr_name, [value] * len(rows))

    def env_method(self, method_name: str, *method_args, indices: VecEnvIndices = None, **method_kwargs) -> list[Any]:
        """A method of `DreamEnv`, for each of these dreams as if it were alone."""
        return call_each(self.dreams, self._rows(indices), self.render_mode, method_name, method_args, method_kwargs)

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """True of `Monitor` alone: its statistics are in the infos, and evaluation need not warn."""
        return [wrapper_class is Monitor for _ in self._rows(indices)]

    # -- going several ways ---------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """Everything that evolves, clocks included: what follows a `restore` is what would have followed here."""
        return self.dreams.snapshot()

    def restore(self, blob: bytes) -> None:
        """Return to a `snapshot()` of as many dreams of this world, taken in this process or another."""
        self.dreams.restore(blob)

    get_state, set_state = snapshot, restore

    def fork(self, copies: int = 1) -> "DreamVecEnv":
        """An independent batch that continues from here, with `copies` of each dream next to each other.

        They share weights, past and random numbers: the same actions lead to the same future.
        """
        return DreamVecEnv.of(self.dreams.fork(copies), self.render_mode)

    def _rows(self, indices: VecEnvIndices) -> list[int]:
        return list(self._get_indices(indices))
