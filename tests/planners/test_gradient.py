import numpy as np
import pytest
import torch

from worldgym.planners import MPC, RandomShooting
from worldgym.planners.gradient import DreamSlope, Gradient
from worldgym.planners.interop import DreamCost

GOAL = np.array([0.8, -0.5])
INSTRUCTION = "reach the centre"


def slope(sequences):
    """A point takes steps towards a goal; minus the sum of its squared distances, and the gradient."""
    away = np.cumsum(0.2 * sequences, axis=1) - GOAL
    later = np.cumsum(away[:, ::-1], axis=1)[:, ::-1]
    return -np.square(away).sum((1, 2)), -0.4 * later


def returns(sequences):
    return slope(sequences)[0]


def planner(evaluate=returns, uphill=slope, **arguments):
    return Gradient(evaluate, -np.ones(2), np.ones(2), slope=uphill, **arguments)


# -- climbing -------------------------------------------------------------------------------------------------------


def test_climbing_beats_shooting_with_as_many_tries():
    for seed in range(5):
        plan = planner(samples=32, climbers=4, iterations=8, seed=seed).plan()
        shot = RandomShooting(returns, -np.ones(2), np.ones(2), samples=100, iterations=1, seed=seed).plan()
        assert plan.expected_return > shot.expected_return + 0.2
        assert returns(plan.actions[None])[0] == pytest.approx(plan.expected_return, rel=1e-4)


def test_steps_do_not_depend_on_the_scale_of_the_reward():
    plans = [
        planner(lambda s, k=k: k * returns(s), lambda s, k=k: tuple(k * part for part in slope(s))).plan()
        for k in (1.0, 1024.0)
    ]
    np.testing.assert_allclose(plans[0].actions, plans[1].actions, atol=1e-5)


