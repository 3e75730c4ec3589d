"""The checkers: what they accept, and that each check catches what it is there for."""

import pickle
from copy import deepcopy
from dataclasses import replace
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from worldgym.checks import ConformanceError, check_dream_env, check_vector_env
from worldgym.checks import dream as checks
from worldgym.config import TokenizerConfig
from worldgym.env import DreamEnv
from worldgym.world import WorldModel

NEXT_STEP, SAME_STEP, DISABLED = AutoresetMode


class Toy(VectorEnv):
    """A well-behaved vector environment: each position drifts with its action and ends beyond 2."""

    def __init__(self, num_envs, autoreset_mode, max_episode_steps):
        self.num_envs, self.mode, self.limit = num_envs, autoreset_mode, max_episode_steps
        self.metadata = {"autoreset_mode": autoreset_mode, "render_modes": ["rgb_array"]}
        self.render_mode = "rgb_array"
        self.single_observation_space = gym.spaces.Box(-9, 9, (1,), np.float32)
        self.single_action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.generators = [np.random.default_rng() for _ in range(num_envs)]
        self.positions = np.zeros((num_envs, 1), np.float32)
        self.ages = np.zeros(num_envs, int)
        self.done = np.zeros(num_envs, bool)

    def reset(self, *, seed=None, options=None):
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        if not isinstance(mask, np.ndarray) or mask.dtype != bool or mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(f"reset_mask {mask}")
        if isinstance(seed, int):
            seed = range(seed, seed + self.num_envs)
        if seed is not None:
            if len(seed) != self.num_envs:
                raise ValueError(f"{len(seed)} seeds")
            self.generators = [np.random.default_rng(one) for one in seed]
        self.begin(mask)
        return self.observe(), {}

    def begin(self, mask):
        for index in np.flatnonzero(mask):
            self.positions[index] = self.generators[index].uniform(-1, 1)
        self.ages[mask], self.done[mask] = 0, False

    def observe(self):
        return self.positions.copy()

    def check(self, actions):
        if not isinstance(actions, np.ndarray) or actions.dtype.kind != "f":
            raise TypeError("actions")
        if actions.shape != (self.num_envs, 1) or not np.isfinite(actions).all():
            raise ValueError("actions")

    def step(self, actions):
        self.check(actions)
        if self.mode is DISABLED and self.done.any():
            raise RuntimeError("reset those that have finished")
        resets = self.done.copy() if self.mode is NEXT_STEP else np.zeros(self.num_envs, bool)
        self.begin(resets)
        self.positions[~resets] += actions[~resets]
        self.ages[~resets] += 1
        rewards = np.where(resets, 0.0, 1.0 + self.positions[:, 0])
        terminated = ~resets & (np.abs(self.positions[:, 0]) > 2)
        truncated = ~resets & (self.ages >= self.limit)
        self.done = terminated | truncated
        infos = {"age": self.ages.copy(), "_age": ~resets}
        if self.mode is SAME_STEP and self.done.any():
            infos |= self.final(self.done.copy(), deepcopy(infos))
            self.begin(self.done.copy())
        return self.observe(), rewards, terminated, truncated, infos

    def final(self, done, infos):
        observations = np.full(self.num_envs, None, object)
        for index in np.flatnonzero(done):
            observations[index] = self.positions[index].copy()
        return {"final_obs": observations, "_final_obs": done, "final_info": infos, "_final_info": done.copy()}

    def render(self):
        return tuple(np.zeros((4, 4, 3), np.uint8) for _ in range(self.num_envs))

    def fork(self):
        child = type(self)(num_envs=self.num_envs, autoreset_mode=self.mode, max_episode_steps=self.limit)
        child.restore(self.snapshot())
        return child

    def snapshot(self):
        return pickle.dumps((self.generators, self.positions, self.ages, self.done))

    def restore(self, blob):
        self.generators, self.positions, self.ages, self.done = pickle.loads(blob)


def test_a_good_environment_passes_everything():
    report = check_vector_env(Toy)
    assert not report.failed
    assert report.not_applicable == {"modes agree [NEXT_STEP]": "the other modes are compared with this one"}
    assert len(report.passed) == 3 * 17 - 1 + 7


# -- broken ones ---------------------------------------------------------------------------------------------------


class WrongSpace(Toy):
    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.action_space = gym.spaces.Box(-1, 1, (self.num_envs, 1), np.float64)


class SharedMetadata(Toy):
    shared = {}

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.metadata = self.shared
        self.shared["autoreset_mode"] = self.mode


