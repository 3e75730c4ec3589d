"""Recording the Reacher: torques at random, and a controller that moves to angles of its own, seldom to the target.

Behaviour must not tell what the actions ought to: where arms came to rest at the target in a third of the recording, a
dream stopped them there whatever the torques were, and planners believed it.
"""

from functools import lru_cache
from pathlib import Path

import gymnasium as gym
import numpy as np

from worldgym.episodes import EpisodeFormat

from .reacher import ReacherEnv, joints_at
from .recording import record_episodes
from .settings import REACHER, RecordConfig

BEHAVIOUR_STEPS = 6, 25
"""A behaviour lasts so many steps, the second excluded."""
BEHAVIOURS = {"noise": 0.15, "held": 0.35, "angles": 0.2, "target": 0.3}
"""With their probabilities."""
GAIN = 200.0
"""rad/s^2 that a torque of 1 gives a joint, nearly: armature weighs far more than the links."""


def record(config: RecordConfig) -> Path:
    """Write the dataset and return its folder; resumes a killed recording of the same configuration."""
    return record_episodes(
        config,
        play_episode,
        EpisodeFormat(config.resolution, gym.spaces.flatdim(ReacherEnv().action_space), (ReacherEnv.INSTRUCTION,)),
        "scripted mix: noisy and held random torques, moves to random angles or to the target",
        f"Gymnasium's Reacher-v5 from above, {config.resolution} pixels a side",
        gym.spec(REACHER),
    )


def play_episode(config: RecordConfig, index: int) -> dict[str, np.ndarray]:
    """One episode; arrays are indexed by frame, [steps + 1, ...], except `actions` [steps, 2].

    Half of the episodes begin as Gymnasium's do, the others anywhere, at rest.
    """
    rng = np.random.default_rng([config.seed, index])
    env = _environment(config.resolution)
    env.reset(seed=int(rng.integers(2**31)))
    if index % 2:
        angles = rng.uniform(-np.pi, np.pi), rng.uniform(-2.8, 2.8)
        env.set_state(np.concatenate([angles, env.goal]), np.zeros(4))
    frames, positions, poses, actions, judged = [env.render()], [env.positions], [env.pose], [], [env.all_rewards()]
    left = 0
    for _ in range(config.steps):
        if left == 0:
            left = int(rng.integers(*BEHAVIOUR_STEPS))
            behaviour = rng.choice(list(BEHAVIOURS), p=list(BEHAVIOURS.values()))
            scale, speed = rng.choice([0.05, 0.2, 0.5]), rng.uniform(8.0, 20.0)  # speed: rad/s, of the controller
            jitter = rng.choice([0.15, 0.6])
            wanted = np.array([rng.uniform(-np.pi, np.pi), rng.uniform(-2.8, 2.8)])
            if behaviour == "target":
                wanted = joints_at(env.goal, rng.choice([-1.0, 1.0]))
            noise, held = rng.normal(size=2), rng.uniform(-1.0, 1.0, 2)
            strength = rng.choice([0.2, 0.5, 1.0])
        if behaviour == "held" and rng.random() < 0.4:  # as planners try them: any torque, for a few steps
            held = rng.uniform(-1.0, 1.0, 2)
        noise = 0.8 * noise + 0.6 * rng.normal(size=2)
        action = strength * held if behaviour == "held" else scale * noise
        if behaviour in ("angles", "target"):
            gap = wanted - env.data.qpos[:2]
            gap[0] = (gap[0] + np.pi) % (2 * np.pi) - np.pi  # the shoulder turns the short way round
            action = (speed**2 * gap - 2 * speed * env.data.qvel[:2]) / GAIN + jitter * action
        left -= 1
        action = np.clip(action, -1, 1).astype(np.float32)
        env.advance(action)
        frames.append(env.render())
        positions.append(env.positions)
        poses.append(env.pose)
        actions.append(action)
        judged.append(env.all_rewards())
    successes = np.stack([success for _, success in judged])
    return {
        "frames": np.stack(frames),
        "positions": np.stack(positions),
        "poses": np.stack(poses),
        "rewards": np.stack([reward for reward, _ in judged]),
        "successes": successes,
        "terminations": np.zeros_like(successes),
        "actions": np.stack(actions),
    }


@lru_cache(maxsize=1)
def _environment(resolution: int) -> ReacherEnv:
    """The worker's environment; opening a renderer costs more than an episode."""
    return ReacherEnv(resolution=resolution)
