"""Planning: on worlds small enough to know the answer, and MPC on the real table."""

import json
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pkgutil import resolve_name

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from gymnasium.utils.env_checker import data_equivalence

import worldgym  # noqa: F401  registers the ids
from worldgym.actions import ActionCodec
from worldgym.cli import main
from worldgym.envs_real.twins import twin_of
from worldgym.evaluate.rollout import play
from worldgym.planners import (
    CEM,
    ICEM,
    MPC,
    MPPI,
    PLANNERS,
    DreamReturns,
    Plan,
    PlannerKind,
    RandomShooting,
    TwinReturns,
)
from worldgym.planners.icem import coloured_noise
from worldgym.planners.planning import plan_and_act
from worldgym.planners.settings import Planning
from worldgym.planners.shooting import RandomActions
from worldgym.world import WorldModel

GOAL = np.array([0.8, -0.5])


def point_mass(sequences: np.ndarray) -> np.ndarray:
    """A point at the origin takes steps of up to 0.2 towards a goal; minus the sum of its distances."""
    places = np.cumsum(0.2 * sequences, axis=1)
    return -np.linalg.norm(places - GOAL, axis=-1).sum(1)


ALL = [
    resolve_name(kind.make)
    for kind in PLANNERS.values()
    if kind.over == "actions" and kind.dream == PlannerKind.dream  # the others need more than returns
]
SEARCHING = [kind for kind in ALL if kind is not RandomShooting]


def planner(kind, evaluate=point_mass, **arguments):
    return kind(evaluate, low=-np.ones(2), high=np.ones(2), **arguments)


def cem(evaluate=point_mass, **arguments) -> CEM:
    return planner(CEM, evaluate, **arguments)


# -- planners -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SEARCHING)
def test_it_beats_random_shooting_with_the_same_budget(kind):
    found, shot = [], []
    for seed in range(5):
        budget = {"samples": 32, "iterations": 5, "action_repeat": 1, "seed": seed}
        found.append(planner(kind, **budget).plan().expected_return)
        shot.append(planner(RandomShooting, **budget).plan().expected_return)
    assert min(found) > max(shot) + 0.5


def test_it_finds_the_way():
    """Five steps straight at the goal, then rest there."""
    plan = cem(samples=128, iterations=10, elites=16, action_repeat=1, horizon=8).plan()
    straight = point_mass(np.array([[GOAL / 0.2 / 5] * 5 + [[0, 0]] * 3]))[0]
    assert plan.expected_return > straight - 0.1
    np.testing.assert_allclose(0.2 * plan.actions.sum(0), GOAL, atol=0.1)


# -- actions of which some are choices ------------------------------------------------------------------------------

CODEC = ActionCodec(
    Dict(key=Discrete(5, start=2), push=Box(-1.0, 1.0, (1,)), bits=MultiBinary(2), gears=MultiDiscrete([3, 2]))
)
OPTIMUM = [{"key": 3 + step % 3, "push": [0.5], "bits": [1, 0], "gears": [2, 1]} for step in range(6)]


