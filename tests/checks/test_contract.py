"""One contract of verbs: small worlds keep it, PAN keeps it, and a world that breaks it is found out."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from worldgym.checks import check_world, contract
from worldgym.checks.contract import Trial
from worldgym.pan.rewards import make_reward
from worldgym.pan.state import PanState
from worldgym.pan.world import PanWorld

VECTORS = [np.array(vector, np.float32) for vector in ([1, 0], [-1, 0.5], [0, -1], [0.3, 0.9])]
SENTENCES = ["push", "go left", "stay where you are", "open the drawer"]


def never_ending(world):
    """Whose untrained heads say of no frame that the episode is over, so that returns are sums."""
    for member in world.dynamics.outcome_heads.members:
        torch.nn.init.constant_(member.outer[-1].bias[2], -20.0)
    return world


@pytest.mark.parametrize("predict", ["in_place", "queries_kept"])
def test_a_small_world_keeps_it(make_world, frames, predict):
    world = never_ending(make_world(predict))
    report = check_world(world, frames[:, :1], VECTORS, lambda state, outcome: outcome.reward)
    assert len(report.passed) == 13


@pytest.fixture(scope="module")
def pan(pan_folder) -> PanWorld:
    world = PanWorld.load(pan_folder / "joint", dtype=torch.float32)
    world.at_once = 4
    torch.manual_seed(0)
    for layer in world.decoder.layers:  # so loud that two training steps can be heard
        torch.nn.init.normal_(layer.state.out.weight)
    return world


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 1, 32, 32, 3), np.uint8)


def check_pan(world: PanWorld, pictures: np.ndarray):
    judge = make_reward(lambda frames: frames.mean((1, 2, 3)) / 255, world)
    evaluate = partial(world.evaluate, reward=judge)
    return check_world(world, pictures, SENTENCES, lambda state, video: judge(state), evaluate)


def test_pan_keeps_it(pan, pictures):
    assert len(check_pan(pan, pictures).passed) == 13


class Forgetful(PanState):
    """Forks into dreams of other chances than they had."""

    def fork(self, copies, seeds=None):
        return PanState(tuple(replace(one, seed=one.seed + 1) for one in PanState.fork(self, copies).simulations))


def test_broken_promises_are_found(pan, pictures, monkeypatch):
    judge = make_reward(lambda frames: frames.mean((1, 2, 3)) / 255, pan)
    trial = Trial(pan, pictures, SENTENCES, partial(pan.evaluate, reward=judge), lambda state, video: judge(state))
    forgetful = Forgetful(pan.start(pictures).simulations)
    with monkeypatch.context() as patch:
        patch.setattr(Trial, "under_way", lambda self: forgetful)
        with pytest.raises(AssertionError, match="went otherwise than its parent"):
            contract.a_fork_continues_as_its_parent(trial)
    generous = replace(trial, evaluate=lambda state, plans: trial.evaluate(state, plans) + 0.1)
    with pytest.raises(AssertionError, match="stepping and summing gives"):
        contract.evaluating_is_stepping_and_summing(generous)
