"""What `worldgym plan` can be asked for: a planner by name, judged by what it achieves on the world's twin."""

import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

import gymnasium as gym
import numpy as np
import tyro
from tqdm import tqdm

from worldgym.evaluate.rollout import Episode, Policy, episode_statistics, play
from worldgym.world import WorldModel

from .cem import CEM
from .icem import ICEM
from .mpc import MPC, DreamReturns, TwinReturns
from .mppi import MPPI
from .search import Search
from .shooting import RandomShooting
from .tree import BeamSearch, BestFirstSearch, DreamFutures, Phrases, TextMPC, TwinFutures


@dataclass(frozen=True)
class Planning:
    """Plan in the dream or on true physics; act in MuJoCo.

    For example:
        worldgym plan tabletop --instruction "reach the centre"
        worldgym plan tabletop --on mujoco --episodes 10
        worldgym plan reacher --planner icem --video plan.mp4
    """

    world: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WORLD")]
    """A bundled world, a checkpoint folder, or user/name on the hub."""
    planner: Literal["cem", "icem", "mppi", "shooting", "beam", "best-first", "random"] = "cem"
    """How to search; "beam" and "best-first" are tree searches over sentences, "random" acts at random: the floor."""
    on: Literal["dream", "mujoco"] = "dream"
    """Where action sequences are tried; "mujoco" is the planner's upper bound."""
    instruction: tuple[str, ...] = ()
    """Instructions to draw episodes from; * stands for anything. By default the only one there is, or "reach *"."""
    episodes: int = 50
    """Played on the twin."""
    seed: int = 0
    """Episode i begins from seed + i, whatever plans."""
    horizon: int = 12
    """Steps looked ahead."""
    samples: int = 32
    """Action sequences tried in each iteration."""
    iterations: int = 2
    """Rounds of trying and narrowing down, for each plan."""
    hold: int = 3
    """Steps for which each action of a plan is held; a divisor of the horizon."""
    replan_every: int = 4
    """Actions taken of each plan."""
    say: tuple[str, ...] = ("*",)
    """Tree search: sentences that may be said; * stands for anything. One is said, then all is planned anew."""
    depth: int = 2
    """Tree search: sentences looked ahead."""
    breadth: int = 4
    """Tree search: futures extended, of each level by "beam", in all by "best-first"."""
    device: str = "auto"
    """"auto" takes a GPU where there is one."""
    json: Path | None = None
    """Write the figures here, with command, commit and hardware."""
    video: Path | None = None
    """Write what MuJoCo showed in the first episodes, as .gif or .mp4."""

    @property
    def speaks(self) -> bool:
        """Whether its actions are sentences."""
        return self.planner in ("beam", "best-first")


def plan_and_act(config: Planning, world: WorldModel) -> tuple[dict[str, Any], list[Episode]]:
    """Play on the world's twin.

    Returns:
        the metrics that `worldgym plan` writes, and the episodes.

    Raises:
        ValueError: the world has no twin to act on, no such instruction, or no sentences to say.
    """
    if config.episodes < 1:
        raise ValueError(f"episodes is {config.episodes}; it must be positive")
    if config.speaks and not world.config.phrases:
        raise ValueError(f"{world.config.name!r} was trained on no sentences; --planner {config.planner} needs some")
    only = len(world.config.instructions) == 1
    wanted = world.config.matching(config.instruction or ("*" if only else "reach *",))
    env = _twin(config, world)
    random = np.random.default_rng(config.seed)
    asked = [wanted[random.integers(len(wanted))] for _ in range(config.episodes)]
    played: list[Episode] = []
    seconds: list[float] = []
    on = config.on if config.planner != "random" else "nothing"
    with tqdm(asked, desc=f"{config.planner} on {on}", unit="episode") as progress:
        for index, instruction in enumerate(progress):
            policy = Timed(make_policy(config, world, env, instruction, config.seed + index))
            played.append(play(env, policy, config.seed + index, {"instruction": instruction}))
            seconds += policy.seconds
            progress.set_postfix(success=f"{np.mean([episode.success for episode in played]):.0%}")
    env.close()
    plans = ("horizon", "samples", "iterations", "hold", "replan_every")
    budget = ("say", "depth", "breadth") if config.speaks else plans
    return {
        "planner": config.planner,
        "on": on,
        "instructions": wanted,
        "episodes": config.episodes,
        **episode_statistics(played),
        "seconds_per_decision": float(np.mean(seconds)) if config.planner != "random" else None,
        "budget": {name: getattr(config, name) for name in budget},
        "by_episode": [
            {"instruction": instruction, "success": episode.success, "return": episode.total}
            for instruction, episode in zip(asked, played, strict=True)
        ],
    }, played


