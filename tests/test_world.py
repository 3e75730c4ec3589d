"""The core contract: what a world model promises about its states."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from worldgym.model.dynamics import Prefix
from worldgym.model.pixels import to_float
from worldgym.model.rng import uniforms
from worldgym.motion import motion_prompt
from worldgym.world import WorldState


def dream(world, state, actions):
    """Steps with the given actions [b, t, a]: frames [t, b, ...] and rewards [t, b]."""
    frames, rewards = [], []
    for when in range(actions.shape[1]):
        state, outcome = world.step(state, actions[:, when])
        frames.append(world.render(state)), rewards.append(outcome.reward)
    return torch.stack(frames), torch.stack(rewards)


def test_cached_steps_equal_one_uncached_pass(world, frames, actions):
    """Prefilling t frames, and stepping through them with the cache, leave the same keys and values."""
    lead = world.config.dynamics.lead
    prefilled = world.start(frames[:, : lead + 3], actions[:, : lead + 2])
    begin, fused = _beginning(world, frames[:, : lead + 2])
    moved = world.dynamics.motion(fused, begin)
    stepped = world.start(frames[:, : lead + 1], actions[:, :lead])
    for when in range(2):
        hidden = world.dynamics.hidden_state(
            stepped.cache,
            stepped.steps + when,
            fused[:, when],
            _embed(world, actions[:, lead + when]),
            None if moved is None else moved[:, when],
        )
        assert torch.isfinite(hidden).all()
    used = world.dynamics.layout.capacity(2)
    for name in ("keys", "values"):
        one, many = (getattr(s.cache, name)[:, :, :, :used] for s in (prefilled, stepped))
        torch.testing.assert_close(one, many, atol=1e-5, rtol=1e-4)


def test_training_sees_what_dreaming_sees(world, frames, actions):
    """The teacher-forced pass over a whole segment gives the predictions of the cached step at its end."""
    dynamics, layout, steps = world.dynamics, world.dynamics.layout, 3
    lead = world.config.dynamics.lead
    begin, fused = _beginning(world, frames[:, : lead + steps])
    action = torch.stack([_embed(world, actions[:, lead + t]) for t in range(steps)], 1)
    moved = dynamics.motion(fused, begin)
    motion = None if moved is None else moved.flatten(0, 1)
    tokens = dynamics.step_tokens(fused.flatten(0, 1), action.flatten(0, 1), motion)
    tokens = tokens.unflatten(0, (3, steps)).flatten(1, 2)
    tokens = torch.cat([dynamics.prefix_tokens(begin), tokens], 1)
    when = torch.arange(steps)[None]
    positions = torch.cat([layout.prefix_positions(when.device), layout.step_positions(when)], -1)
    hidden = dynamics.backbone(tokens, layout.training_mask(steps, when.device), positions)
    state = hidden[:, layout.cells :].unflatten(1, (steps, layout.step))[:, -1, layout.output]
    newest = None if moved is None else moved[:, -1]

    cached = world.start(frames[:, : lead + steps], actions[:, : lead + steps - 1])
    stepped = dynamics.hidden_state(cached.cache, cached.steps, cached.fused, action[:, -1], newest)
    torch.testing.assert_close(state, stepped, atol=1e-5, rtol=1e-4)


def test_the_future_cannot_change_the_past(world):
    layout = world.dynamics.layout
    mask = layout.training_mask(3, torch.device("cpu"))
    step = torch.cat([torch.zeros(layout.cells), torch.arange(1, 4).repeat_interleave(layout.step)])
    assert not (mask & (step[None] > step[:, None])).any()
    assert mask.any(-1).all()


def test_nothing_sees_a_past_query(make_world):
    layout = make_world("queries").dynamics.layout
    mask = layout.training_mask(2, torch.device("cpu"))
    first = layout.cells + layout.kept  # queries of step 0 begin here
    queries, later = slice(first, first + layout.cells), slice(first + layout.cells, None)
    assert not mask[later, queries].any()
    assert mask[queries, queries].all()
    assert layout.capacity(2) - layout.capacity(1) == layout.kept == layout.step - layout.cells


def test_kept_queries_are_seen_by_all_later_steps_and_by_nobody_sooner(make_world):
    layout, dropped = (make_world(predict).dynamics.layout for predict in ("queries_kept", "queries"))
    assert (layout.kept, layout.step, layout.output) == (dropped.step, dropped.step, dropped.output)
    mask, without = (one.training_mask(2, torch.device("cpu")) for one in (layout, dropped))
    first = layout.cells + dropped.kept
    queries, later = slice(first, first + layout.cells), slice(first + layout.cells, None)
    assert mask[later, queries].all()
    mask[later, queries] = False
    assert torch.equal(mask, without)


def test_every_step_draws_numbers_of_its_own(world, frames, actions):
    state = world.start(frames[:, :1], temperature=1.0)
    after, _ = world.step(state.fork(1), actions[:, 0])
    assert torch.equal(after.counters, state.counters + 1)
    other, _ = world.step(replace(state.fork(1), counters=after.counters), actions[:, 0])
    assert not torch.equal(other.latent, after.latent)


def test_a_snapshot_that_was_restored_is_the_same_snapshot(world, frames, actions):
    """To the byte, also where dreams are not equally far along: what earlier steps left in free slots is in neither."""
    state, _ = world.step(world.start(frames[:, :2], actions[:, :1]), actions[:, 1])
    state, _ = world.step(state.put(torch.tensor([1]), world.start(frames[1:2, :1])), actions[:, 2])
    blob = state.snapshot()
    assert WorldState.restore(blob).snapshot() == blob


@pytest.mark.parametrize("copies", [0, -1])
def test_a_fork_into_nothing_is_refused(world, frames, copies):
    with pytest.raises(ValueError, match=f"got {copies} copies"):
        world.start(frames[:, :1]).fork(copies)


def test_a_fork_cannot_alter_its_parent(world, frames, actions):
    parent = world.start(frames[:, :1])
    expected, _ = dream(world, world.start(frames[:, :1]), actions[:, :6])
    children = parent.fork(2)
    dream(world, children, np.repeat(-actions[:, :6], 2, 0))
    found, _ = dream(world, parent, actions[:, :6])
    assert torch.equal(found, expected)


def test_a_spent_state_says_so(world, frames, actions):
    state = world.start(frames[:, :1])
    world.step(state, actions[:, 0])
    for use in (lambda: world.step(state, actions[:, 1]), lambda: state.fork(2), state.snapshot):
        with pytest.raises(ValueError, match="fork"):
            use()


def test_a_dream_is_the_same_alone_and_in_a_batch(world, frames, actions):
    """With sampling on: chances belong to the dream, not to its place in the batch."""
    together, rewards = dream(world, world.start(frames[:, :1], seeds=[5, 6, 7], temperature=1.0), actions[:, :6])
    alone, reward = dream(world, world.start(frames[1:2, :1], seeds=[6], temperature=1.0), actions[1:2, :6])
    assert (together[:, 1:2].int() - alone.int()).abs().max() <= 1
    torch.testing.assert_close(rewards[:, 1:2], reward, atol=1e-4, rtol=1e-4)


def test_seeds_decide_what_is_drawn(make_world, frames, actions):
    world = make_world()
    one, same, other = (
        dream(world, world.start(frames[:1, :1], seeds=[seed], temperature=1.0), actions[:1, :3])[0]
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_snapshot_continues_exactly(world, frames, actions):
    state = world.start(frames[:, :1], seeds=[3, 4, 5], temperature=1.0)
    state, _ = world.step(state, actions[:, 0])
    blob = state.snapshot()
    expected, _ = dream(world, state, actions[:, 1:6])
    found, _ = dream(world, WorldState.restore(blob), actions[:, 1:6])
    assert torch.equal(found, expected)
    for broken in (blob[:-10], b"nonsense", b""):
        with pytest.raises(ValueError, match="not a snapshot"):
            WorldState.restore(broken)


def test_dreams_of_different_ages_share_a_batch(world, frames, actions):
    """Putting fresh dreams among older ones changes neither."""
    old = world.start(frames[:, :1])
    for when in range(2):
        old, _ = world.step(old, actions[:, when])
    expected_old, _ = dream(world, old.select(torch.tensor([0, 2])), actions[[0, 2], 2:9])
    fresh = world.start(frames[1:2, 3:4], seeds=[9])
    expected_fresh, _ = dream(world, fresh.fork(1), actions[1:2, 2:9])
    found, _ = dream(world, old.put(torch.tensor([1]), fresh), actions[:, 2:9])
    assert (found[:, [0, 2]].int() - expected_old.int()).abs().max() <= 1
    assert (found[:, 1:2].int() - expected_fresh.int()).abs().max() <= 1


def test_no_futures_have_no_returns(make_world, frames):
    world = make_world()
    state = world.start(frames[:, :1])
    assert world.evaluate(state, np.zeros((3, 0, 4, 2), np.float32)).shape == (3, 0)
    with pytest.raises(ValueError, match="got 0 copies"):
        state.fork(0)


def test_evaluate_adds_up_the_rewards_of_stepping(world, frames, actions):
    """Also past the end of the window, where dreams re-anchor; and it leaves the state alone. Ends that are neither
    likely by 95% nor by less than 5% count as what is worse."""
    state = world.start(frames[:2, :1])
    sequences = actions[:2, None, :7].repeat(2, 1)
    sequences[:, 1] *= -1
    returns = world.evaluate(state, sequences)
    assert returns.shape == (2, 2)
    branches, outcomes, total = state.fork(2), [], torch.zeros(4)
    for when in range(7):
        branches, outcome = world.step(branches, sequences.reshape(4, 7, 2)[:, when])
        outcomes.append(outcome)
    sure = torch.tensor(3.0).sigmoid()
    for outcome in reversed(outcomes):
        open_still = torch.where(outcome.terminated > 1 - sure, total.clamp(max=0), total)
        total = outcome.reward + torch.where(outcome.terminated > sure, 0.0, open_still)
    torch.testing.assert_close(returns.flatten(), total)


def test_sentences_and_vectors_move_the_same_dream(world, frames):
    state = world.start(frames[:1, :1])
    state, outcome = world.step(state, ["push the red block left"])
    state, _ = world.step(state, np.zeros((1, 2), np.float32))
    one, _ = world.step(state.fork(1), ["Push the scarlet cube to the left, please!"])
    other, outcome = world.step(state, ["push the red block left"])
    torch.testing.assert_close(one.fused, other.fused)  # a fork sums in another order
    assert torch.isfinite(outcome.reward).all()


@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        (np.zeros((3, 4), np.float32), ValueError, r"takes \(3, 2\)"),
        (np.full((3, 2), np.nan, np.float32), ValueError, "finite"),
        (["move up"], ValueError, "1 sentences for 3 dreams"),
        (["move up", "move up", "fly"], ValueError, "unknown sentence 'fly': it does not say where to"),
        (["move up", "move up", "move up, then stay still"], ValueError, "asks for 2 things; give them one by one"),
    ],
)
def test_bad_actions_are_refused_and_harmless(world, frames, bad, error, says):
    state = world.start(frames[:, :1])
    with pytest.raises(error, match=says):
        world.step(state, bad)
    world.step(state, np.zeros((3, 2), np.float32))


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"frames": np.zeros((1, 1, 32, 32, 3), np.uint8)}, ValueError, "64, 64, 3"),
        ({"frames": np.zeros((1, 1, 64, 64, 3), np.float32)}, TypeError, "uint8"),
        ({"frames": np.zeros((1, 2, 64, 64, 3), np.uint8)}, ValueError, r"take \(1, 1, 2\)"),
        (
            {"frames": np.zeros((1, 1, 64, 64, 3), np.uint8), "instruction": "fly"},
            ValueError,
            "unknown instruction 'fly'",
        ),
        ({"frames": np.zeros((1, 1, 64, 64, 3), np.uint8), "seeds": [1, 2]}, ValueError, "seeds"),
    ],
)
def test_bad_starts_are_refused(world, arguments, error, says):
    with pytest.raises(error, match=says):
        world.start(**arguments)


def _beginning(world, frames):
    """What `start` makes of frames: what its window begins from, and the fused maps from the context on."""
    lead = min(world.config.dynamics.lead, frames.shape[1] - 1)
    images = torch.as_tensor(frames)
    maps = torch.stack([_fused(world, images[:, lead], images[:, t]) for t in range(frames.shape[1])], 1)
    context = world.tokenizer.encode_context(_float(images[:, lead]))
    if not lead:
        return Prefix(context), maps
    drawn = np.stack([motion_prompt(each) for each in frames[:, : lead + 1]])
    prompt = world.tokenizer.encode_context(_float(torch.as_tensor(drawn)))
    return Prefix(context, prompt, maps[:, lead - 1]), maps[:, lead:]


def _float(images):
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def _fused(world, context, frame):
    """The fused map of `frame` relative to `context`, uint8 [b, h, w, c] both."""
    dense = world.tokenizer.encode_context(_float(context))
    return world.tokenizer.fuse(world.latent(_float(frame), dense), dense)


def _embed(world, action):
    return world.dynamics.from_vector(torch.as_tensor(action))


def keep_guesses(world):
    """With all of the guess kept, no token can flip by rounding."""
    world.dynamics.scale_head.residual = 1.0
    world.config = replace(world.config, dynamics=replace(world.config.dynamics, residual=1.0))
    return world


def test_a_full_window_goes_on_from_as_many_frames_as_it_remembers(make_world, frames, actions):
    """Else what moves would stop there."""
    world = keep_guesses(make_world(window=4, memory=3))
    state = world.start(frames[:, :1])
    for when in range(4):
        state, _ = world.step(state, actions[:, when])
        seen = [*(seen if when else []), world.render(state)]
    again = world.start(torch.stack(seen[-3:], 1), actions[:, 2:4], state.seeds)
    went_on, _ = world.step(state, actions[:, 4])
    begun, _ = world.step(again, actions[:, 4])
    assert went_on.steps.tolist() == begun.steps.tolist() == [3, 3, 3]
    # Rendered frames are rounded to whole numbers; those of a dream that goes on are not.
    torch.testing.assert_close(went_on.fused, begun.fused, atol=0.1, rtol=0.1)


def test_the_newest_frames_tell_the_speed(make_world, frames, actions):
    """In a world that remembers more than one; before the first, nothing moved."""
    still = np.repeat(frames[:, 1:2], 2, 1)
    for memory, told in ((1, False), (2, True)):
        dynamics = make_world(memory=memory).dynamics
        fused = torch.randn(3, 2, 16, 8, 8)
        assert (dynamics.motion(fused, Prefix(fused[:, 0])) is not None) == told
    world = make_world(memory=2)
    at_rest, alone = world.start(still, actions[:, :1]), world.start(still[:, :1])
    assert not (at_rest.fused - at_rest.past[:, -1]).any() and not (alone.fused - alone.past[:, -1]).any()
    moving = world.start(frames[:, :2], actions[:, :1])
    assert (moving.fused - moving.past[:, -1]).any()


@pytest.mark.parametrize("world", [("in_place", 1, 0), ("in_place", 3, 0), ("in_place", 2, 2)], indirect=True)
def test_what_is_judged_is_the_newest_frame_and_how_it_moved(world, frames, actions):
    """Where the world has a memory; the same judgement in steps, of a state, and after a new context."""
    heads, memory = world.dynamics.outcome_heads, world.config.dynamics.memory
    state = world.start(frames, actions[:, :3])
    for when in range(3, 7):
        state, outcome = world.step(state, actions[:, when])
        votes = heads.score(state.fused, world.motion(state), state.instruction)
        assert torch.allclose(votes.reward.mean(0), outcome.reward, atol=1e-6)
        still = heads.score(state.fused, None, state.instruction)
        assert torch.allclose(still.reward.mean(0), outcome.reward, atol=1e-6) == (memory == 1)


@pytest.mark.parametrize("past", [1, 3])
def test_what_training_dreams_goes_on_from_what_was_seen(world, frames, actions, past):
    """As `start` and `step` dream it, in bfloat16."""
    keep_guesses(world)
    seen, done = frames[:, :past], actions[:, : past - 1]
    state = world.start(seen, done)
    begin, maps = _beginning(world, seen)
    latent = world.latent(to_float(torch.from_numpy(seen[:, -1])), begin.context)
    whole = torch.from_numpy(actions[:, past - maps.shape[1] : 4])
    foreseen = None
    if world.recurrent is not None:
        ahead = world.recurrent.imagine(world.observe(seen, done), torch.from_numpy(actions[:, past - 1 : 4]))
        pictured = world.recurrent.pictured(ahead)
        foreseen = torch.cat([pictured.new_zeros(3, past - 1, *pictured.shape[2:]), pictured], 1)
    dreamed, _ = world.dynamics.imagine(world.tokenizer, begin, latent, maps, whole, foreseen)
    assert dreamed.shape[1] == 5 - past
    for when in range(5 - past):
        state, _ = world.step(state, actions[:, past - 1 + when])
        torch.testing.assert_close(dreamed[:, when].float(), state.latent, atol=0.05, rtol=0.05)


def test_every_step_of_a_dream_has_random_numbers_of_its_own(make_world, frames, actions, monkeypatch):
    world, drawn = make_world(), []

    def watched(*arguments):
        drawn.append(uniforms(*arguments))
        return drawn[-1]

    monkeypatch.setattr("worldgym.world.uniforms", watched)
    state = world.start(frames[:, :1], temperature=1.0)
    for when in range(3):
        state, _ = world.step(state, actions[:, when])
    assert len({tuple(row) for numbers in drawn for row in numbers.tolist()}) == 3 * len(state)