def like_the_optimum(sequences: np.ndarray) -> np.ndarray:
    """Minus what differs from it."""
    wanted = np.stack([CODEC.encode(action) for action in OPTIMUM]).repeat(sequences.shape[1] // 6, 0)
    return -np.abs(sequences - wanted).sum((1, 2))


def choosing(kind, evaluate=like_the_optimum, horizon=6, **arguments):
    bounds = {"low": -np.ones(CODEC.size), "high": np.ones(CODEC.size)}
    return kind(evaluate, **bounds, horizon=horizon, choices=CODEC.choices, **arguments)


@pytest.mark.parametrize("kind", SEARCHING)
def test_it_finds_the_best_choices_and_numbers(kind):
    search = choosing(kind, samples=512, iterations=10, action_repeat=1)
    plan = search.plan(search.plan().actions)
    for found, wanted in zip(map(CODEC.decode, plan.actions), OPTIMUM, strict=True):
        assert all(np.array_equal(found[name], wanted[name]) for name in ("key", "bits", "gears"))
        assert found["push"] == pytest.approx(wanted["push"], abs=0.3)


@pytest.mark.parametrize("kind", ALL)
def test_choices_are_made_and_held(kind):
    """Whatever is tried is an action, and a held action keeps its categories."""
    tried = []
    search = choosing(
        kind, lambda s: (tried.append(s), like_the_optimum(s))[1], horizon=12, samples=16, iterations=3, action_repeat=2
    )
    search.plan(search.plan().shifted(3))  # by which a held action is cut in two
    for sequences in tried:
        assert np.array_equal(CODEC.snap(sequences), sequences)
        assert np.array_equal(sequences[:, ::2], sequences[:, 1::2])


@pytest.mark.parametrize("kind", SEARCHING)
def test_a_warm_start_helps_among_choices(kind):
    budget = {"samples": 32, "iterations": 2, "action_repeat": 1}
    best = np.stack([CODEC.encode(action) for action in OPTIMUM])
    assert choosing(kind, **budget).plan(best).expected_return > choosing(kind, **budget).plan().expected_return + 5


def test_no_category_is_given_up():
    search = choosing(CEM)
    same = np.stack([CODEC.encode(action) for action in OPTIMUM])[None].repeat(8, 0)[:, :3]
    for choice, likely in zip(CODEC.choices, search.frequencies(same), strict=True):
        assert likely.min() > 0.0 and np.allclose(likely.sum(-1), 1.0)
        assert np.array_equal(likely.argmax(-1), choice.read(same[0]))


def test_mpc_acts_by_the_actions_of_the_codec():
    class Toy:
        def ground(self, frames, actions=None):
            self.past = actions

        def __call__(self, sequences):
            return like_the_optimum(sequences)

    toy = Toy()
    agent = MPC(toy, choosing(CEM, toy, action_repeat=1), replan_every=1, memory=2, codec=CODEC)
    for _ in range(3):
        assert CODEC.space.contains(agent(np.zeros((8, 8, 3), np.uint8)))
    assert toy.past.shape == (1, CODEC.size) and np.array_equal(CODEC.snap(toy.past), toy.past)


def test_acting_at_random_needs_no_box():
    space = CODEC.space
    frame = np.zeros((8, 8, 3), np.uint8)
    acts = [[policy(frame) for _ in range(5)] for policy in (RandomActions(space, seed) for seed in (0, 0, 1))]
    assert all(space.contains(action) for run in acts for action in run)
    assert data_equivalence(acts[0], acts[1], exact=True) and not data_equivalence(acts[0], acts[2], exact=True)


# -- the rest of planning -------------------------------------------------------------------------------------------


def test_random_shooting_takes_the_best_it_tried():
    tried = []

    def watch(sequences):
        tried.append(point_mass(sequences))
        return tried[-1]

    assert planner(RandomShooting, watch).plan().expected_return == np.concatenate(tried).max()


@pytest.mark.parametrize("kind", ALL)
def test_the_plan_is_worth_what_it_says(kind):
    plan = planner(kind).plan()
    assert plan.actions.shape == plan.spread.shape == (10, 2)
    assert plan.actions.dtype == plan.spread.dtype == np.float32
    assert point_mass(plan.actions[None])[0] == pytest.approx(plan.expected_return, abs=1e-5)


@pytest.mark.parametrize("kind", ALL)
def test_the_seed_decides_the_plan(kind):
    one, same, other = (planner(kind, seed=seed).plan() for seed in (1, 1, 2))
    assert np.array_equal(one.actions, same.actions) and one.expected_return == same.expected_return
    assert not np.array_equal(one.actions, other.actions)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_diverged_sequences_are_never_elite(kind, bad):
    """Here whatever sets out to the right diverges, which is where the goal lies."""

    def treacherous(sequences):
        return np.where(sequences[:, 0, 0] > 0, bad, point_mass(sequences))

    plan = planner(kind, treacherous).plan()
    assert plan.actions[0, 0] <= 0
    assert np.isfinite(plan.expected_return) and np.isfinite(plan.spread).all()


def test_a_few_survivors_are_enough():
    def brittle(sequences):
        returns = point_mass(sequences)
        returns[3:] = np.nan
        return returns

    plan = cem(brittle, elites=8).plan()
    assert np.isfinite(plan.actions).all() and np.isfinite(plan.expected_return)


@pytest.mark.parametrize("kind", ALL)
def test_a_world_that_has_diverged_altogether_says_so(kind):
    with pytest.raises(FloatingPointError, match="non-finite"):
        planner(kind, lambda sequences: np.full(len(sequences), np.nan)).plan()


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("outside", [None, -7.0, 7.0])
def test_actions_stay_within_their_bounds(kind, outside):
    """Also where the bounds are lopsided and the warm start lies outside."""
    low, high = np.array([-1.0, 0.0], np.float32), np.array([0.5, 2.0], np.float32)
    tried = []

    def watch(sequences):
        tried.append(sequences)
        return -np.abs(sequences - 10).sum((1, 2))  # drives towards the upper bounds

    plan = kind(watch, low, high, iterations=8).plan(None if outside is None else np.full((10, 2), outside))
    for sequences in [*tried, plan.actions[None]]:
        assert (sequences >= low).all() and (sequences <= high).all()
    assert plan.expected_return == max(watch(sequences).max() for sequences in tried[:9])


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("repeat", [1, 2, 5])
def test_actions_are_held(kind, repeat):
    tried = []

    def watch(sequences):
        tried.append(sequences)
        return point_mass(sequences)

    plan = planner(kind, watch, action_repeat=repeat, samples=16, iterations=2).plan()
    for sequences in [*tried, plan.actions[None]]:
        assert sequences.shape[1:] == (10, 2)
        held = sequences.reshape(len(sequences), 10 // repeat, repeat, 2)
        assert (held == held[:, :, :1]).all()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(RandomShooting, [24, 24, 24]), (CEM, [24, 24, 24]), (ICEM, [24, 19, 15]), (MPPI, [24, 24, 24, 2])],
)
def test_it_spends_its_budget_and_no_more(kind, expected):
    counts = []

    def watch(sequences):
        counts.append(len(sequences))
        return point_mass(sequences)

    planner(kind, watch, samples=24, iterations=3).plan()
    assert counts == expected


