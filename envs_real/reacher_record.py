"""Recording the Reacher: torques at random, a controller that moves to angles of its own, and what is tried in a dream
by agents and planners: going for the target, well and badly.

Behaviour must not tell what the actions ought to: where arms came to rest at the target in a third of the recording, a
dream stopped them there whatever the torques were, and planners believed it. So whatever moves the arm on purpose may
stray from it at any time, also beside and at the target.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np

from .reacher import ReacherEnv, joints_at
from .recording import REACHER, RecordConfig, record_episodes

BEHAVIOUR_STEPS = 24
BEHAVIOURS = {"noise": 0.1, "held": 0.3, "angles": 0.1, "target": 0.3, "plan": 0.2}
"""What moves the arm -> its share of the recording."""
GAIN = 200.0
"""rad/s^2 that a torque of 1 gives a joint, nearly: armature weighs far more than the links."""
PLANS, PLAN_STEPS, HELD = 16, 6, 2
"""Action sequences tried for each plan, their length, and the steps for which a torque is held and a plan followed."""


def record(config: RecordConfig) -> Path:
    """Write the dataset and return its folder; resumes a killed recording of the same configuration."""
    env = ReacherEnv(resolution=config.resolution)
    about = {
        "env": REACHER,
        "observation_space": env.observation_space,
        "action_space": env.action_space,
        "algorithm_name": "scripted mix: random torques, moves to angles or the target, plans on true physics",
        "description": f"Gymnasium's Reacher-v5 from above, {config.resolution} pixels a side",
    }
    metadata = {
        "worldgym_instructions": [ReacherEnv.INSTRUCTION],
        "worldgym_phrases": [],
        "worldgym_frames_per_action": 1,
    }
    return record_episodes(config, play_episode, about, metadata)


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
    frames, positions, actions, judged = [env.render()], [env.positions], [], [env.all_rewards()]
    for step in range(config.steps):
        if step % BEHAVIOUR_STEPS == 0:
            mover = Mover(env, rng)
        action = mover()
        env.advance(action)
        frames.append(env.render())
        positions.append(env.positions)
        actions.append(action)
        judged.append(env.all_rewards())
    successes = np.stack([success for _, success in judged])
    return {
        "frames": np.stack(frames),
        "positions": np.stack(positions),
        "rewards": np.stack([reward for reward, _ in judged]),
        "successes": successes,
        "terminations": np.zeros_like(successes),
        "actions": np.stack(actions),
    }


class Mover:
    """One behaviour, drawn with its strengths, for BEHAVIOUR_STEPS steps of an arm."""

    def __init__(self, env: ReacherEnv, rng: np.random.Generator):
        self.env, self.rng = env, rng
        self.kind = str(rng.choice(list(BEHAVIOURS), p=list(BEHAVIOURS.values())))
        self.scale, self.strength = rng.choice([0.05, 0.2, 0.5]), rng.choice([0.2, 0.5, 1.0])
        self.speed, self.damping = rng.uniform(6.0, 20.0), rng.uniform(0.4, 1.2)  # rad/s and a share, of the controller
        self.smooth = rng.random() < 0.5  # an agent's noise is drawn anew at each step
        self.strays = rng.choice([0.0, 0.05, 0.2])
        self.angles = np.array([rng.uniform(-np.pi, np.pi), rng.uniform(-2.8, 2.8)])
        if self.kind == "target":
            place = env.goal + rng.choice([0.0, 0.01, 0.04]) * rng.normal(size=2)
            self.angles = joints_at(place, rng.choice([-1.0, 1.0]))
        self.noise, self.held = rng.normal(size=2), rng.uniform(-1.0, 1.0, 2)
        self.straying, self.plan = 0, np.empty((0, 2), np.float32)

    def __call__(self) -> np.ndarray:
        """The next torques, float32 [2]."""
        self.noise = 0.8 * self.noise + 0.6 * self.rng.normal(size=2) if self.smooth else self.rng.normal(size=2)
        return np.clip(self._torques(), -1, 1).astype(np.float32)

    def _torques(self) -> np.ndarray:
        if self.kind == "noise":
            return self.scale * self.noise
        if self.kind == "held":  # as planners try them: any torque, for a few steps
            if self.rng.random() < 0.4:
                self.held = self.rng.uniform(-1.0, 1.0, 2)
            return self.strength * self.held
        if not self.straying and self.rng.random() < self.strays:
            self.straying, self.held = int(self.rng.integers(1, 6)), self.rng.uniform(-1.0, 1.0, 2)
        if self.straying:
            self.straying, self.plan = self.straying - 1, self.plan[:0]
            return self.held
        if self.kind == "plan":
            return self._planned()
        gap = self.angles - self.env.data.qpos[:2]
        gap[0] = (gap[0] + np.pi) % (2 * np.pi) - np.pi  # the shoulder turns the short way round
        speed = self.env.data.qvel[:2]
        return (self.speed**2 * gap - 2 * self.damping * self.speed * speed) / GAIN + 0.5 * self.scale * self.noise

    def _planned(self) -> np.ndarray:
        """The best of random plans on true physics, tried anew every HELD steps."""
        if not len(self.plan):
            tried = self.rng.uniform(-1.0, 1.0, (PLANS, PLAN_STEPS // HELD, 2)).astype(np.float32)
            tried = self.strength * tried.repeat(HELD, 1)
            self.plan = tried[np.argmax(self.env.evaluate(tried))][:HELD]
        action, self.plan = self.plan[0], self.plan[1:]
        return action


@lru_cache(maxsize=1)
def _environment(resolution: int) -> ReacherEnv:
    """The worker's environment; opening a renderer costs more than an episode."""
    return ReacherEnv(resolution=resolution)