class WrongType(Toy):
    def observe(self):
        return self.positions.astype(np.float64)


class NoMask(Toy):
    def step(self, actions):
        *rest, infos = super().step(actions)
        del infos["_age"]
        return *rest, infos


class DeafToSeeds(Toy):
    def reset(self, *, seed=None, options=None):
        return super().reset(options=options)


class OneSeedForAll(Toy):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=[seed] * self.num_envs if isinstance(seed, int) else seed, options=options)


class AlwaysTheSameStart(Toy):
    def reset(self, *, seed=None, options=None):
        self.last = getattr(self, "last", 0) if seed is None else seed
        return super().reset(seed=self.last, options=options)


class IntegersAlone(Toy):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=sum(seed) if isinstance(seed, list) else seed, options=options)


class SharedBuffer(Toy):
    def observe(self):
        self.buffer = getattr(self, "buffer", self.positions.copy())
        self.buffer[:] = self.positions
        return self.buffer


class OpenState(Toy):
    """Each result is new, yet it is the state itself."""

    def observe(self):
        self.positions = self.positions.copy()
        return self.positions


class WritesIntoActions(Toy):
    def step(self, actions):
        result = super().step(actions)
        actions *= 0.5
        return result


class AStepTooLong(Toy):
    def __init__(self, max_episode_steps, **arguments):
        super().__init__(max_episode_steps=max_episode_steps + 1, **arguments)


class KeepsItsAge(Toy):
    """The second episode is cut short."""

    def begin(self, mask):
        ages = self.ages.copy()
        super().begin(mask)
        self.ages = np.where(ages > 2, 1, self.ages)


class FeelsItsNeighbours(Toy):
    def begin(self, mask):
        super().begin(mask)
        self.positions[mask] += 0.01 * (self.num_envs - 1)


class DrawsFromNumpy(Toy):
    def begin(self, mask):
        np.random.random()
        super().begin(mask)


class TakesNan(Toy):
    def check(self, actions):
        super().check(np.nan_to_num(actions))
        actions[~np.isfinite(actions)] = 0.0


class StepsBeforeItLooks(Toy):
    def check(self, actions):
        try:
            super().check(actions)
        except ValueError:
            self.positions += 0.5
            raise


class ForgetsItsAge(Toy):
    def restore(self, blob):
        ages = self.ages
        super().restore(blob)
        self.ages = ages


class SnapshotOfReferences(Toy):
    def snapshot(self):
        return (self.generators, self.positions, self.ages, self.done)

    def restore(self, blob):
        self.generators, self.positions, self.ages, self.done = blob


class SharesWithItsFork(Toy):
    def fork(self):
        child = super().fork()
        child.positions = self.positions
        return child


class RendersOne(Toy):
    def render(self):
        return np.zeros((4, 4, 3), np.uint8)


class StaysOpen(Toy):
    def close(self, **arguments):
        pass


class ResetsAtOnce(Toy):
    """Same-step behaviour under the name of next-step."""

    def step(self, actions):
        result = super().step(actions)
        if self.mode is NEXT_STEP:
            self.begin(self.done.copy())
        return result


class RewardsTheReset(Toy):
    def step(self, actions):
        observations, rewards, *rest = super().step(actions)
        return observations, np.where(rewards == 0, 1.0, rewards), *rest


class HeedsTheIgnored(Toy):
    def step(self, actions):
        resets = self.done.copy()
        result = super().step(actions)
        if self.mode is NEXT_STEP:
            self.positions[resets] += actions[resets]
            result = (self.observe(), *result[1:])
        return result


class NoFinalObservation(Toy):
    def final(self, done, infos):
        return {}


class FinalIsFirst(Toy):
    def step(self, actions):
        result = super().step(actions)
        for index in np.flatnonzero(result[4].get("_final_obs", [])):
            result[4]["final_obs"][index] = result[0][index].copy()
        return result


class FinalOfAll(Toy):
    def final(self, done, infos):
        return super().final(np.ones_like(done), infos)


class OneGenerator(Toy):
    """Environments depend on who else is reset at the moment."""

    def begin(self, mask):
        self.generators = [self.generators[0]] * self.num_envs
        super().begin(mask)


class IgnoresTheMask(Toy):
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        return super().reset()


class ForgetsTheClock(Toy):
    """A reset by mask takes the clock of all back."""

    def reset(self, *, seed=None, options=None):
        result = super().reset(seed=seed, options=options)
        self.ages[:] = 0
        return result


