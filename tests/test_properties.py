"""Whatever is done to dreams, in any order, they stay true to their seed, their snapshots and their forks."""

from copy import deepcopy

import gymnasium as gym
import hypothesis.strategies as st
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from worldgym.env import DreamEnv
from worldgym.vector import DreamVectorEnv

SEEDS = st.integers(0, 3)
LOOKS = {"action_mode": "both", "obs_type": "both", "temperature": 1.0, "device": "cpu"}


class Dreaming(RuleBasedStateMachine):
    """Plays with an environment and keeps its `past`: all since the last seeded reset, enough to relive it.

    Two environments stand at the same point if their snapshots are the same bytes.
    """

    saved = Bundle("saved")

    def __init__(self, make):
        super().__init__()
        self.make = make

    @initialize(seed=SEEDS)
    def begin(self, seed):
        self.env = self.make()
        self.reset(seed)

    @rule(seed=SEEDS)
    def reset(self, seed):
        self.past = []
        self.live("reset", {"seed": seed})

    @rule()
    def reset_without_a_seed(self):
        self.live("reset", {})

    @rule(seed=SEEDS)
    def step(self, seed):
        if not self.waiting():
            self.live("step", self.action(seed))

    @rule(target=saved)
    def save(self):
        return self.env.snapshot(), list(self.past), deepcopy(self.over)

    @rule(saved=saved)
    def restore(self, saved):
        blob, self.past, self.over = saved[0], list(saved[1]), deepcopy(saved[2])
        self.env.restore(blob)
        assert self.env.snapshot() == blob

    @rule(seed=SEEDS)
    def fork_and_let_it_stray(self, seed):
        before = self.env.snapshot()
        child = self.env.fork()
        assert child.snapshot() == before
        if not self.waiting():
            child.step(self.action(seed))
        child.reset(seed=seed)
        assert self.env.snapshot() == before

    @rule()
    def become_the_fork(self):
        """And leave the parent to stray."""
        parent, self.env = self.env, self.env.fork()
        before = self.env.snapshot()
        parent.reset(seed=9)
        assert self.env.snapshot() == before

    @rule(which=st.integers(0, 5))
    def try_what_is_bad(self, which):
        before = self.env.snapshot()
        attempts = [
            lambda: self.env.step(self.bad_action()),
            lambda: self.env.step(None),
            lambda: self.env.reset(options={"colour": "red"}),
            lambda: self.env.reset(options={"frames": np.zeros((1, 8, 8, 3), np.uint8)}),
            lambda: self.env.reset(seed=1, options={"instruction": "fly"}),
            lambda: self.env.restore(before[:-10]),
        ]
        with pytest.raises((ValueError, TypeError, gym.error.ResetNeeded)):
            attempts[which]()
        assert self.env.snapshot() == before

    @rule()
    def relive(self):
        """The past alone, in a new environment, leads to the same point."""
        other = self.make()
        for what, value in self.past:
            relive(other, what, value)
        assert other.snapshot() == self.env.snapshot()
        assert np.array_equal(other.render(), self.env.render())

    def live(self, what, value):
        """Do it, and check what comes of it."""
        observation, *outcome, info = relive(self.env, what, value)
        self.past.append((what, value))
        assert observation in self.env.observation_space
        assert isinstance(info, dict)
        if what == "step":
            reward, terminated, truncated = outcome
            assert np.isfinite(reward).all()
            self.over = np.asarray(terminated) | np.asarray(truncated)
        else:
            self.over = (
                self.over & ~value["options"]["reset_mask"] if "options" in value else np.zeros(self.count, bool)
            )

    # -- what differs between one and many --

    count = 1

    def waiting(self):
        """Whether the environment must be reset before it steps."""
        return False

    def action(self, seed):
        space = deepcopy(self.env.action_space)
        space.seed(seed)
        return space.sample()

    def bad_action(self):
        return np.full(2, np.nan, np.float32)


class DreamingMany(Dreaming):
    """The same, of two dreams at once whose episodes end after three steps."""

    count = 2

    def waiting(self):
        return bool(self.env.metadata["autoreset_mode"] is AutoresetMode.DISABLED and self.over.any())

    def bad_action(self):
        return [np.zeros(2, np.float32), np.full(2, np.nan, np.float32)]

    @rule(mask=st.sampled_from([[True, False], [False, True], [True, True]]))
    def reset_some(self, mask):
        self.live("reset", {"options": {"reset_mask": np.array(mask)}})

    @rule()
    def step_when_it_must_not(self):
        if self.waiting():
            before = self.env.snapshot()
            with pytest.raises(gym.error.ResetNeeded):
                self.env.step(self.action(0))
            assert self.env.snapshot() == before


def relive(env, what, value):
    return env.step(value) if what == "step" else env.reset(**value)


def explore(machine, examples):
    """The same sequences each time: a failure here is one everywhere."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=12, deadline=None, derandomize=True, database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


def test_one_dream(checkpoint):
    explore(lambda: Dreaming(lambda: DreamEnv(str(checkpoint), render_mode="rgb_array", **LOOKS)), 12)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_many_dreams(checkpoint, mode):
    def make():
        return DreamVectorEnv(
            str(checkpoint), num_envs=2, max_episode_steps=3, autoreset_mode=mode, render_mode="rgb_array", **LOOKS
        )

    explore(lambda: DreamingMany(make), 12)
