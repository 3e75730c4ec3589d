"""The dream behind Gymnasium's two interfaces: `DreamEnv` is a batch of one, `DreamVectorEnv` a batch of any size.

They stand in one file because each makes the other: a dream forks into a batch, and a batch answers `call` and
`get_attr` by its single dreams.
"""

import inspect
from collections.abc import Sequence
from typing import Any, Literal, SupportsIndex, overload

import gymnasium as gym
import numpy as np
import torch
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from .dreams import DreamBatch, DreamOptions, Dreams, Step
from .spaces import on_host, read_seed, seed_of

RESET_OPTIONS = ("frames", "actions", "instruction")


class DreamEnv(gym.Env):
    """A learned world behind the Gymnasium API. Its physics is a neural network.

    `reset` starts from a held-out real frame that is bundled with the world, or from what was really seen:
    `reset(options={"frames": uint8 [t, h, w, 3], "actions": float32 [t - 1, a]})`; in a world whose action space is no
    plain vector, "actions" is a list of its actions. `options={"instruction": ...}`
    changes the task.
    `info` has "success" (bool), "uncertainty" (nats), "too_uncertain" (bool: truncated for that), "num_frames" (int),
    unless actions are vectors "action_ok" (bool), and where any sentence is one "action_reason" (str): words may be
    others than the world's; during a sentence that is not understood nothing is done, and the reason says why.

    It can be pickled; a pickle holds no weights.

    Args:
        world: a bundled name or a checkpoint folder.
        options: see `DreamOptions`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, world: str, *, render_mode: Literal["rgb_array"] | None = None, **options: Any):
        self._take(Dreams(1, DreamOptions(world, **options)), render_mode)

    @classmethod
    def of(cls, dreams: DreamBatch, render_mode: str | None = None) -> "DreamEnv":
        """The environment of a single dream that is already under way."""
        env = cls.__new__(cls)
        env._take(dreams, render_mode)
        return env

    def _take(self, dreams: DreamBatch, render_mode: str | None) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode {render_mode!r} must be None or 'rgb_array'")
        self.dreams, self.render_mode = dreams, render_mode
        self.action_space, self.observation_space = dreams.action_space, dreams.observation_space

    @property
    def _np_random(self) -> np.random.Generator | None:
        """Where Gymnasium keeps the generator behind `np_random`: the dream's own."""
        return self.dreams.randoms[0]

    @_np_random.setter
    def _np_random(self, random: np.random.Generator | None) -> None:
        if not isinstance(random, np.random.Generator) or not isinstance(random.bit_generator, np.random.PCG64):
            raise TypeError(f"np_random is {random!r}; a dream's is a np.random.default_rng(seed)")
        self.dreams.randoms[0] = random

    @property
    def np_random_seed(self) -> int:
        """The seed of `np_random`; -1 where it is unknown, as after a `restore`."""
        return seed_of(self.np_random)

    @property
    def world(self) -> Any:
        """The world that is dreamed of: a `WorldModel`, or a `PanWorld`."""
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
        self.dreams.instruct([0], [instruction])

    @property
    def _max_episode_steps(self) -> int | None:
        """Where Gymnasium's TimeLimit keeps it, and LeRobot's rollout looks for it; None if none is set here."""
        return self.dreams.max_episode_steps

    # -- Gymnasium ----------------------------------------------------------------------------------------------

    def reset(self, *, seed: SupportsIndex | None = None, options: dict[str, Any] | None = None):
        options = options or {}
        if unknown := set(options) - set(RESET_OPTIONS):
            raise ValueError(f"unknown reset options {sorted(unknown)}; known are {', '.join(RESET_OPTIONS)}")
        self.dreams.reset(
            seeds=[seed],
            frames=np.asarray(on_host(options["frames"]))[None] if "frames" in options else None,
            actions=self.dreams.read_past(options["actions"])[None] if "actions" in options else None,
            instructions=[options["instruction"]] if "instruction" in options else None,
        )
        return self._observation(), self.dreams.first_info

    def step(self, action):
        step = self.dreams.step([self.dreams.read(action)])
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

        The time limit of `gym.make` is counted in a wrapper; `worldgym.env.restore(env, blob)` sets it, too.
        """
        self.dreams.restore(blob)

    get_state, set_state = snapshot, restore
    """The same two methods, under the names that tools for planning on any branchable environment look for."""

    @overload
    def fork(self) -> "DreamEnv": ...

    @overload
    def fork(self, copies: int) -> "DreamVectorEnv": ...

    def fork(self, copies: int | None = None) -> "DreamEnv | DreamVectorEnv":
        """An independent environment that continues from here; with `copies`, one batch of that many.

        They share weights, past and random numbers: the same actions lead to the same future.
        """
        if copies is None:
            return DreamEnv.of(self.dreams.fork(1), self.render_mode)
        return DreamVectorEnv.of(self.dreams.fork(copies), render_mode=self.render_mode)

    def _observation(self) -> np.ndarray | dict[str, np.ndarray]:
        return row(to_numpy(self.dreams.observe()), 0)


class DreamVectorEnv(VectorEnv):
    """`gym.make_vec("worldgym/Tabletop-v0", num_envs=64)`.

    Observations, actions and infos are those of `DreamEnv`, batched as Gymnasium batches them. What is returned is
    the caller's: nothing here reads or writes it again. `reset` takes the options of `DreamEnv`, for all dreams or
    with a first axis of `num_envs`, and `"reset_mask"`, bool [num_envs], to reset some of them.

    Args:
        world: a bundled name or a checkpoint folder.
        max_episode_steps: actions after which an episode is truncated; `gym.make_vec` hands on the id's own.
        autoreset_mode: NEXT_STEP: the step after an end ignores the action and returns a new beginning. SAME_STEP:
            the end itself returns it, and "final_obs" and "final_info" have what was reached. DISABLED: reset with
            "reset_mask"; until then the batch does not step.
        output: "numpy", or "torch" for tensors on the model's device (infos are numpy either way).
        options: see `DreamOptions`.
    """

    def __init__(
        self,
        world: str,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        output: Literal["numpy", "torch"] = "numpy",
        render_mode: Literal["rgb_array"] | None = None,
        **options: Any,
    ):
        self._take(
            Dreams(num_envs, DreamOptions(world, **options), max_episode_steps), autoreset_mode, output, render_mode
        )

    @classmethod
    def of(
        cls,
        dreams: DreamBatch,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        output: str = "numpy",
        render_mode: str | None = None,
    ) -> "DreamVectorEnv":
        """The environment of dreams that are already under way."""
        env = cls.__new__(cls)
        env._take(dreams, autoreset_mode, output, render_mode)
        return env

    def _take(
        self, dreams: DreamBatch, autoreset_mode: AutoresetMode | str, output: str, render_mode: str | None
    ) -> None:
        try:
            self.autoreset_mode = AutoresetMode(autoreset_mode)
        except ValueError:
            known = ", ".join(f"{mode.value!r}" for mode in AutoresetMode)
            raise ValueError(f"autoreset_mode {autoreset_mode!r} must be an AutoresetMode or one of {known}") from None
        if output not in ("numpy", "torch"):
            raise ValueError(f"output {output!r} must be 'numpy' or 'torch'")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode {render_mode!r} must be None or 'rgb_array'")
        self.dreams, self.output, self.render_mode = dreams, output, render_mode
        self.num_envs = len(dreams)
        self.metadata = {**DreamEnv.metadata, "autoreset_mode": self.autoreset_mode}
        self.single_action_space, self.single_observation_space = dreams.action_space, dreams.observation_space
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The generator of each dream."""
        self.dreams.randoms = [random or seeding.np_random()[0] for random in self.dreams.randoms]
        return tuple(random for random in self.dreams.randoms if random is not None)

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The seed of each dream's generator; -1 where it is unknown, as after a `restore`."""
        return tuple(seed_of(random) for random in self.np_random)

    # -- Gymnasium ----------------------------------------------------------------------------------------------

    def reset(
        self,
        *,
        seed: SupportsIndex | Sequence[SupportsIndex | None] | None = None,
        options: dict[str, Any] | None = None,
    ):
        """Begin episodes in all dreams, or in those of `options["reset_mask"]`; a `seed` is counted up over them."""
        options = dict(options or {})
        which = self._mask(options.pop("reset_mask")) if "reset_mask" in options else np.ones(self.num_envs, bool)
        if unknown := set(options) - set(RESET_OPTIONS):
            known = ", ".join((*RESET_OPTIONS, "reset_mask"))
            raise ValueError(f"unknown reset options {sorted(unknown)}; known are {known}")
        seeds: Any = seed
        if seed is not None and not isinstance(seed, (list, tuple, range, np.ndarray)):
            first = read_seed(seed)
            seeds = None if first is None else [first + index for index in range(self.num_envs)]
        instruction = options.get("instruction")
        self.dreams.reset(
            which,
            seeds,
            frames=self._each(options, "frames", 5),
            actions=self._past(options),
            instructions=[instruction] * self.num_envs if isinstance(instruction, str) else instruction,
        )
        return self._out(self.dreams.observe()), self._infos({}, np.zeros_like(which), which)

    def step(self, actions):
        read, over = self._read(actions), self.dreams.over.copy()
        if self.autoreset_mode == AutoresetMode.DISABLED and over.any():
            raise gym.error.ResetNeeded(
                f"dreams {np.flatnonzero(over).tolist()} have ended; reset them first: "
                'reset(options={"reset_mask": terminations | truncations})'
            )
        step = self.dreams.step(read, ~over)
        begin = over if self.autoreset_mode == AutoresetMode.NEXT_STEP else self.dreams.over.copy()
        if self.autoreset_mode == AutoresetMode.DISABLED:
            begin[:] = False
        infos = self._infos(step.info, ~begin, begin)
        if self.autoreset_mode == AutoresetMode.SAME_STEP and begin.any():
            reached = self._out(self.dreams.observe())
            infos["final_obs"] = np.full(self.num_envs, None, object)
            for index in np.flatnonzero(begin).tolist():
                infos["final_obs"][index] = row(reached, index)
            infos["final_info"] = self._infos(step.info, begin, np.zeros_like(begin))
            infos["_final_obs"], infos["_final_info"] = begin.copy(), begin.copy()
        if begin.any():
            self.dreams.reset(begin)
        return self._result(step, infos)

    def render(self) -> tuple[np.ndarray, ...]:
        """A picture of each dream, uint8 [h, w, 3]."""
        return tuple(picture.copy() for picture in self.dreams.render().cpu().numpy())

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """A method of `DreamEnv`, for each dream as if it were alone; or an attribute, as Gymnasium has it."""
        if not args and not kwargs and not inspect.isroutine(getattr(DreamEnv, name, None)):
            return self.get_attr(name)
        return tuple(call_each(self.dreams, range(self.num_envs), self.render_mode, name, args, kwargs))

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """An attribute of `DreamEnv` for each dream."""
        return tuple(get_each(self.dreams, range(self.num_envs), self.render_mode, name))

    def set_attr(self, name: str, values: Any) -> None:
        """Set the "instruction" of each dream: one for all, or a list of `num_envs`."""
        if not isinstance(values, (list, tuple)):
            values = [values] * self.num_envs
        if len(values) != self.num_envs:
            raise ValueError(f"got {len(values)} values for {self.num_envs} environments")
        set_each(self.dreams, range(self.num_envs), name, values)

    # -- going several ways ---------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """Everything that evolves, clocks and ends included: what follows a `restore` is what would have followed."""
        return self.dreams.snapshot()

    def restore(self, blob: bytes) -> None:
        """Return to a `snapshot()` of as many dreams of this world, taken in this process or another."""
        self.dreams.restore(blob)

    get_state, set_state = snapshot, restore

    def fork(self, copies: int = 1) -> "DreamVectorEnv":
        """An independent batch that continues from here, with `copies` of each dream next to each other.

        They share weights, past and random numbers: the same actions lead to the same future.
        """
        return DreamVectorEnv.of(self.dreams.fork(copies), self.autoreset_mode, self.output, self.render_mode)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _read(self, actions: Any) -> list[np.ndarray | str]:
        actions = on_host(actions)
        if self.dreams.options.action_mode == "vector":
            return list(self.dreams.codec.encode_batch(actions, self.num_envs))
        if isinstance(actions, str) or not hasattr(actions, "__len__") or len(actions) != self.num_envs:
            raise ValueError(f"got {actions!r:.80} as the actions of {self.num_envs} dreams; expected one for each")
        return [self.dreams.read(action) for action in actions]

    def _mask(self, mask: Any) -> np.ndarray:
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError(f"reset_mask is {type(mask).__name__} {mask!r:.80}; it must be a bool array")
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(f"reset_mask is {mask}; it must have shape ({self.num_envs},) and at least one True")
        return mask.copy()

    def _each(self, options: dict[str, Any], name: str, ndim: int) -> np.ndarray | None:
        """An option for each dream; one without the axis of dreams is for all."""
        if name not in options:
            return None
        array = np.asarray(on_host(options[name]))
        return array if array.ndim == ndim else np.broadcast_to(array, (self.num_envs, *array.shape))

    def _past(self, options: dict[str, Any]) -> np.ndarray | None:
        """The option "actions"; those of a space that is no plain vector are for each dream where frames are."""
        if "actions" not in options or (self.dreams.codec is not None and self.dreams.codec.plain):
            return self._each(options, "actions", 3)
        each = np.ndim(on_host(options.get("frames", ()))) == 5
        given = options["actions"] if each else [options["actions"]] * self.num_envs
        return np.stack([self.dreams.read_past(actions) for actions in given])

    def _infos(self, info: dict[str, np.ndarray], stepped: np.ndarray, begun: np.ndarray) -> dict[str, Any]:
        """Infos with their masks as Gymnasium has them: of the dreams that took a step, and of those that began."""
        infos: dict[str, Any] = {}
        for key, first in self.dreams.first_info.items():
            # Of texts Gymnasium's vector environments make objects, too.
            values = np.full(self.num_envs, first, object if isinstance(first, str) else None)
            values[~begun] = type(first)()
            if stepped.any():
                values[stepped] = info[key][stepped]
            infos[key], infos[f"_{key}"] = values, stepped | begun
        return infos

    def _out(self, observation: Any) -> Any:
        return observation if self.output == "torch" else to_numpy(observation)

    def _result(self, step: Step, infos: dict[str, Any]):
        outcome: Any = (step.reward, step.terminated, step.truncated)
        if self.output == "torch":
            device = self.dreams.world.device
            outcome = tuple(
                torch.from_numpy(part).to(device) for part in (step.reward.astype(np.float32), *outcome[1:])
            )
        return self._out(self.dreams.observe()), *outcome, infos


