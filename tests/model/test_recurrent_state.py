"""The recurrent state: what it filters, what is tried in it, and dreams that draw nothing."""

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch

from worldgym.agents.observers import StateObserver
from worldgym.checkpoint import export_world, load_config
from worldgym.checks import check_dream_env, check_vector_env
from worldgym.model.outcome_heads import AFTER, OutcomeVotes, expected_returns, returns_until_end
from worldgym.planners.gradient import DreamSlope
from worldgym.planners.mpc import DreamReturns
from worldgym.world import WorldModel, WorldState

from ..conftest import RECURRENT, filtered_world, tiny_world, write_world


@pytest.fixture
def world() -> WorldModel:
    return filtered_world()


@pytest.fixture
def tries(actions) -> np.ndarray:
    return np.stack([actions[:, :6], -actions[:, :6], actions[:, 6:]], 1)


# -- the filter ------------------------------------------------------------------------------------------------------


def test_every_frame_and_every_action_reaches_the_state(world, frames, actions):
    seen = world.observe(frames, actions[:, :3])
    for when in range(4):
        other = frames.copy()
        other[:, when] = 255 - other[:, when]
        assert (world.observe(other, actions[:, :3]) - seen).abs().max(1).values.min() > 1e-4, when
    for when in range(3):
        other = actions[:, :3].copy()
        other[:, when] *= -1
        assert (world.observe(frames, other) - seen).abs().max(1).values.min() > 1e-4, when


def test_a_dream_has_observed_what_it_began_from_and_what_it_drew(world, frames, actions):
    state = world.start(frames, actions[:, :3])
    assert torch.equal(state.recurrent, world.observe(frames, actions[:, :3]))
    seen, done = frames, actions[:, :3]
    for when in range(3, 9):  # past the end of a window, where a dream begins anew from what it drew
        state, _ = world.step(state, actions[:, when])
        seen = np.concatenate([seen, world.render(state).numpy()[:, None]], 1)
        done = actions[:, : when + 1]
    torch.testing.assert_close(state.recurrent, world.observe(seen, done), atol=1e-5, rtol=1e-5)


# -- futures ---------------------------------------------------------------------------------------------------------


def test_returns_are_what_imagined_steps_earn(world, frames, tries):
    state = world.start(frames[:, :1])
    foreseen, earned = world.evaluate(state, tries)[:, 1], torch.zeros(3)
    for action in tries[:, 1].swapaxes(0, 1):
        state, outcome = world.step(state, action, drawn=False)
        earned += outcome.reward
    torch.testing.assert_close(earned, foreseen, atol=1e-5, rtol=1e-5)
    assert outcome.uncertainty.isnan().all()


def test_each_future_is_judged_by_its_own_dream_and_instruction(world, frames, tries):
    names = [world.config.instructions[index] for index in (0, 1, 0)]
    state = world.start(frames[:, :1], instruction=names)
    together = world.evaluate(state, tries)
    torch.testing.assert_close(world.imagine(state.recurrent, tries, world.read_instructions(names)), together)
    for dream in range(3):
        alone = world.evaluate(state.select(torch.tensor([dream])), tries[dream : dream + 1, 2:])
        torch.testing.assert_close(alone[0], together[dream, 2:], atol=1e-5, rtol=1e-5)
    assert (together[:, 0] - together[:, 1]).abs().min() > 1e-4
    many = np.tile(tries, (1, 200, 1, 1))  # in several tiles
    torch.testing.assert_close(world.evaluate(state, many), together.repeat(1, 200), atol=1e-5, rtol=1e-5)


def test_heads_say_the_same_of_all_instructions_as_of_each(world, frames, tries):
    heads = world.recurrent.heads
    states = world.recurrent.imagine(world.observe(frames[:, :1]), torch.from_numpy(tries[:, 0]))
    read = world.read_instructions(list(world.config.instructions))
    for whole, column in zip(heads(states, read), heads.each(states, read[1].expand(3, -1)), strict=True):
        torch.testing.assert_close(whole[..., 1], column, atol=1e-5, rtol=1e-5)


def test_a_future_that_has_ended_earns_no_more(frames, tries):
    world = filtered_world(ends=5.0)
    state = world.start(frames[:, :1])
    torch.testing.assert_close(world.evaluate(state, tries), world.evaluate(state, tries[:, :, :1]))


