"""Recording the Hopper: a gait or a variation of it, with noise, and from some step on torques at random: it falls.

From torques at random alone it has fallen after five steps, and never hopped. From a gait alone nobody could tell what
the torques do: where every episode began with one, a dream rose from its start whatever the torques were, and planners
believed it. Where all that stayed up went forward, agents of the dream slid backward and believed that they hopped. So
two thirds of the episodes have gaits of their own, which stand, slide, hop slower or fall. A recording goes on after a
fall, lest what leads to one be too short to learn from.
"""

from functools import lru_cache
from pathlib import Path

import gymnasium as gym
import numpy as np

from worldgym.episodes import EpisodeFormat

from .hopper import HopperEnv
from .recording import record_episodes
from .settings import HOPPER, RecordConfig

BEHAVIOUR_STEPS = 12
HOLDS = 1, 3
"""Steps that a torque at random lasts: as agents explore, and as planners hold it."""
SPREAD = 0.4
"""Of the numbers of gaits of their own, relative, at most: with 0.2 half fall within 16 steps, with 0.4 within 6."""
AFTER = 4
"""Steps recorded after a fall, at least."""
SHORTEST = 20
"""Steps of an episode, at least: more than a window and what is seen before it."""
GAIT = np.array(
    [
        [-0.71, -9.9, 29.65, -0.31, -0.14, -0.39, 0.01, 0.02, 1.75, -0.03, 0.01, 1.28],
        [1.26, -12.32, -10.37, -1.1, 0.24, -0.55, 0.17, -0.31, -1.32, -0.12, 0.01, -1.99],
        [3.01, -19.84, -1.28, 0.34, 0.8, -1.05, -0.57, -0.38, 0.85, 0.37, -0.07, -3.13],
    ]
)
"""Torques as a linear function of Gymnasium's observation and 1, which hops at 1.5 m/s without end. Found by augmented
random search (arXiv 1803.07055) in eight minutes of a core, with 0.2 instead of 1 a step for being up: with 1 it learns
to stand."""


def record(config: RecordConfig) -> Path:
    """Write the dataset and return its folder; resumes a killed recording of the same configuration."""
    return record_episodes(
        config,
        play_episode,
        EpisodeFormat(config.resolution, gym.spaces.flatdim(HopperEnv().action_space), (HopperEnv.INSTRUCTION,)),
        "scripted mix: a noisy linear gait, held random torques",
        f"Gymnasium's Hopper-v5 from the side, {config.resolution} pixels a side",
        gym.spec(HOPPER),
    )


def play_episode(config: RecordConfig, index: int) -> dict[str, np.ndarray]:
    """One episode, which is over from the frame on in which it has fallen; arrays are indexed by frame, except
    `actions` with a row less.

    Half of the episodes begin as Gymnasium's do, the others in the middle of a gait.
    """
    rng = np.random.default_rng([config.seed, index])
    env = _environment(config.resolution)
    env.reset(seed=int(rng.integers(2**31)))
    if index % 2:
        for _ in range(rng.integers(10, 80)):
            env.advance(gait(env))
    frames, positions, poses, actions = [env.render()], [env.positions], [env.pose], []
    rewards, over = [0.0], [env.over]
    noise, lost = rng.normal(size=3), rng.integers(0, 48)
    mine = GAIT
    if rng.random() < 2 / 3:
        mine = GAIT + rng.uniform(0.0, SPREAD) * (np.abs(GAIT) + 0.3) * rng.normal(size=GAIT.shape)
    for step in range(config.steps):
        if step >= SHORTEST and sum(over) > AFTER:
            break
        if step % BEHAVIOUR_STEPS == 0:
            scale, strength = rng.choice([0.0, 0.1, 0.2, 0.3]), rng.choice([0.2, 0.5, 1.0])
            hold = rng.choice(HOLDS)
        if step % hold == 0:
            held = rng.uniform(-1.0, 1.0, 3)
        noise = 0.8 * noise + 0.6 * rng.normal(size=3)
        action = gait(env, mine) + scale * noise if step < lost else strength * held
        action = np.clip(action, -1, 1).astype(np.float32)
        rewards.append(env.advance(action))
        frames.append(env.render())
        positions.append(env.positions)
        poses.append(env.pose)
        actions.append(action)
        over.append(over[-1] or env.over)
    ended = np.array(over)[:, None]
    return {
        "frames": np.stack(frames),
        "positions": np.stack(positions),
        "poses": np.stack(poses),
        "rewards": np.array(rewards, np.float32)[:, None],
        "successes": np.zeros_like(ended),
        "terminations": ended,
        "actions": np.stack(actions),
    }


def gait(env: HopperEnv, linear: np.ndarray = GAIT) -> np.ndarray:
    """Torques [3], in [-1, 1], that hop on from here; or what another gait [3, 12] would do."""
    return np.clip(linear @ np.append(env._get_obs(), 1.0), -1.0, 1.0)


@lru_cache(maxsize=1)
def _environment(resolution: int) -> HopperEnv:
    """The worker's environment; opening a renderer costs more than an episode."""
    return HopperEnv(resolution=resolution)