class AnyMask(Toy):
    def reset(self, *, seed=None, options=None):
        mask = (options or {}).get("reset_mask")
        if mask is not None and np.shape(mask) == (self.num_envs,) and np.any(mask):
            options = {"reset_mask": np.asarray(mask, bool)}
        return super().reset(seed=seed, options=options)


class TakesTheMaskAway(Toy):
    def reset(self, *, seed=None, options=None):
        mask = (options or {}).pop("reset_mask", None)
        return super().reset(seed=seed, options=None if mask is None else {"reset_mask": mask})


class StepsTheFinished(Toy):
    def step(self, actions):
        if self.mode is DISABLED:
            self.done[:] = False
        return super().step(actions)


BROKEN = {
    WrongSpace: "spaces agree single and batched",
    SharedMetadata: "the metadata say the mode",
    WrongType: "results fit their spaces",
    NoMask: "results fit their spaces",
    DeafToSeeds: "the seed decides",
    OneSeedForAll: "the seed decides",
    AlwaysTheSameStart: "a reset without a seed goes on",
    IntegersAlone: "seeds can be a list",
    SharedBuffer: "results are copies",
    OpenState: "results are copies",
    WritesIntoActions: "actions are left alone",
    AStepTooLong: "time runs out exactly",
    KeepsItsAge: "time runs out exactly",
    FeelsItsNeighbours: "an env alone is as in a batch",
    OneGenerator: "an env alone is as in a batch",
    DrawsFromNumpy: "global randomness is left alone",
    TakesNan: "bad actions are refused",
    StepsBeforeItLooks: "bad actions are refused",
    ForgetsItsAge: "a snapshot continues exactly",
    SnapshotOfReferences: "a snapshot continues exactly",
    SharesWithItsFork: "a fork is independent",
    RendersOne: "it renders every environment",
    StaysOpen: "closing twice is harmless",
    ResetsAtOnce: "the next step resets",
    RewardsTheReset: "the next step resets",
    HeedsTheIgnored: "the next step resets",
    NoFinalObservation: "final observations are told",
    FinalIsFirst: "final observations are told",
    FinalOfAll: "final observations are told",
    IgnoresTheMask: "reset mask resets those alone",
    ForgetsTheClock: "a reset mask starts the clock anew",
    AnyMask: "bad reset masks are refused",
    TakesTheMaskAway: "options are left alone",
    StepsTheFinished: "a finished environment refuses to step",
}