@pytest.mark.parametrize("repeat", [1, 2, 5])
def test_climbers_keep_their_bounds_and_hold_their_actions(repeat):
    tried = []

    def watch(sequences):
        tried.append(sequences)
        return np.zeros(len(sequences)), np.ones_like(sequences)  # up is out of the bounds

    low, high = np.array([-1.0, 0.0], np.float32), np.array([0.5, 2.0], np.float32)
    plan = Gradient(returns, low, high, slope=watch, action_repeat=repeat, iterations=6).plan(np.full((10, 2), 7.0))
    for sequences in [*tried, plan.actions[None]]:
        assert (sequences >= low).all() and (sequences <= high).all()
        held = sequences.reshape(len(sequences), 10 // repeat, repeat, 2)
        assert (held == held[:, :, :1]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_diverges_is_left_where_it_is(bad):
    def treacherous(sequences):
        value, gradient = slope(sequences)
        wild = sequences[:, 0, 0] > 0
        return np.where(wild, bad, value), np.where(wild[:, None, None], bad, gradient)

    plan = planner(lambda s: treacherous(s)[0], treacherous).plan()
    assert plan.actions[0, 0] <= 0 and np.isfinite(plan.expected_return) and np.isfinite(plan.spread).all()


def test_a_warm_start_is_where_it_begins():
    good = planner(samples=64, iterations=10).plan()
    warm = planner(samples=2, climbers=1, iterations=1).plan(good.actions)
    assert warm.expected_return >= good.expected_return - 1e-5


def test_climbers_are_among_the_samples():
    with pytest.raises(ValueError, match="climbers is 9; it must be between 1 and samples, 8"):
        planner(samples=8, climbers=9)


# -- through the dream ----------------------------------------------------------------------------------------------


def endless(world):
    """Random weights would end an episode at any step."""
    for member in world.dynamics.outcome_heads.members:
        member.outer[-1].bias[2] = -20.0
    return world


@pytest.fixture
def sequences():
    return np.random.default_rng(3).uniform(-1, 1, (3, 4, 2)).astype(np.float32)


def test_the_returns_are_the_dreams_own(world, frames, sequences):
    dream = DreamSlope(endless(world), INSTRUCTION)
    with pytest.raises(RuntimeError, match=r"ground\(\)"):
        dream.slope(sequences)
    dream.ground(frames[0, :1])
    value, gradient = dream.slope(sequences)
    np.testing.assert_allclose(value, dream(sequences), rtol=1e-4, atol=1e-5)
    assert gradient.shape == sequences.shape and np.isfinite(gradient).all()
    assert (np.abs(gradient).max((0, 2)) > 0).all()  # every action counts, the last one too
    np.testing.assert_allclose(dream(sequences), value, rtol=1e-4, atol=1e-5)  # and nothing has changed


def test_without_draws_the_gradient_is_the_true_one(make_world, frames, sequences, monkeypatch):
    """A head that takes its guess for what it drew makes the dream smooth; then differences must agree with slopes."""
    world = endless(make_world())

    def guess(aligned, action, latent, *unused, **unused_too):
        return None, latent + world.dynamics.scale_head.guess(aligned), None

    monkeypatch.setattr(world.dynamics.scale_head, "draw", guess)
    dream = DreamSlope(world, INSTRUCTION)
    dream.ground(frames[0, :1])
    middle = sequences[:1] / 2
    _, gradient = dream.slope(middle)
    steepness = np.linalg.norm(gradient)
    ahead, behind = (dream.slope(middle + side * gradient / steepness)[0][0] for side in (0.2, -0.2))
    assert (ahead - behind) / 0.4 == pytest.approx(steepness, rel=0.1)


def test_gradients_end_with_the_window(make_world, frames):
    dream = DreamSlope(make_world(), INSTRUCTION)
    dream.ground(frames[0, :1])
    with pytest.raises(ValueError, match="the horizon is 5; gradients reach 4 steps"):
        dream.slope(np.zeros((1, 5, 2), np.float32))


def test_it_climbs_inside_a_dream(make_world, frames):
    dream = DreamSlope(make_world(), INSTRUCTION)
    control = MPC(dream, Gradient(dream, -np.ones(2), np.ones(2), horizon=4, samples=6, climbers=2))
    assert np.abs(control(frames[0, 0])).max() <= 1
    assert dream(control.plan.actions[None])[0] == pytest.approx(control.plan.expected_return, rel=1e-4)


# -- as another library's solvers see it ----------------------------------------------------------------------------


class Solver:
    """Calls a model the way the solvers of stable-worldmodel do: each info repeated for all samples, costs [b, s]."""

    def __init__(self, model, samples=5, horizon=2, block=2, size=2):
        self.model, self.shape = model, (samples, horizon, block * size)
        self.dtype = next(model.parameters()).dtype

    def repeat(self, info):
        return {key: value[:, None].expand(len(value), self.shape[0], *value.shape[1:]) for key, value in info.items()}

    @torch.inference_mode()
    def search(self, info):
        count = len(next(iter(info.values())))
        candidates = 2 * torch.randn(count, *self.shape, generator=torch.Generator().manual_seed(0), dtype=self.dtype)
        costs = self.model.get_cost(self.repeat(info), candidates)
        return candidates, costs

    def descend(self, info, rounds=1):
        actions = torch.zeros(len(next(iter(info.values()))), *self.shape, dtype=self.dtype, requires_grad=True)
        costs = self.model.get_cost(self.repeat(info), actions)
        assert costs.requires_grad
        costs.sum().backward()
        return costs, actions.grad


def test_costs_are_minus_the_returns(make_world, frames):
    """Two environments of two frames each; the newest counts, blocks are actions in a row, bounds are kept."""
    world = make_world()
    info = {"pixels": torch.from_numpy(frames[:2, :2]), "action": torch.zeros(2, 2, 2)}
    candidates, costs = Solver(DreamCost(world, INSTRUCTION)).search(info)
    assert costs.shape == (2, 5) and costs.dtype == torch.float32
    for env in range(2):
        state = world.start(frames[env : env + 1, 1:2], instruction=INSTRUCTION)
        held = candidates[env].reshape(1, 5, 4, 2).clamp(-1, 1)
        torch.testing.assert_close(costs[env], -world.evaluate(state, held)[0], rtol=1e-4, atol=1e-5)


def test_gradient_solvers_get_a_gradient(make_world, frames):
    model = DreamCost(make_world(), INSTRUCTION)
    solver = Solver(model)
    costs, gradient = solver.descend({"pixels": torch.from_numpy(frames[:2, :1])})
    assert costs.shape == (2, 5) and gradient.shape == (2, 5, 2, 4)
    assert torch.isfinite(gradient).all() and (gradient != 0).any()
    repeated = solver.repeat({"pixels": torch.from_numpy(frames[:2, :1])})
    torch.testing.assert_close(costs, model.get_cost(repeated, torch.zeros(2, 5, 2, 4)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("info", "shape", "says"),
    [
        ({"state": torch.zeros(1, 5, 1, 4)}, (1, 5, 2, 4), "info has state; a dream begins from its 'pixels'"),
        ({"pixels": torch.zeros(1, 5, 1, 3, 64, 64)}, (1, 5, 2, 4), r"pixels are torch.float32 .*without a transform"),
        ({"pixels": torch.zeros(1, 5, 1, 64, 64, 3, dtype=torch.uint8)}, (1, 5, 2, 3), "a multiple of 2"),
    ],
)
def test_what_a_dream_cannot_use_is_refused(make_world, info, shape, says):
    with pytest.raises(ValueError, match=says):
        DreamCost(make_world(), INSTRUCTION).get_cost(info, torch.zeros(shape))


def test_an_instruction_the_world_does_not_judge_is_refused(make_world):
    with pytest.raises(ValueError, match="unknown instruction 'dance'"):
        DreamCost(make_world(), "dance")
