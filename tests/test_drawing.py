"""Frames follow the recurrent state: with them or without them a dream is the same; where chance draws, they lead."""

import copy
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch

from worldgym.checks import check_dream_env, check_vector_env
from worldgym.planners.gradient import DreamSlope
from worldgym.world import WorldModel, WorldState

from .conftest import drawing_world, write_world


@pytest.fixture(params=[(1, 0), (2, 2)], ids=["one frame", "prompt"])
def world(request) -> WorldModel:
    memory, prompt = request.param
    return drawing_world(memory=memory, prompt=prompt)


def test_a_dream_that_is_drawn_is_the_dream_that_is_imagined(world, frames, actions):
    """State, rewards and ends are the same at every step, past the end of a window, too; only frames differ."""
    drawn = world.start(frames, actions[:, :3])
    imagined = drawn.fork(1)
    for when in range(3, 12):
        drawn, one = world.step(drawn, actions[:, when])
        imagined, other = world.step(imagined, actions[:, when], drawn=False)
        torch.testing.assert_close(drawn.recurrent, imagined.recurrent)
        for name in ("reward", "success", "terminated"):
            torch.testing.assert_close(getattr(one, name), getattr(other, name))
        assert one.uncertainty.isfinite().all()


def test_a_new_window_may_correct_the_state_by_what_was_drawn(frames, actions):
    """In a world that rereads; until then, and of futures that are drawn, all is as in any other."""
    world, open_loop = drawing_world(rereads=True), drawing_world()
    state, other = (each.start(frames[:, :1]) for each in (world, open_loop))
    for when in range(9):
        before, drawn = state.recurrent, world.render(state)
        if when in (4, 8):  # the window of four steps is full
            before = world.recurrent.correct(before, world.recurrent.embed(drawn))
        state, _ = world.step(state, actions[:, when])
        other, _ = open_loop.step(other, actions[:, when])
        expected = world.recurrent.predict(before, torch.from_numpy(actions[:, when]))
        torch.testing.assert_close(state.recurrent, expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(state.recurrent, other.recurrent) == (when < 4)


def test_frames_follow_the_state(world, frames, actions):
    """The same frames seen, another state: another frame is drawn."""
    state = world.start(frames, actions[:, :3])
    other = WorldState.restore(state.snapshot())
    other = other.put(torch.arange(3), world.start(frames, actions[:, :3]))
    object.__setattr__(other, "recurrent", -other.recurrent)
    one, two = (world.step(each, actions[:, 3])[0] for each in (state, other))
    assert (world.render(one).int() - world.render(two).int()).abs().max() > 1


def test_where_chance_draws_the_state_follows(world, frames, actions):
    """Above temperature 0 each drawn frame corrects the state, and outcomes are read off what was drawn."""
    state = world.start(frames, actions[:, :3], temperature=1.0)
    for when in range(3, 9):
        before = state.recurrent
        state, outcome = world.step(state, actions[:, when])
        vectors = torch.from_numpy(actions[:, when])
        followed = world.recurrent.follow(before, vectors, world.render(state))
        torch.testing.assert_close(state.recurrent, followed, atol=1e-5, rtol=1e-5)
        votes = world.dynamics.outcome_heads.score(state.fused, world.motion(state), state.instruction)
        torch.testing.assert_close(votes.reward.mean(0), outcome.reward, atol=1e-5, rtol=1e-5)
    sequences = actions[:, None, 9:]
    earned = torch.zeros(3)
    foreseen = world.evaluate(state, sequences, drawn=True)[:, 0]
    for action in sequences[:, 0].swapaxes(0, 1):
        state, outcome = world.step(state, action)
        earned += outcome.reward
    if (outcome.terminated < 0.04).all():  # else the sum ends there
        torch.testing.assert_close(foreseen, earned, atol=1e-4, rtol=1e-4)


def test_what_was_observed_is_rendered_as_it_was_seen(world, frames, actions):
    """Of each dream alone: of two, one may just have begun."""
    state = world.start(frames, actions[:, :3])
    assert np.array_equal(world.render(state), frames[:, -1])
    state, _ = world.step(state, actions[:, 3])
    drawn = world.render(state)
    mixed = state.put(torch.tensor([1]), world.start(frames[1:2], actions[1:2, :3]))
    assert np.array_equal(world.render(mixed)[1], frames[1, -1])
    assert torch.equal(world.render(mixed)[[0, 2]], drawn[[0, 2]])


def test_futures_are_worth_the_same_drawn_or_not(world, frames, actions):
    state, tries = world.start(frames[:, :2], actions[:, :1]), actions[:, None, 1:]
    expected = world.evaluate(state, tries, drawn=False)
    torch.testing.assert_close(world.evaluate(state, tries, drawn=True), expected)
    slope = DreamSlope(world, world.config.instructions[0], drawn=True)
    slope.ground(frames[0, :2], actions[0, :1])
    value, gradient = slope.slope(actions[:1, 1:9])  # longer than a window
    assert value[0] == pytest.approx(float(world.evaluate(state, actions[:, None, 1:9])[0, 0]), rel=1e-4)
    assert np.abs(gradient).max() > 0


def test_compiled_it_draws_the_same(world, frames, actions):
    pytest.importorskip("openvino")
    fast = copy.deepcopy(world).compile_for(2)
    one, other = (each.start(frames[:2], actions[:2, :3]) for each in (world, fast))
    one, expected = world.step(one, actions[:2, 3])
    other, found = fast.step(other, actions[:2, 3])
    torch.testing.assert_close(found.reward, expected.reward)
    apart = (world.render(one).int() - fast.render(other).int()).abs().flatten(1)
    assert (apart.float().mean(1) < 2).all()  # a token may flip by rounding


@pytest.mark.slow
def test_its_environments_keep_the_contract(tmp_path):
    options = {"world": str(write_world(tmp_path / "world", drawing_world()))}
    check_dream_env(gym.make("worldgym/Dream-v0", **options))
    check_vector_env(partial(gym.make_vec, "worldgym/Dream-v0", **options))