@pytest.mark.parametrize("kind", ALL)
def test_it_stops_when_its_time_is_up(kind):
    rounds = []

    def slow(sequences):
        rounds.append(len(sequences))
        time.sleep(0.02)
        return point_mass(sequences)

    planner(kind, slow, iterations=1000, seconds=0.05).plan()
    assert 1 < len(rounds) < 10
    rounds.clear()
    assert np.isfinite(planner(kind, slow, iterations=1000, seconds=0.0).plan().expected_return)
    assert rounds[0] == 64 and len(rounds) <= 2  # one round, and MPPI's last look


@pytest.mark.parametrize("kind", ALL)
def test_a_warm_start_is_where_it_begins(kind):
    good = cem(samples=256, iterations=8, elites=32).plan()
    short = {"samples": 8, "iterations": 1} | ({"elites": 2} if kind in (CEM, ICEM) else {})
    warm, cold = planner(kind, **short).plan(good.actions), planner(kind, **short).plan()
    assert warm.expected_return >= good.expected_return - 1e-5
    assert warm.expected_return > cold.expected_return


def test_planning_again_and_again_does_not_lose_ground():
    planner = cem(samples=16, iterations=2, elites=4)
    plan, returns = None, []
    for _ in range(6):
        plan = planner.plan(None if plan is None else plan.actions)
        returns.append(plan.expected_return)
    assert all(after >= before - 1e-5 for before, after in pairwise(returns))
    assert returns[-1] > returns[0]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(0, [1, 2, 3, 4]), (1, [2, 3, 4, 4]), (3, [4, 4, 4, 4]), (4, [4, 4, 4, 4]), (9, [4, 4, 4, 4])],
)
def test_a_shifted_plan_repeats_its_last_action(steps, expected):
    plan = Plan(np.array([[1], [2], [3], [4]], np.float32), 0.0, np.zeros((4, 1), np.float32))
    assert plan.shifted(steps).tolist() == [[action] for action in expected]


def test_the_noise_has_unit_variance_and_the_colour_asked_for():
    random = np.random.default_rng(0)
    white, red = (coloured_noise(random, (20_000, 12, 1), exponent) for exponent in (0.0, 2.0))
    for noise in (white, red):
        np.testing.assert_allclose([noise.mean(), noise.std()], [0, 1], atol=0.02)
        np.testing.assert_allclose(noise.std(0), 1, atol=0.03)  # at every time alike
    follow = [(noise[:, 1:] * noise[:, :-1]).mean() for noise in (white, red)]
    assert abs(follow[0]) < 0.02 and follow[1] > 0.5
    power = np.square(np.abs(np.fft.rfft(red[..., 0], axis=1))).mean(0)
    np.testing.assert_allclose(power[2] / power[4], (4 / 2) ** 2, rtol=0.05)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"samples": 0}, "samples is 0 and iterations 4; both must be at least 1"),
        ({"samples": 4, "elites": 5}, "elites is 5; it must be between 1 and samples, 4"),
        ({"elites": 0}, "elites is 0"),
        ({"horizon": 7}, "horizon 7 must be a multiple of action_repeat 2"),
    ],
)
def test_a_planner_that_cannot_be_is_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        cem(**arguments)


