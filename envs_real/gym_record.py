"""Recording any Gymnasium environment that shows pictures, by smooth random actions and sticky random choices, or by a
policy mixed with them.

`make_twin` is the environment as it is recorded: square frames for observations, vectors in [-1, 1] for actions. With
`native=True` it takes its own actions, as its dream does.
"""

import itertools
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
from gymnasium.envs.registration import EnvSpec
from PIL import Image

from worldgym.actions import ActionCodec, bounded, read_codec
from worldgym.config import DynamicsConfig
from worldgym.episodes import EpisodeFormat, middle_square
from worldgym.errors import UserError

from .policies import Policy, load_policy
from .recording import record_episodes
from .settings import Fit, RecordConfig

PERIOD = 16
"""Steps after which the noise gets another scale and smoothness, and another one acts: noise, policy or both."""
EXTRAS = {
    "metaworld": "metaworld", "shimmy": "dm-control", "dm_control": "dm-control", "gymnasium_robotics": "robotics",
    "ale_py": "atari", "minigrid": "minigrid",
}  # fmt: skip
"""Which of our extras installs a package of environments, by the package's name."""


class Twin(gym.Wrapper):
    """A true environment with the frames of its dream, and its own actions or their vectors.

    Observations are uint8 [resolution, resolution, 3]: what it observes if that is a picture, else what it renders;
    made square and resized by area. `info["success"]` is always there: False if the environment reports none.

    Args:
        codec: of its action space, or of that with limits; of its own by default.
        native: take actions of that space, as its dream does; else their vectors, float32 [a] in [-1, 1], as data sets
            have them.
        fit: how a picture becomes square: "crop" keeps the middle, "pad" adds black bars, "stretch" distorts.
        picture: the entry of its observations, which are a dict, that is the picture.
        observed: whether the picture is what it observes; else it is rendered.

    Raises:
        UserError: at a reset or a step, if the environment raises something, or returns what is no finite reward, no
            truth value or no picture.
    """

    def __init__(
        self,
        env: gym.Env,
        resolution: int,
        codec: ActionCodec | None = None,
        native: bool = False,
        fit: Fit = "crop",
        picture: str | None = None,
        observed: bool | None = None,
    ):
        super().__init__(env)
        self.codec, self.native = ActionCodec(env.action_space) if codec is None else codec, native
        self.name, self.steps = env.spec.id if env.spec else str(env), 0
        self.resolution, self.fit, self.picture = resolution, fit, picture
        self.shows = _is_picture(env.observation_space) if observed is None else observed
        self.observed: Any = None
        """What the environment itself showed last."""
        self.observation_space = gym.spaces.Box(0, 255, (resolution, resolution, 3), np.uint8)
        self.action_space = self.codec.space if native else read_codec(None, self.codec.size).space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        self.steps = 0
        with self._theirs("reset"):
            observation, info = self.env.reset(seed=seed, options=options)
        return self._frame(observation), {**info, "success": self._success(info)}

    def step(self, action: Any):
        return self.take(self.vector(action))

    def vector(self, action: Any) -> np.ndarray:
        """What an action of `action_space` is as a vector, float32 [a]."""
        return (self.codec if self.native else read_codec(None, self.codec.size)).encode(action)

    def take(self, vector: np.ndarray):
        """A step by the vector of an action."""
        observation, reward, terminated, truncated, info = self.advance(vector)
        said = {**info, "success": self._success(info)}
        return self._frame(observation), reward, terminated, truncated, said

    def advance(self, vector: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """A step without a picture: what the environment itself says to the vector of an action."""
        self.steps += 1
        true = self.codec.decode(vector)
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
        if self.picture is not None:
            picture = observation[self.picture]
        elif not self.shows:
            with self._theirs("render"):
                picture = self.env.render()
        if isinstance(picture, np.ndarray) and self.shows and picture.shape[2:] in ((), (1,)):
            picture = np.repeat(picture.reshape(*picture.shape[:2], 1), 3, 2)
        if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.shape[2:] != (3,):
            found = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
            raise UserError(f"{self._now()} rendered {found}; a frame must be uint8 (height, width, 3)")
        return square(picture, self.resolution, self.fit)

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


def square(picture: np.ndarray, side: int, fit: Fit) -> np.ndarray:
    """A picture, uint8 [h, w, 3], as uint8 [side, side, 3], resized by area."""
    height, width = picture.shape[:2]
    if fit == "pad" and height != width:
        across = max(height, width) - np.array([height, width])
        picture = np.pad(picture, [*((gap // 2, gap - gap // 2) for gap in across), (0, 0)])
    box = middle_square(width, height) if fit == "crop" else None
    return np.array(Image.fromarray(picture).resize((side, side), Image.Resampling.BOX, box))


def make_twin(
    env_id: str,
    resolution: int = 64,
    native: bool = False,
    fit: Fit = "crop",
    picture: str | None = None,
    limits: Sequence[float] | None = None,
) -> Twin:
    """The environment of a dream recorded with `worldgym record --env`, to try in truth what worked in the dream.

    A module in the current folder is found, too, as by `python -m`. (`worldgym.envs_real.twins.twin_of` makes the twin
    of a world, and knows its options.)

    Args:
        native: take the environment's own actions; else their vectors, float32 [a] in [-1, 1].
        fit: how a picture becomes square.
        picture: the entry of its observations that is the picture, where it renders none.
        limits: low and high, in place of bounds that its actions lack.

    Raises:
        UserError: there is no such environment, or none that a dream can be of.
    """
    env = _make(env_id)
    pair = None if limits is None else (float(limits[0]), float(limits[1]))
    try:
        codec = ActionCodec(bounded(env.action_space, pair))
        observed = _observes(env, picture)
    except UserError as error:
        env.close()
        raise UserError(f"{env_id} cannot be recorded: {error}") from None
    if not observed:
        env.close()
        env = _make(env_id, render_mode="rgb_array")
        _draw_faster(env, 2 * resolution)
    return Twin(env, resolution, codec, native, fit, picture, observed)


def record(config: RecordConfig) -> Path:
    """Write the dataset and return its folder; resumes a killed recording of the same configuration."""
    if config.dataset == RecordConfig.dataset:
        raise UserError(f"--dataset {config.dataset} is the Tabletop's; name another one for {config.env}")
    if config.variation != RecordConfig.variation:
        raise UserError(f"--variation {config.variation} is of the Tabletop; leave it out for {config.env}")
    if config.policy is not None:
        load_policy(config.policy)  # or it is told now
    options = twin_options(config)
    twin = make_twin(config.env, config.resolution, **options)
    assert twin.env.spec is not None
    instruction = twin.env.spec.id
    # The dataset's environment is the twin: what the environment itself takes and shows is not what was recorded.
    itself = f"{make_twin.__module__}:{make_twin.__name__}"
    spec = EnvSpec(config.env, itself, kwargs={"env_id": config.env, "resolution": config.resolution, **options})
    layout = EpisodeFormat(config.resolution, twin.codec.size, (instruction,), actions=twin.codec.describe())
    _say_whether_it_tells_success(twin)
    twin.close()
    description = (
        f"{instruction}, {config.resolution} pixels a side ({config.fit}), actions of {twin.codec.space} as vectors"
    )
    behaviour = "smooth random actions" if config.policy is None else f"{config.policy} and smooth random actions"
    folder = record_episodes(config, play_episode, layout, behaviour, description, spec)
    _say_how_long_episodes_are(config.dataset)
    return folder


def twin_options(config: RecordConfig) -> dict[str, Any]:
    """What `make_twin` is asked for besides id and resolution, as far as it is not the default."""
    options: dict[str, Any] = {} if config.fit == RecordConfig.fit else {"fit": config.fit}
    if config.picture is not None:
        options["picture"] = config.picture
    if config.limits is not None:
        options["limits"] = list(config.limits)
    return options


def play_episode(config: RecordConfig, index: int) -> dict[str, np.ndarray]:
    """One episode, up to and with the frame it ends in. Arrays are indexed by frame, except `actions` with a row
    less; their column is for the one instruction, the environment's own task. No step led to frame 0: its reward, 0,
    is never used."""
    rng = np.random.default_rng([config.seed, index])
    twin = _twin(config)
    frame, info = twin.reset(seed=int(rng.integers(2**31)))
    frames, actions, rewards, successes, terminations = [frame], [], [0.0], [info["success"]], [False]
    acting = _behaviour(twin, rng, _policy(config.policy) if config.policy else None)
    for _ in range(config.steps):
        action = next(acting)
        frame, reward, terminated, truncated, info = twin.take(action)
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


def _behaviour(twin: Twin, rng: np.random.Generator, policy: Policy | None) -> Iterator[np.ndarray]:
    """Vectors to act by, float32 [a], one after the other: smooth noise and sticky choices.

    With a policy, every 16 steps a draw of three says who acts: noise, the policy, or the policy with noise added to
    its numbers and with those of its choices replaced that noise draws again.
    """
    codec = twin.codec
    noise = rng.normal(size=len(codec.continuous))
    chosen = [rng.integers(len(choice.codes)) for choice in codec.choices]
    for step in itertools.count():
        if step % PERIOD == 0:
            scale, smoothness = rng.choice([0.1, 0.4, 1.0]), rng.choice([0.5, 0.8, 0.95])
            acts = "noise" if policy is None else rng.choice(["noise", "policy", "both"])
        noise = smoothness * noise + np.sqrt(1 - smoothness**2) * rng.normal(size=noise.shape)
        wanted = np.zeros(codec.size, np.float32)
        if policy is not None and acts != "noise":
            wanted = _wanted(twin, policy)
        action = wanted.copy()
        if acts != "policy":
            action[codec.continuous] = np.clip(wanted[codec.continuous] + scale * noise, -1, 1)
        for number, choice in enumerate(codec.choices):
            drawn = rng.random() >= smoothness  # else the choice of the step before sticks
            if drawn:
                chosen[number] = rng.integers(len(choice.codes))
            if acts == "noise" or (acts == "both" and drawn):
                action[choice.place] = choice.codes[chosen[number]]
        yield action


def _wanted(twin: Twin, policy: Policy) -> np.ndarray:
    """What the policy does at what the environment observes, as a vector."""
    try:
        return twin.codec.encode(policy(twin.observed))
    except Exception as error:  # it is the user's
        raise UserError(f"{twin._now()} the policy failed: {type(error).__name__}: {error}") from error


def _make(env_id: str, **options: Any) -> gym.Env:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last, so that it hides nothing installed; worker processes take it over
    try:
        return gym.make(env_id, **options)
    except Exception as error:  # its constructor is not ours
        raise UserError(f"cannot make the environment {env_id!r}: {error}{_advice(env_id, error)}") from error


@lru_cache(maxsize=1)
def _policy(spec: str) -> Policy:
    """The worker's policy."""
    return load_policy(spec)


@lru_cache(maxsize=1)
def _twin(config: RecordConfig) -> Twin:
    """The worker's environment; making one and opening its renderer cost more than an episode."""
    return make_twin(config.env, config.resolution, **twin_options(config))


def _observes(env: gym.Env, picture: str | None) -> bool:
    """Whether the picture is what it observes, as a whole or in the entry `picture`; else it has to render one.

    Raises:
        UserError: there is no picture.
    """
    space, modes = env.observation_space, env.metadata.get("render_modes", [])
    entries = list(space.items()) if isinstance(space, gym.spaces.Dict) else []
    pictures = [str(key) for key, part in entries if _is_picture(part, grey=True)]
    if picture is not None:
        if picture not in pictures:
            some = f"its pictures are {', '.join(pictures)}" if pictures else "it has no pictures among its entries"
            raise UserError(f"it observes {space}, and --picture names {picture!r}; {some}")
        return True
    if _is_picture(space):
        return True
    if "rgb_array" in modes:
        return False
    if _is_picture(space, grey=True):
        return True
    advice = f". It observes pictures: --picture {' or '.join(pictures)}" if pictures else ""
    raise UserError(
        f"it observes {space} and renders {modes}; a dream needs pictures: "
        f'render_mode="rgb_array", or observations that are uint8 (height, width, 3){advice}'
    )


def _is_picture(space: gym.Space, grey: bool = False) -> bool:
    if not isinstance(space, gym.spaces.Box) or space.dtype != np.uint8 or len(space.shape) < 2:
        return False
    return space.shape[2:] in (((3,), (1,), ()) if grey else ((3,),))


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
        told = twin.env.step(twin.codec.decode(np.zeros(twin.codec.size, np.float32)))[-1]
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