def test_trying_leaves_the_dream_where_it_is(world, frames, tries, actions):
    state, twin = (world.start(frames[:, :1]) for _ in range(2))
    world.evaluate(state, tries)
    assert torch.equal(world.step(state, actions[:, 0])[1].reward, world.step(twin, actions[:, 0])[1].reward)


def test_drawn_futures_do_not_heed_the_state(world, frames, tries):
    plain = tiny_world()
    expected = plain.evaluate(plain.start(frames[:, :1]), tries)
    assert torch.equal(world.evaluate(world.start(frames[:, :1]), tries, drawn=True), expected)
    with pytest.raises(ValueError, match="no recurrent state; `worldgym train state`"):
        plain.evaluate(plain.start(frames[:, :1]), tries, drawn=False)


def test_planners_need_nothing_but_the_state(world, frames, actions, tries, monkeypatch):
    monkeypatch.setattr(world, "start", lambda *_, **__: pytest.fail("a dream was begun"))
    returns = DreamReturns(world, "reach the centre")
    returns.ground(frames[0], actions[0, :3])
    read = world.read_instructions(["reach the centre"])
    expected = world.imagine(world.observe(frames[:1], actions[:1, :3]), tries[:1], read)
    np.testing.assert_allclose(returns(tries[0]), expected[0].numpy(), atol=1e-6)


@pytest.mark.parametrize("kind", [DreamReturns, DreamSlope])
def test_planners_draw_where_they_are_asked_to(kind, world, frames, tries):
    goal = "reach the centre"
    plain, asked, imagined = kind(tiny_world(), goal), kind(world, goal, drawn=True), kind(world, goal)
    for returns in (plain, asked, imagined):
        returns.ground(frames[0, :1])
    np.testing.assert_array_equal(asked(tries[0]), plain(tries[0]))
    assert not np.allclose(asked(tries[0]), imagined(tries[0]))


def test_gradients_through_the_state_point_uphill(world, frames, tries):
    slope = DreamSlope(world, "reach the centre")
    slope.ground(frames[0, :1])
    returns, gradient = slope.slope(tries[0])
    np.testing.assert_allclose(returns, slope(tries[0]), atol=1e-5)
    uphill = slope(tries[0] + 1e-2 * gradient / np.abs(gradient).max())
    assert (uphill > returns).all()


# -- imagined dreams -------------------------------------------------------------------------------------------------


def test_an_imagined_step_leaves_its_state_as_it_was(world, frames, actions):
    state = world.start(frames[:, :1])
    one, other = (world.step(state, actions[:, 0], drawn=False)[0] for _ in range(2))
    assert torch.equal(one.recurrent, other.recurrent) and not torch.equal(one.recurrent, state.recurrent)
    world.step(state, actions[:, 0])


def test_imagined_dreams_continue_from_a_snapshot_and_draw_no_more(world, frames, actions):
    state, _ = world.step(world.start(frames[:, :1]), actions[:, 0], drawn=False)
    back = WorldState.restore(state.snapshot())
    one, other = (world.step(s, actions[:, 1], drawn=False)[0].recurrent for s in (state, back))
    assert torch.equal(one, other)
    with pytest.raises(ValueError, match="was imagined"):
        world.step(back, actions[:, 1])
    fresh = world.start(frames[:, :1])
    with pytest.raises(ValueError, match="was imagined"):
        world.step(fresh.put(torch.tensor([1]), back.select(torch.tensor([1]))), actions[:, 1])
    with pytest.raises(ValueError, match="take vectors"):
        world.step(state, ["move up"] * 3, drawn=False)


def test_pictures_of_imagined_dreams_are_read_off_the_state(world, frames, actions):
    state, _ = world.step(world.start(frames[:, :1]), actions[:, 0], drawn=False)
    assert torch.equal(world.render(state), world.recurrent.render(state.recurrent))
    assert world.render(state).shape == (3, 64, 64, 3)


