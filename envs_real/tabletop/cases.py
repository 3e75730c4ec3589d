"""Held-out material for judging a dream of the Tabletop: episodes and sentences that no recording contains."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from worldgym.data import Segment

from ..settings import HELD_OUT, RecordConfig
from .env import FRAMES_PER_TEXT, TabletopEnv
from .record import play_episode
from .skills import phrases, skill_action
from .tasks import BLOCK_HALF, DIRECTIONS

BLOCK_WIDTH = 2 * BLOCK_HALF
ENOUGH = 0.1
"""A pushed block that went less far than this was not moved."""


class Push(NamedTuple):
    """A directional push."""

    sentence: str
    block: int
    """Its row in positions."""
    direction: tuple[float, float]


class SentenceCases(NamedTuple):
    """Directional pushes from random starts, and what they really did."""

    frames: np.ndarray
    sentences: list[str]
    objects: np.ndarray
    directions: np.ndarray
    moves: np.ndarray


def held_out_episodes(count: int, steps: int, seed: int) -> tuple[Segment, np.ndarray]:
    """Episodes of the recorder's own mix: a segment each, and the objects' places [count, steps + 1, k, 2]."""
    config = RecordConfig(steps=steps, seed=HELD_OUT + seed)
    episodes = [play_episode(config, index) for index in range(count)]
    parts = {name: np.stack([episode[name] for episode in episodes]) for name in episodes[0]}
    segment = Segment(
        frames=parts["frames"],
        actions=parts["actions"],
        sentences=parts["sentences"][:, :-1],
        sentence_actions=parts["sentence_actions"][:, :-1],
        rewards=parts["rewards"][:, 1:],
        successes=parts["successes"][:, 1:],
        terminations=parts["successes"][:, 1:],
    )
    return segment, parts["positions"]


def pushes(colors: tuple[str, ...]) -> list[Push]:
    """ "push the red block left" and its kin."""
    return [
        Push(f"push the {color} block {name}", row, direction)
        for row, color in enumerate(colors, 1)
        for name, direction in DIRECTIONS.items()
    ]


def case_env() -> TabletopEnv:
    """The table that cases are made on; its own task ends no sentence that is carried out by `carry_out`."""
    return TabletopEnv(action_mode="text", instruction="reach the centre")


def case_seed(seed: int, index: int) -> int:
    """The reset seed of a case."""
    return HELD_OUT + seed + index


def sentence_cases(repeats: int, seed: int) -> SentenceCases:
    """`repeats` random starts for each of the eight directional pushes."""
    env, frames, moves = case_env(), [], []
    said = pushes(env.colors) * repeats
    for index, push in enumerate(said):
        frame, before = env.reset(seed=case_seed(seed, index))
        for _ in carry_out(env, push.sentence):
            pass
        frames.append(frame)
        moves.append((env.positions - before["positions"])[push.block] @ np.asarray(push.direction))
    env.close()
    sentences, blocks, directions = zip(*said, strict=True)
    return SentenceCases(np.stack(frames), list(sentences), np.array(blocks), np.array(directions), np.array(moves))


def carry_out(env: TabletopEnv, sentence: str) -> Iterator[None]:
    """A sentence by the scripted controller, to its end; the env's own task would cut it short when it succeeds."""
    task = phrases(env.colors)[sentence]
    for _ in range(FRAMES_PER_TEXT):
        env.advance(skill_action(task, env.positions, env.colors))
        yield