@pytest.mark.parametrize(("broken", "check"), BROKEN.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_environment_is_caught_by_its_check(broken, check):
    with pytest.raises(ConformanceError) as caught:
        check_vector_env(broken)
    assert check in {name.partition(" [")[0] for name in caught.value.report.failed}
    assert f"FAIL  {check}" in str(caught.value)


def test_each_check_catches_something():
    """That there is one of the broken above for each; agreement of the modes is caught with others."""
    checks = {name.partition(" [")[0] for name in check_vector_env(Toy).passed}
    assert checks - set(BROKEN.values()) == {"modes agree"}


def test_modes_that_part_are_caught():
    class Leaps(Toy):
        def begin(self, mask):
            super().begin(mask)
            self.positions[mask] += 0.5 * (self.mode is SAME_STEP)

    with pytest.raises(ConformanceError) as caught:
        check_vector_env(Leaps)
    assert list(caught.value.report.failed) == ["modes agree [SAME_STEP]"]
    assert "otherwise from step 0: before float32" not in str(caught.value)


# -- what does not apply -------------------------------------------------------------------------------------------


def test_a_mode_that_the_maker_refuses_is_reported():
    def make(autoreset_mode, **arguments):
        if autoreset_mode is not SAME_STEP:
            raise NotImplementedError(f"{autoreset_mode.name} is for later")
        return Toy(autoreset_mode=autoreset_mode, **arguments)

    report = check_vector_env(make)
    assert report.not_applicable["DISABLED"] == "make refuses it: NotImplementedError: DISABLED is for later"
    assert report.not_applicable["modes agree [SAME_STEP]"] == "there is no other mode"
    assert all("[SAME_STEP]" in name for name in report.passed)


def test_a_maker_that_refuses_everything_is_an_error():
    with pytest.raises(ValueError, match="refuses every autoreset mode"):
        check_vector_env(lambda: None)


def test_a_check_is_left_out_with_a_reason():
    reason = "the world has one wind for all"
    report = check_vector_env(FeelsItsNeighbours, {"an env alone is as in a batch": reason})
    assert report.not_applicable["an env alone is as in a batch [DISABLED]"] == reason
    with pytest.raises(ValueError, match=r"unknown checks \['beauty'\]; known are spaces agree"):
        check_vector_env(Toy, {"beauty": "in the eye of the beholder"})


# -- Gymnasium's own -----------------------------------------------------------------------------------------------

BOTH = {
    "bad actions are refused": "CartPole asserts, when the environments before the bad one have stepped",
    "options are left alone": "reset pops reset_mask from its caller's dict",
}
FINDINGS = {
    "sync": BOTH,
    "async": BOTH | {"a finished environment refuses to step": "workers step on in DISABLED, where sync asserts"},
    "native": {
        "seeds can be a list": "there is one generator for all environments, so one seed",
        "an env alone is as in a batch": "there is one generator for all environments, so they draw in turn",
        "bad actions are refused": "actions are asserted: an AssertionError instead of a ValueError",
        "closing twice is harmless": "it overrides close(), so `closed` stays False",
    },
}
"""What Gymnasium's own do otherwise, and why."""


def make_cartpoles(kind, num_envs, autoreset_mode, max_episode_steps):
    arguments = {"num_envs": num_envs, "max_episode_steps": max_episode_steps}
    if kind != "native":
        arguments |= {"vectorization_mode": kind, "vector_kwargs": {"autoreset_mode": autoreset_mode}}
    elif autoreset_mode is not NEXT_STEP:
        raise NotImplementedError("CartPoleVectorEnv has no autoreset_mode but NEXT_STEP")
    return gym.make_vec("CartPole-v1", **arguments)


@pytest.mark.parametrize(("kind", "modes"), [("sync", 3), ("async", 3), ("native", 1)])
def test_gymnasiums_own_pass_but_for_the_findings(kind, modes):
    report = check_vector_env(partial(make_cartpoles, kind), FINDINGS[kind])
    assert not report.failed
    assert len({name.partition(" [")[2] for name in report.passed}) == modes


@pytest.mark.parametrize("kind", ["sync", "native"])
def test_the_findings_are_true(kind):
    """So that a Gymnasium without them is noticed. (Bad actions leave worker processes behind: not of async.)"""
    with pytest.raises(ConformanceError) as caught:
        check_vector_env(partial(make_cartpoles, kind))
    assert {name.partition(" [")[0] for name in caught.value.report.failed} == set(FINDINGS[kind])


# -- dreams --------------------------------------------------------------------------------------------------------

THE_TWIN = {
    "infos tell uncertainty": "true physics is certain",
    "it starts from frames": "a picture does not tell MuJoCo's state",
}


LOOKS = {"vector": "pixels", "text": "both", "discrete": "latent", "both": "pixels"}
"""Observations to go with each kind of action."""


@pytest.fixture
def speck(make_world, write_checkpoint):
    """A world smaller than the tiny one: 16 pixels, one layer, sentences of two frames."""
    tiny = make_world()
    tokenizer = TokenizerConfig(resolution=16, channels=(8, 8), latent_channels=4, codes=16, scales=(2, 4), heads=1)
    dynamics = replace(tiny.config.dynamics, layers=1, width=32, heads=1, mlp_width=32, head_width=16)
    config = replace(tiny.config, frames_per_action=2, tokenizer=tokenizer, dynamics=dynamics)
    torch.manual_seed(0)
    return str(write_checkpoint(WorldModel(config, tiny.text).eval().requires_grad_(False)))


@pytest.mark.parametrize("mode", ["vector", "text", "discrete", "both"])
def test_dreams_pass(speck, mode):
    arguments = {"action_mode": mode, "obs_type": LOOKS[mode], "temperature": 1.0, "render_mode": "rgb_array"}
    report = check_dream_env(gym.make("worldgym/Dream-v0", world=speck, device="cpu", **arguments))
    assert not report.failed
    assert set(report.not_applicable) == ({"any sentence is an action"} if mode != "text" else set())


@pytest.mark.parametrize(
    "mode", ["text", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("vector", "discrete", "both"))]
)
def test_the_real_twin_passes(mode):
    report = check_dream_env(gym.make("worldgym/TabletopMuJoCo-v0", action_mode=mode), THE_TWIN)
    assert not report.failed


class Warns(DreamEnv):
    def reset(self, *, seed=None, options=None):
        gym.logger.warn("hm")
        return super().reset(seed=seed, options=options)