def _twin(config: Planning, world: WorldModel) -> gym.Env:
    """Where plans are carried out: it shows what the dream shows."""
    twin, size = world.config.twin, world.config.tokenizer.resolution
    if not twin:
        raise ValueError(f"the world {world.config.name!r} names no twin, and plans are carried out on one")
    env = gym.make(twin, action_mode="text" if config.speaks else "vector")
    if env.observation_space.shape != (size, size, 3) or not hasattr(env.unwrapped, "evaluate"):
        raise ValueError(
            f"the twin of {world.config.name!r} is {twin!r}; plans are carried out on twins that show pictures of "
            f"{size} x {size} and can evaluate(), such as worldgym/TabletopMuJoCo-v0"
        )
    return env


class Timed:
    """A policy, and the seconds of each of its decisions that took planning."""

    def __init__(self, policy: Policy):
        self.policy = policy
        self.seconds: list[float] = []

    def __call__(self, observation: np.ndarray) -> Any:
        began, before = time.perf_counter(), getattr(self.policy, "plan", None)
        action = self.policy(observation)
        if getattr(self.policy, "plan", None) is not before:
            self.seconds.append(time.perf_counter() - began)
        return action


def make_policy(config: Planning, world: WorldModel, env: gym.Env, instruction: str, seed: int) -> Policy:
    """A policy for one episode on `env`, the world's twin.

    Raises:
        ValueError: no sentence of the world matches `config.say`.
    """
    if config.speaks:
        return make_text_mpc(config, world, env, instruction)
    space = env.action_space
    assert isinstance(space, gym.spaces.Box)
    if config.planner == "random":
        random = np.random.default_rng(seed)
        return lambda observation: random.uniform(space.low, space.high).astype(np.float32)
    returns = DreamReturns(world, instruction) if config.on == "dream" else TwinReturns(env)
    budget = {
        "horizon": config.horizon, "samples": config.samples, "iterations": config.iterations,
        "action_repeat": config.hold, "seed": seed,
    }  # fmt: skip
    elites = max(2, config.samples // 6)
    planner: Search
    match config.planner:
        case "cem":
            planner = CEM(returns, space.low, space.high, elites=elites, **budget)
        case "icem":
            planner = ICEM(returns, space.low, space.high, elites=elites, **budget)
        case "mppi":
            planner = MPPI(returns, space.low, space.high, **budget)
        case "shooting":
            planner = RandomShooting(returns, space.low, space.high, **budget)
    return MPC(returns, planner, config.replan_every, world.config.dynamics.observed)


def make_text_mpc(config: Planning, world: WorldModel, env: gym.Env, instruction: str) -> TextMPC:
    """The policy of a tree search, whose actions are sentences."""
    said = [p for p in world.config.phrases if any(fnmatchcase(p, pattern) for pattern in config.say)]
    if not said:
        raise ValueError(f"no sentence of {world.config.name!r} matches {config.say}")
    futures = DreamFutures(world, instruction) if config.on == "dream" else TwinFutures(env)
    if config.planner == "beam":
        return TextMPC(BeamSearch(futures, Phrases(said), depth=config.depth, breadth=config.breadth))
    return TextMPC(BestFirstSearch(futures, Phrases(said), depth=config.depth, expansions=config.breadth))
