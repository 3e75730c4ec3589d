"""Recording the Tabletop: a mix of random, goal-seeking and text-skill behaviour."""

from pathlib import Path

import gymnasium as gym
import numpy as np

from worldgym.episodes import EpisodeFormat

from ..recording import record_episodes
from ..settings import TABLETOP, RecordConfig
from .env import FRAMES_PER_TEXT, TabletopEnv
from .scene import Variation, sample_variation
from .skills import phrases, skill_action
from .tasks import DIRECTIONS, tasks

EXPLAINED = 8
"""Sentences at each frame for which the controller says what it would do: a sentence means something at every
frame, not only where it was followed."""


def record(config: RecordConfig) -> Path:
    """Write the dataset and return its folder; resumes a killed recording of the same configuration."""
    env = TabletopEnv(resolution=config.resolution)
    layout = EpisodeFormat(
        config.resolution, gym.spaces.flatdim(env.action_space), tuple(tasks(env.colors)), tuple(phrases(env.colors)),
        FRAMES_PER_TEXT,
    )  # fmt: skip
    return record_episodes(
        config,
        play_episode,
        layout,
        "scripted mix: random, goal-seeking, text skills",
        f"Tabletop in MuJoCo, {config.resolution} pixels a side, rewards of every instruction in infos",
        gym.spec(TABLETOP),
    )


def play_episode(config: RecordConfig, index: int) -> dict[str, np.ndarray]:
    """One episode: behaviours change every 16 steps. Arrays are indexed by frame, [steps + 1, ...], except
    `actions` [steps, 2]. `sentences` [steps + 1, 8] index `phrases()`, and `sentence_actions` say what the
    controller would do to carry each of them out."""
    rng = np.random.default_rng([config.seed, index])
    env = _environment(config, rng)
    env.reset(seed=int(rng.integers(2**31)))
    skills = phrases(env.colors)
    known = list(skills.values())
    weights = np.array([2.0 if task.verb == "push" and task.target in DIRECTIONS else 1.0 for task in known])
    weights /= weights.sum()

    frames, positions, poses, actions = [env.render()], [env.positions], [env.pose], []
    judged = [env.all_rewards()]
    for step in range(config.steps):
        if step % FRAMES_PER_TEXT == 0:
            behaviour = rng.choice(["text", "goal", "random"], p=[0.5, 0.3, 0.2])
            choice, motion = rng.choice(len(known), p=weights), rng.normal(size=2)
        motion = 0.85 * motion + 0.5 * rng.normal(size=2)
        if behaviour == "random":
            action = motion
        else:
            noise = 0.08 if behaviour == "text" else 0.4
            action = skill_action(known[choice], env.positions, env.colors) + noise * rng.normal(size=2)
        action = np.clip(action, -1, 1).astype(np.float32)
        env.advance(action)
        frames.append(env.render())
        positions.append(env.positions)
        poses.append(env.pose)
        actions.append(action)
        judged.append(env.all_rewards())
    sentences = rng.integers(len(known), size=(config.steps + 1, EXPLAINED))
    return {
        "frames": np.stack(frames),
        "positions": np.stack(positions),
        "poses": np.stack(poses),
        "rewards": np.stack([rewards for rewards, _ in judged]),
        "successes": np.stack([successes for _, successes in judged]),
        "terminations": np.stack([successes for _, successes in judged]),
        "actions": np.stack(actions),
        "sentences": sentences.astype(np.int16),
        "sentence_actions": np.stack(
            [
                np.stack([skill_action(known[one], where, env.colors) for one in row])
                for row, where in zip(sentences, positions, strict=True)
            ]
        ),
    }


_cached: dict[tuple[Variation, int], TabletopEnv] = {}


def _environment(config: RecordConfig, rng: np.random.Generator) -> TabletopEnv:
    """The worker's table; compiling a model and opening a renderer cost more than an episode."""
    factors = ("mass", "friction", "light", "block_size", "shapes")  # what keeps the instructions' words
    variation = Variation() if config.variation == "nominal" else sample_variation(rng, config.variation, factors)
    wanted = variation, config.resolution
    if wanted not in _cached:
        if len(_cached) >= 32:
            _cached.pop(next(iter(_cached))).close()
        _cached[wanted] = TabletopEnv(variation=variation, resolution=config.resolution)
    return _cached[wanted]