def test_returns_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"shape \(64, 1\) for 64 sequences"):
        cem(lambda sequences: point_mass(sequences)[:, None]).plan()


# -- MPC -----------------------------------------------------------------------------------------------------


class PointMass:
    """A real point and returns judged from where it was last seen."""

    def __init__(self):
        self.seen: list[np.ndarray] = []
        self.grounds: list[tuple[np.ndarray, np.ndarray | None]] = []

    def ground(self, frames, actions=None):
        self.seen.append(frames[-1])
        self.grounds.append((frames, actions))

    def __call__(self, sequences):
        places = self.seen[-1] + np.cumsum(0.2 * sequences, axis=1)
        return -np.linalg.norm(places - GOAL, axis=-1).sum(1)


@pytest.mark.parametrize("every", [1, 2, 5])
def test_it_looks_again_every_few_steps(every):
    world = PointMass()
    control = MPC(world, cem(world), replan_every=every)
    place, visited = np.zeros(2), []
    for _ in range(10):
        visited.append(place)
        action = control(place)
        assert action.shape == (2,) and action.dtype == np.float32
        place = place + 0.2 * action
    assert np.array_equal(world.seen, visited[::every])
    assert np.linalg.norm(place - GOAL) < 0.2


def test_it_remembers_as_many_frames_as_asked():
    world = PointMass()
    control = MPC(world, cem(world), replan_every=1, memory=3)
    taken = [control(np.full(2, float(when))) for when in range(5)]
    frames, actions = world.grounds[0]
    assert np.array_equal(frames, [[0.0, 0.0]]) and actions is None  # nothing was done yet
    frames, actions = world.grounds[-1]
    assert np.array_equal(frames[:, 0], [2.0, 3.0, 4.0]) and np.array_equal(actions, taken[2:4])
    control.reset()
    control(np.full(2, 9.0))
    frames, actions = world.grounds[-1]
    assert np.array_equal(frames, [[9.0, 9.0]]) and actions is None


def test_between_looks_it_follows_its_plan():
    world = PointMass()
    control = MPC(world, cem(world), replan_every=4)
    taken = [control(np.zeros(2)) for _ in range(4)]
    assert np.array_equal(taken, control.plan.actions[:4])


def test_the_rest_of_a_plan_warms_the_next():
    """A planner without samples of its own can only go on with the plan it had."""
    world = PointMass()
    control = MPC(world, cem(world, action_repeat=1), replan_every=3)
    control(np.zeros(2))
    planned = control.plan.actions
    control.planner = cem(world, samples=1, elites=1, iterations=1, action_repeat=1)
    followed = [control(np.zeros(2)) for _ in range(5)]
    np.testing.assert_allclose(followed, planned[1:6], atol=1e-6)


def test_reset_forgets_the_plan():
    world = PointMass()
    control = MPC(world, cem(world, samples=1, elites=1, iterations=1), replan_every=5)
    control.plan = Plan(np.ones((10, 2), np.float32), 0.0, np.zeros((10, 2), np.float32))
    control.reset()
    assert np.array_equal(control(np.zeros(2)), np.zeros(2))  # the middle of the bounds, not the old plan


@pytest.mark.parametrize("every", [0, 11])
def test_replanning_must_fit_the_horizon(every):
    with pytest.raises(ValueError, match=f"replan_every is {every}; the planner looks 10 steps ahead"):
        MPC(PointMass(), cem(), replan_every=every)


# -- the two judges ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_on_true_physics_it_reaches_the_centre(seed):
    env = gym.make("worldgym/TabletopMuJoCo-v0", instruction="reach the centre")
    returns = TwinReturns(env)
    space = env.action_space
    control = MPC(returns, CEM(returns, space.low, space.high, horizon=8, samples=16, iterations=2, elites=4))
    observation, info = env.reset(seed=seed)
    for _ in range(40):
        observation, _, terminated, _, info = env.step(control(observation))
        if terminated:
            break
    env.close()
    assert info["success"] is True


