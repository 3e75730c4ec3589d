"""Held-out material for judging a dream of the Tabletop: episodes and sentences that no recording contains."""

from typing import NamedTuple

import numpy as np

from worldgym.data import Segment

from .tabletop import FRAMES_PER_TEXT, TabletopEnv
from .tabletop_record import RecordConfig, play_episode
from .tabletop_skills import phrases, skill_action
from .tabletop_tasks import BLOCK_HALF, DIRECTIONS

HELD_OUT = 1_000_000_007
"""Added to every seed, so that no held-out episode shares its seed with a recorded one."""
BLOCK_WIDTH = 2 * BLOCK_HALF


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


def sentence_cases(repeats: int, seed: int) -> SentenceCases:
    """`repeats` random starts for "push the red block left" and its seven kin."""
    env = TabletopEnv(action_mode="text", instruction="reach the centre")
    names = [(color, direction) for color in env.colors for direction in DIRECTIONS] * repeats
    frames, sentences, moves = [], [], []
    for index, (color, direction) in enumerate(names):
        frame, before = env.reset(seed=HELD_OUT % 2**31 + seed + index)
        sentences.append(f"push the {color} block {direction}")
        # The task's own success would cut the sentence short: let it run to its end.
        after = _run_sentence(env, sentences[-1])
        shift = (after - before["positions"])[1 + env.colors.index(color)]
        frames.append(frame)
        moves.append(shift @ np.asarray(DIRECTIONS[direction]))
    env.close()
    return SentenceCases(
        np.stack(frames),
        sentences,
        np.array([1 + env.colors.index(color) for color, _ in names]),
        np.array([DIRECTIONS[direction] for _, direction in names]),
        np.array(moves),
    )


def _run_sentence(env: TabletopEnv, sentence: str) -> np.ndarray:
    task = phrases(env.colors)[sentence]
    for _ in range(FRAMES_PER_TEXT):
        env.advance(skill_action(task, env.positions, env.colors))
    return env.positions