def restore(env: gym.Env, blob: bytes) -> None:
    """`env.unwrapped.restore(blob)` of a dream that `gym.make` has wrapped: its TimeLimit continues from there, too.

    Other wrappers keep what they have gathered; of an environment that was never reset, they see a reset first.
    (`DreamVectorEnv` and `DreamVecEnv` count for themselves.)
    """
    dream = env.unwrapped
    if not isinstance(dream, DreamEnv):
        raise TypeError(f"{dream} is not a dream; for a real twin call env.unwrapped.restore")
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


def get_each(dreams: DreamBatch, rows: Sequence[int], render_mode: str | None, name: str) -> list[Any]:
    """An attribute of `DreamEnv` for each of these dreams."""
    return [getattr(DreamEnv.of(dreams.select([index]), render_mode), name) for index in rows]


def call_each(
    dreams: DreamBatch, rows: Sequence[int], render_mode: str | None, name: str, args: tuple, kwargs: dict[str, Any]
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


def set_each(dreams: DreamBatch, rows: Sequence[int], name: str, values: Sequence[Any]) -> None:
    """Set an attribute of `DreamEnv` in each of these dreams; only the instruction can be set."""
    if name != "instruction":
        raise AttributeError(f"{name!r} cannot be set in a dream; 'instruction' can")
    dreams.instruct(rows, values)