def test_one_instruction_after_another_goes_on_where_the_first_succeeded():
    world, wanted = WorldModel.load("tabletop", "cpu"), "reach the centre, then reach the left side"
    twin = twin_of(world.config)
    asked = Planning("tabletop", on="mujoco", instruction=(f"First {wanted}.",), episodes=1, seed=1)
    metrics, [episode] = plan_and_act(asked, world, twin)
    assert metrics["instructions"] == [wanted] and metrics["by_episode"][0]["instruction"] == wanted
    pusher = twin.get_wrapper_attr("positions")[0]
    assert episode.success and pusher[0] < -0.4 and twin.get_wrapper_attr("instruction") == "reach the left side"
    first, [alone] = plan_and_act(replace(asked, instruction=("reach the centre",)), world, twin)
    done = len(alone.rewards)
    assert first["instructions"] == ["reach the centre"] and done < len(episode.rewards) == len(episode.frames) - 1
    np.testing.assert_array_equal(episode.frames[: done + 1], alone.frames)
    np.testing.assert_array_equal(episode.rewards[:done], alone.rewards)


def test_nothing_follows_an_instruction_that_failed():
    world = WorldModel.load("tabletop", "cpu")
    asked = Planning("tabletop", "random", instruction=("gather the blocks, then reach the centre",), episodes=1)
    _, [episode] = plan_and_act(asked, world, twin_of(world.config))
    assert not episode.success and len(episode.rewards) == 40


def test_a_twin_of_one_instruction_takes_no_other():
    world = WorldModel.load("tabletop", "cpu")
    asked = Planning("tabletop", "random", instruction=("reach the centre, then reach the left side",), episodes=1)
    with pytest.raises(ValueError, match="one instruction after another"):
        plan_and_act(asked, world, gym.make("worldgym/ReacherMuJoCo-v0"))


def test_the_dream_judges_from_the_last_frame(make_world, frames):
    world = make_world()
    returns = DreamReturns(world, "push the red block to the centre")
    with pytest.raises(RuntimeError, match=r"ground\(\)"):
        returns(np.zeros((3, 4, 2), np.float32))
    sequences = np.random.default_rng(0).uniform(-1, 1, (3, 4, 2)).astype(np.float32)
    judged = []
    for frame in frames[0, :2]:
        returns.ground(frame[None])
        state = world.start(frame[None, None], instruction="push the red block to the centre")
        judged.append(returns(sequences))
        np.testing.assert_allclose(judged[-1], world.evaluate(state, sequences[None])[0].numpy(), rtol=1e-5)
        assert judged[-1].shape == (3,)
        np.testing.assert_array_equal(returns(sequences), judged[-1])  # asking changes nothing
    assert not np.allclose(*judged)


def test_a_planner_works_inside_a_dream(make_world, frames):
    returns = DreamReturns(make_world(), "reach the centre")
    control = MPC(returns, cem(returns, horizon=4, samples=8, iterations=2, elites=2))
    assert np.abs(control(frames[0, 0])).max() <= 1
    plain = returns(np.zeros((1, 4, 2), np.float32))
    assert control.plan.expected_return >= plain[0] - 1e-5  # doing nothing was among what it tried


# -- the table --------------------------------------------------------------------------------------------------------


def test_all_of_them_are_there():
    for name, kind in PLANNERS.items():
        assert callable(resolve_name(kind.make)), name
        assert all(hasattr(Planning("tabletop"), name) for name in kind.budget)


STILL = """
from worldgym.planners import Plan, Search


class Still(Search):
    def plan(self, warm_start=None):
        knots = self.centre(None)
        return self.made(knots, self.score(knots[None])[0], 0 * knots)
"""


def test_a_planner_is_a_file_and_a_row(monkeypatch, tmp_path, capsys):
    """Which the command line then knows."""
    (tmp_path / "stillness.py").write_text(STILL, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(PLANNERS, "still", PlannerKind("does nothing", "stillness:Still"))
    file = tmp_path / "plan.json"
    command = [
        "worldgym", "plan", "reacher", "--planner", "still", "--hold", "2", "--horizon", "4", "--episodes", "1",
        "--json", str(file),
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", command)
    main()
    assert "--hold is now called --action-repeat" in capsys.readouterr().err
    metrics = json.loads(file.read_text(encoding="utf-8"))["metrics"]
    assert metrics["planner"] == "still"
    assert metrics["budget"]["action_repeat"] == 2
    env = gym.make("worldgym/ReacherMuJoCo-v0")
    still = play(env, lambda frame: np.zeros(2, np.float32), seed=0)
    env.close()
    assert metrics["mean_return"] == pytest.approx(still.total)
