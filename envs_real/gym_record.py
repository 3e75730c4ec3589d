"""Recording any Gymnasium environment whose actions are a bounded vector, by smooth random actions.

`make_twin` is the environment as its dream will be: square frames for observations, actions in [-1, 1].
"""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
from gymnasium.envs.registration import EnvSpec
from PIL import Image

from worldgym.config import DynamicsConfig
from worldgym.episodes import EpisodeFormat, middle_square
from worldgym.errors import UserError

from .recording import record_episodes
from .settings import RecordConfig

PERIOD = 16
"""Steps after which the noise gets another scale and smoothness."""
UNBOUNDED = 1e9
"""A bound of actions as large as this stands for none: many write the largest float there."""
EXTRAS = {
    "metaworld": "metaworld", "shimmy": "dm-control", "dm_control": "dm-control", "gymnasium_robotics": "robotics",
}  # fmt: skip
"""Which of our extras installs a package of environments, by the package's name."""


class Twin(gym.Wrapper):
    """A true environment in the spaces of its dream.

    Observations are uint8 [resolution, resolution, 3]: what it observes if that is a picture, else what it renders;
    cut to the square in the middle and resized by area. Actions are float32 [a] in [-1, 1], which stand for its own
    bounds, as in `gymnasium.wrappers.RescaleAction`. `info["success"]` is always there: False if
    the environment reports none.

    Raises:
        UserError: at a reset or a step, if the environment raises something, or returns what is no finite reward, no
            truth value or no picture.
    """

    def __init__(self, env: gym.Env, resolution: int):
        super().__init__(env)
        assert isinstance(env.action_space, gym.spaces.Box)
        self.low, self.high = (bound.astype(np.float64) for bound in (env.action_space.low, env.action_space.high))
        self.type, self.name, self.steps = env.action_space.dtype, env.spec.id if env.spec else str(env), 0
        self.resolution = resolution
        self.observed: Any = None
        """What the environment itself showed last."""
        self.observation_space = gym.spaces.Box(0, 255, (resolution, resolution, 3), np.uint8)
        self.action_space = gym.spaces.Box(-1.0, 1.0, env.action_space.shape, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        self.steps = 0
        with self._theirs("reset"):
            observation, info = self.env.reset(seed=seed, options=options)
        return self._frame(observation), {**info, "success": self._success(info)}

    def step(self, action: np.ndarray):
        observation, reward, terminated, truncated, info = self.advance(action)
        said = {**info, "success": self._success(info)}
        return self._frame(observation), reward, terminated, truncated, said

    def advance(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """A step without a picture: what the environment itself says to an action, [a] in [-1, 1]."""
        self.steps += 1
        # Rounding must not lead out of the bounds: some environments check.
        true = np.clip(self.low + (self.high - self.low) * (action + 1) / 2, self.low, self.high).astype(self.type)
        with self._theirs("step"):
            observation, reward, terminated, truncated, info = self.env.step(true)
        if not _is_number(reward):
            raise UserError(f"{self._now()} returned the reward {reward!r}; expected a finite number")
        for name, value in (("terminated", terminated), ("truncated", truncated)):
            if np.ndim(value) or np.asarray(value).dtype != bool:
                raise UserError(f"{self._now()} returned {value!r} for {name}; expected True or False")
        return observation, float(reward), bool(terminated), bool(truncated), info

    def _frame(self, observation: Any) -> np.ndarray:
        self.observed = picture = observation
        if not _is_picture(self.env.observation_space):
            with self._theirs("render"):
                picture = self.env.render()
        if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.shape[2:] != (3,):
            found = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
            raise UserError(f"{self._now()} rendered {found}; a frame must be uint8 (height, width, 3)")
        height, width = picture.shape[:2]
        square = Image.fromarray(picture).resize(
            (self.resolution, self.resolution), Image.Resampling.BOX, middle_square(width, height)
        )
        return np.array(square)

    def _success(self, info: dict[str, Any]) -> bool:
        value = info.get("success", info.get("is_success", False))
        if not _is_number(value) or value not in (0, 1):
            raise UserError(f"{self._now()} reported the success {value!r} in its info; expected True or False")
        return bool(value)

    def _now(self) -> str:
        return f"{self.name}, {f'step {self.steps}' if self.steps else 'reset'}:"

    @contextmanager
    def _theirs(self, what: str) -> Iterator[None]:
        """What the environment raises, with the line in which it did."""
        try:
            yield
        except (Exception, SystemExit) as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(last.filename).name}, line {last.lineno}"
            raise UserError(f"{self._now()} its {what} raised {type(error).__name__}: {error} ({place})") from error


def make_twin(env_id: str, resolution: int = 64) -> Twin:
    """The environment of a dream recorded with `worldgym record --env`, to try in truth what worked in the dream.

    A module in the current folder is found, too, as by `python -m`.

    Raises:
        UserError: there is no such environment, or none that a dream can be of.
    """
    env = _make(env_id)
    space = env.action_space
    if not (
        isinstance(space, gym.spaces.Box)
        and np.issubdtype(space.dtype, np.floating)
        and len(space.shape) == 1
        and space.is_bounded("both")
        and (space.low < space.high).all()
        and max(np.abs(space.low).max(), np.abs(space.high).max()) < UNBOUNDED
    ):
        raise UserError(
            f"{env_id} takes actions in {space}; a dream takes vectors, Box(low, high, (n,)) of floats with finite "
            f"bounds, less than {UNBOUNDED:g}. Wrap the environment into one with such a space, register it, and "
            "record that"
        )
    if _is_picture(env.observation_space):
        return Twin(env, resolution)
    modes = env.metadata.get("render_modes", [])
    env.close()
    if "rgb_array" not in modes:
        raise UserError(
            f"{env_id} observes {env.observation_space} and renders {modes}; a dream needs pictures: "
            'render_mode="rgb_array", or observations that are uint8 (height, width, 3)'
        )
    env = _make(env_id, render_mode="rgb_array")
    _draw_faster(env, 2 * resolution)
    return Twin(env, resolution)


def record(config: RecordConfig) -> Path:
    """Write the dataset and return its folder; resumes a killed recording of the same configuration."""
    if config.dataset == RecordConfig.dataset:
        raise UserError(f"--dataset {config.dataset} is the Tabletop's; name another one for {config.env}")
    if config.variation != RecordConfig.variation:
        raise UserError(f"--variation {config.variation} is of the Tabletop; leave it out for {config.env}")
    twin = make_twin(config.env, config.resolution)
    assert twin.env.spec is not None
    instruction = twin.env.spec.id
    # The dataset's environment is the twin: what the environment itself takes and shows is not what was recorded.
    itself = f"{make_twin.__module__}:{make_twin.__name__}"
    spec = EnvSpec(config.env, itself, kwargs={"env_id": config.env, "resolution": config.resolution})
    layout = EpisodeFormat(config.resolution, gym.spaces.flatdim(twin.action_space), (instruction,))
    _say_whether_it_tells_success(twin)
    twin.close()
    description = f"{instruction}, {config.resolution} pixels a side, actions scaled to [-1, 1]"
    folder = record_episodes(config, play_episode, layout, "smooth random actions", description, spec)
    _say_how_long_episodes_are(config.dataset)
    return folder


def play_episode(config: RecordConfig, index: int) -> dict[str, np.ndarray]:
    """One episode, up to and with the frame it ends in. Arrays are indexed by frame, except `actions` with a row
    less; their column is for the one instruction, the environment's own task. No step led to frame 0: its reward, 0,
    is never used."""
    rng = np.random.default_rng([config.seed, index])
    twin = _twin(config.env, config.resolution)
    frame, info = twin.reset(seed=int(rng.integers(2**31)))
    frames, actions, rewards, successes, terminations = [frame], [], [0.0], [info["success"]], [False]
    noise = rng.normal(size=twin.action_space.shape)
    for step in range(config.steps):
        if step % PERIOD == 0:
            scale, smoothness = rng.choice([0.1, 0.4, 1.0]), rng.choice([0.5, 0.8, 0.95])
        noise = smoothness * noise + np.sqrt(1 - smoothness**2) * rng.normal(size=noise.shape)
        action = np.clip(scale * noise, -1, 1).astype(np.float32)
        frame, reward, terminated, truncated, info = twin.step(action)
        frames.append(frame)
        actions.append(action)
        rewards.append(reward)
        successes.append(info["success"])
        terminations.append(terminated)
        if terminated or truncated:
            break
    return {
        "frames": np.stack(frames),
        "actions": np.stack(actions),
        "rewards": np.asarray(rewards, np.float32)[:, None],
        "successes": np.asarray(successes, bool)[:, None],
        "terminations": np.asarray(terminations, bool)[:, None],
    }


def _make(env_id: str, **options: Any) -> gym.Env:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last, so that it hides nothing installed; worker processes take it over
    try:
        return gym.make(env_id, **options)
    except Exception as error:  # its constructor is not ours
        raise UserError(f"cannot make the environment {env_id!r}: {error}{_advice(env_id, error)}") from error


@lru_cache(maxsize=1)
def _twin(env_id: str, resolution: int) -> Twin:
    """The worker's environment; making one and opening its renderer cost more than an episode."""
    return make_twin(env_id, resolution)


def _is_picture(space: gym.Space) -> bool:
    return isinstance(space, gym.spaces.Box) and space.dtype == np.uint8 and space.shape[2:] == (3,)


def _is_number(value: Any) -> bool:
    array = np.asarray(value)
    return array.ndim == 0 and array.dtype.kind in "biuf" and bool(np.isfinite(array))


def _advice(env_id: str, error: Exception) -> str:
    """What else to say of an environment that cannot be made: how to get it, where that is known."""
    package, _, name = env_id.rpartition(":")
    missing = None
    if isinstance(error, ModuleNotFoundError):
        first = error.__cause__ if isinstance(error.__cause__, ModuleNotFoundError) else error
        missing = first.name
    elif package == "shimmy" and isinstance(error, gym.error.NamespaceNotFound):
        missing = name.partition("/")[0]  # without dm_control, Shimmy registers nothing of it and says nothing
    elif not package and isinstance(error, gym.error.UnregisteredEnv):
        return f". Is it a package's own? Then name the package, too: PACKAGE:{env_id}"
    return f'. It comes with: pip install "worldgym[{EXTRAS[missing]}]"' if missing in EXTRAS else ""


def _draw_faster(env: gym.Env, size: int) -> None:
    """Environments of MuJoCo's draw big pictures with shadows, reflections and four samples a pixel, which in software
    takes most of the time of a recording. All of it has to be changed before the first frame."""
    bare: Any = env.unwrapped
    renderer = getattr(bare, "mujoco_renderer", None)
    if renderer is not None:  # Gymnasium's own, Gymnasium-Robotics', Meta-World's
        renderer.width = renderer.height = size
        model = renderer.model
    elif isinstance(getattr(bare, "render_kwargs", None), dict):  # dm_control's, by way of Shimmy
        model = bare.physics.model
        bare.render_kwargs |= {"width": size, "height": size}
        if model.ncam:  # by default it is seen by none of its own cameras, but by one that never goes along
            bare.render_kwargs.setdefault("camera_id", 0)
    else:
        return
    model.vis.quality.shadowsize = model.vis.quality.offsamples = 0
    model.mat_reflectance[:] = 0


def _say_whether_it_tells_success(twin: Twin) -> None:
    with twin._theirs("first step"):
        twin.env.reset(seed=0)
        told = twin.env.step(((twin.low + twin.high) / 2).astype(twin.type))[-1]
    if not told.keys() & {"success", "is_success"}:
        print(
            'its first step\'s info has neither "success" nor "is_success": success is recorded as False wherever '
            "none is reported"
        )


def _say_how_long_episodes_are(dataset_id: str) -> None:
    dataset = minari.load_dataset(dataset_id)
    episodes = dataset.storage.get_episode_metadata(range(dataset.total_episodes))
    steps = np.array([episode["total_steps"] for episode in episodes])
    window = DynamicsConfig().window
    print(
        f"episodes have {steps.min()} to {steps.max()} steps; the dynamics learn from segments of {window} (--window), "
        f"so from {np.mean(steps >= window):.0%} of the episodes"
    )