class NumpyReward(DreamEnv):
    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, np.float64(reward), *rest


class SilentInfo(DreamEnv):
    def step(self, action):
        *rest, info = super().step(action)
        return *rest, {"uncertainty": info["uncertainty"]}


class MoreInfo(DreamEnv):
    def step(self, action):
        *rest, info = super().step(action)
        return *rest, info | {"more": 1}


class CertainInfo(DreamEnv):
    def step(self, action):
        *rest, info = super().step(action)
        return *rest, info | {"uncertainty": float("nan")}


class DeafDream(DreamEnv):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=7, options=options)


class SameDreamAgain(DreamEnv):
    def reset(self, *, seed=None, options=None):
        self.last = getattr(self, "last", 0) if seed is None else seed
        return super().reset(seed=self.last, options=options)


class OneBuffer(DreamEnv):
    buffer = np.zeros((16, 16, 3), np.uint8)

    def step(self, action):
        observation, *rest = super().step(action)
        self.buffer[:] = observation
        return self.buffer, *rest


class SpoilsActions(DreamEnv):
    def step(self, action):
        result = super().step(action)
        action *= 0.5
        return result


class UsesTorch(DreamEnv):
    def step(self, action):
        torch.rand(1)
        return super().step(action)


class ForgetsItsGenerator(DreamEnv):
    def restore(self, blob):
        random = self.np_random.bit_generator.state
        super().restore(blob)
        self.np_random.bit_generator.state = random


class IsItsOwnFork(DreamEnv):
    def fork(self):
        return self


class RestoresAnything(DreamEnv):
    def restore(self, blob):
        try:
            super().restore(blob)
        except ValueError:
            self.reset()


class TrustsActions(DreamEnv):
    def step(self, action):
        return super().step(np.zeros(2, np.float32) if action is None else action)


class TakesAnyOption(DreamEnv):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed, options={k: v for k, v in (options or {}).items() if k != "colour"})


class KnowsNoSentence(DreamEnv):
    def step(self, action):
        *rest, info = super().step(action)
        return *rest, info | {"action_ok": False}


class IgnoresFrames(DreamEnv):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed, options={k: v for k, v in (options or {}).items() if k != "frames"})


BROKEN_DREAMS = {
    Warns: checks.gymnasium_accepts_it,
    NumpyReward: checks.a_step_returns_plain_values,
    SilentInfo: checks.infos_tell_success_and_frames,
    MoreInfo: checks.infos_have_one_set_of_keys,
    CertainInfo: checks.infos_tell_uncertainty,
    DeafDream: checks.the_seed_decides_the_dream,
    SameDreamAgain: checks.a_reset_without_a_seed_goes_on,
    OneBuffer: checks.results_are_copies,
    SpoilsActions: checks.actions_are_left_alone,
    UsesTorch: checks.global_randomness_is_left_alone,
    ForgetsItsGenerator: checks.a_snapshot_continues_exactly,
    IsItsOwnFork: checks.a_fork_is_independent,
    RestoresAnything: checks.spoilt_snapshots_are_refused,
    TrustsActions: checks.bad_actions_are_refused,
    TakesAnyOption: checks.bad_options_are_refused,
    KnowsNoSentence: checks.any_sentence_is_an_action,
    IgnoresFrames: checks.it_starts_from_frames,
}


@pytest.mark.parametrize(("broken", "check"), BROKEN_DREAMS.items(), ids=lambda value: value.__name__)
def test_a_broken_dream_is_caught_by_its_check(speck, broken, check):
    mode = "text" if broken is KnowsNoSentence else "vector"
    make = partial(gym.make, gym.envs.registration.EnvSpec("test/Broken-v0", broken))
    with pytest.raises((AssertionError, Warning)):
        check(make(world=speck, action_mode=mode, device="cpu").unwrapped)


def test_each_dream_check_catches_something():
    assert set(checks._DREAM_CHECKS) == set(BROKEN_DREAMS.values())


# -- dreams by the batch -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode", ["vector", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("text", "discrete", "both"))]
)
def test_batches_of_dreams_pass(speck, mode):
    """In every autoreset mode."""
    make = partial(
        gym.make_vec, "worldgym/Dream-v0", world=speck, device="cpu", action_mode=mode, obs_type=LOOKS[mode],
        temperature=1.0, render_mode="rgb_array",
    )  # fmt: skip
    report = check_vector_env(make)
    assert list(report.not_applicable) == ["modes agree [NEXT_STEP]"]