def test_imagined_environments_pass_the_checkers(world, tmp_path):
    imagined = {"world": str(write_world(tmp_path / "w", world)), "obs_type": "state", "imagined": True}
    no_tokens = {"infos tell uncertainty": "no tokens are drawn"}
    check_dream_env(gym.make("worldgym/Dream-v0", **imagined), no_tokens)
    check_vector_env(partial(gym.make_vec, "worldgym/Dream-v0", **imagined))
    for refused in ({"temperature": 1.0}, {"obs_type": "latent"}, {"action_mode": "text"}, {"decoder": "diffusion"}):
        with pytest.raises(ValueError, match=f"leave out {next(iter(refused))}="):
            gym.make("worldgym/Dream-v0", **{**imagined, **refused})


def test_agents_that_see_the_state_see_it_of_drawn_dreams_and_of_reality(world, frames, actions, tmp_path):
    folder = str(write_world(tmp_path / "w", world))
    dreams = gym.make("worldgym/Dream-v0", world=folder, obs_type="state")
    seen, _ = dreams.reset(options={"frames": frames[0, :1]})
    np.testing.assert_allclose(seen, world.observe(frames[:1, :1])[0].numpy(), atol=1e-6)
    observer = StateObserver(world, 3)
    assert np.array_equal(observer.begin(frames[:, 0]), world.observe(frames[:, :1]).numpy())
    for when in range(1, 4):
        found = observer.see(frames[:, when], actions[:, when - 1])
    np.testing.assert_allclose(found, world.observe(frames, actions[:, :3]).numpy(), atol=1e-5)
    anew = observer.begin(frames[:, 1], np.array([False, True, False]))
    np.testing.assert_allclose(anew, world.observe(frames[1:2, 1:2]).numpy(), atol=1e-6)


def test_a_world_without_a_state_says_so(checkpoint):
    for asked in ({"obs_type": "state"}, {"imagined": True}):
        with pytest.raises(ValueError, match="`worldgym train state` makes one"):
            gym.make("worldgym/Dream-v0", world=str(checkpoint), **asked)


def test_a_snapshot_of_a_world_without_a_state_is_refused(world, frames):
    plain = tiny_world()
    blob = WorldState.restore(plain.start(frames[:, :1]).snapshot())
    with pytest.raises(ValueError, match="recurrent state has 0 numbers; this world's has 32"):
        world.check_state(blob)


def test_the_state_travels(world, tmp_path):
    export_world(write_world(tmp_path / "w", world), tmp_path / "exported")
    assert load_config(tmp_path / "exported")[0].recurrent == RECURRENT
    assert WorldModel.load(str(tmp_path / "exported"), device="cpu").recurrent is not None


@pytest.mark.parametrize("reward", [1.0, -1.0])
def test_returns_stop_at_the_first_end_and_an_open_one_counts_as_what_is_worse(reward):
    ends = {
        "certain": (-9.0, 9.0, -9.0),
        "never": (-9.0, -9.0, -9.0),
        "open": (-9.0, 0.5, -9.0),
        "less": (-9.0, -0.5, -9.0),
    }
    logits = torch.tensor(list(ends.values())).T[:, None]
    votes = [OutcomeVotes(torch.full((1, 4), reward), torch.zeros(1, 4), each) for each in logits]
    worse = 2.0 if reward > 0 else -3.0
    assert returns_until_end(votes).tolist() == [2 * reward, 3 * reward, worse, worse]


def futures(reward: float, ends: list[list[float]]) -> list[OutcomeVotes]:
    """Of one member: a row of logits of an end for each future."""
    logits = torch.tensor(ends).T[:, None]
    return [OutcomeVotes(torch.full_like(each, reward), torch.zeros_like(each), each) for each in logits]


def test_what_is_to_be_earned_counts_by_the_chance_that_the_episode_goes_on():
    certain, never, even, late = expected_returns(
        futures(1.0, [[-20.0, 20.0, -20.0], [-20.0, -20.0, -20.0], [-20.0, 0.0, -20.0], [-20.0, -20.0, 0.0]])
    ).tolist()
    assert np.allclose((certain, never), (2.0, 3.0 + AFTER))
    assert np.allclose((even, late), (2.0 + (1.0 + AFTER) / 2, 3.0 + AFTER / 2))


def test_what_is_to_be_lost_counts_until_an_end_is_sure():
    ends = [[-9.0, 9.0, -9.0], [-9.0, -9.0, -9.0], [-9.0, 0.5, -9.0], [-9.0, -0.5, -9.0]]
    assert expected_returns(futures(-1.0, ends)).tolist() == [-2.0, -3.0, -3.0, -3.0]
