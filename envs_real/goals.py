"""Goals that are pictures: pairs of a start and a goal out of the recorder's episodes, and when a goal is reached.

The protocol is that of CLEAR-LeWM (github.com/DavidSunok/CLEAR-LeWM, its specification 0.9): the goal is what the same
episode shows 25 steps after the start; one pair an episode; pairs that are solved already are left out; the twin begins
at rest where the start has everything; 50 steps; and success is judged by the twin's true pose alone.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from worldgym.config import WorldConfig
from worldgym.errors import UserError

from .settings import HELD_OUT, RecordConfig
from .twins import TWINS, twin_kind

APART = 25
"""Steps from start to goal."""
BUDGET = 50
"""Steps to reach it in."""
MANIFEST_VERSION = 1


@dataclass(frozen=True)
class Rule:
    """When a goal is reached."""

    off: Callable[[np.ndarray, np.ndarray], np.ndarray]
    """How far poses [..., p] are from a goal [p], [...], in units of what is tolerated: from 1 on it is too far."""
    hold: int
    """Steps in a row for which that has to be so."""
    about: str
    """The same in words."""


class Pair(NamedTuple):
    """Where an episode begins, and what it is to look like."""

    episode: int
    """Its number under the recorder's held-out seed."""
    step: int
    """Of the start."""
    start: np.ndarray
    """float64 [p], the pose."""
    goal: np.ndarray
    """float64 [p]."""
    picture: np.ndarray
    """uint8 [h, w, 3], what the goal shows."""


def rules_of(world: WorldConfig) -> dict[str, Rule]:
    """The rules that are known of a world's twin, by name; a UserError where there are none."""
    kind = twin_kind(world.twin)
    if kind.goals is None:
        known = ", ".join(id for id, other in TWINS.items() if other.goals)
        raise UserError(
            f"no rule says when {world.twin or 'a world without a twin'} has reached a recorded goal; rules are of "
            f"{known}. --goal takes a picture, too"
        )
    return resolve_name(kind.goals)


def draw_pairs(world: WorldConfig, count: int, seed: int) -> list[Pair]:
    """Pairs from as many episodes, which the twin's recorder plays under a seed that no recording has. What is solved
    already by one of the rules is left out."""
    kind, rules = twin_kind(world.twin), rules_of(world)
    found: list[Pair] = []
    episode = 0
    assert kind.play is not None
    play, random = resolve_name(kind.play), np.random.default_rng([HELD_OUT, seed])
    config = RecordConfig(env=world.twin, seed=HELD_OUT + seed, resolution=world.tokenizer.resolution)
    while len(found) < count:
        played = play(config, episode)
        poses = played["poses"]
        step = int(random.integers(len(poses) - APART))
        start, goal = poses[step], poses[step + APART]
        if all(rule.off(start, goal) >= 1.0 for rule in rules.values()):
            found.append(Pair(episode, step, start, goal, played["frames"][step + APART]))
        episode += 1
    return found


class GoalTwin(gym.Wrapper):
    """A twin that is to reach a pose, under several rules at once. Its own rewards, successes and ends do not count.

    `reset(options={"start": pose, "goal": pose})`. Reward: minus how far it is off, the mean over the rules. The
    episode ends once the goal is reached by all rules, `info["success"]`; `reached` says by which. It is truncated
    after 50 steps.
    """

    def __init__(self, twin: gym.Env, rules: dict[str, Rule]):
        super().__init__(twin)
        self.rules, self.true = rules, twin.unwrapped
        self.goal = np.zeros(0)
        self._held, self._steps = dict.fromkeys(rules, 0), 0

    @property
    def reached(self) -> dict[str, bool]:
        """By which rules the goal was reached in this episode."""
        return {name: self._held[name] >= rule.hold for name, rule in self.rules.items()}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        options = options or {}
        if set(options) != {"start", "goal"}:
            raise ValueError(f"reset options are {sorted(options)}; a start and a goal are needed")
        frame, info = self.true.reset(seed=seed, options={"pose": options["start"]})
        self.goal, self._held, self._steps = np.asarray(options["goal"]), dict.fromkeys(self.rules, 0), 0
        return frame, info | {"success": False}

    def step(self, action: Any):
        frame, _, _, _, info = self.true.step(action)  # beneath the wrappers, which would end the episode
        self._steps += 1
        off = self._off()
        for name, rule in self.rules.items():
            if self._held[name] < rule.hold:
                self._held[name] = self._held[name] + 1 if off[name] < 1.0 else 0
        success = all(self.reached.values())
        return frame, -_mean(off), success, self._steps >= BUDGET and not success, info | {"success": success}

    def evaluate(self, action_sequences: np.ndarray) -> np.ndarray:
        """Returns [n] of action sequences [n, horizon, a] tried from here on true physics: the same planner's upper
        bound. Nothing changes."""
        poses = self.true.get_wrapper_attr("poses_after")(action_sequences)
        off = [rule.off(poses, self.goal) for rule in self.rules.values()]
        return -np.mean(off, 0).sum(1).astype(np.float32)

    def _off(self) -> dict[str, float]:
        pose = self.true.get_wrapper_attr("pose")
        return {name: float(rule.off(pose, self.goal)) for name, rule in self.rules.items()}


def _mean(off: dict[str, float]) -> float:
    return sum(off.values()) / len(off)


# -- manifests ---------------------------------------------------------------------------------------------------------


def write_manifest(path: Path, world: WorldConfig, seed: int, pairs: list[Pair]) -> None:
    """Which pairs a figure is of, with a digest of their poses: whoever draws them again can compare."""
    content = {
        "version": MANIFEST_VERSION,
        "twin": world.twin,
        "rules": {name: rule.about for name, rule in rules_of(world).items()},
        "apart": APART,
        "budget": BUDGET,
        "seed": seed,
        "sha256": digest(pairs),
        "episodes": [pair.episode for pair in pairs],
        "steps": [pair.step for pair in pairs],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")


def digest(pairs: list[Pair]) -> str:
    """SHA-256 of pairs: their numbers, and their poses to a millionth, which no other processor rounds otherwise."""
    told = [(pair.episode, pair.step, *np.round([pair.start, pair.goal], 6).ravel().tolist()) for pair in pairs]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
