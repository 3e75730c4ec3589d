"""benchmarks/recurrent_state.py: a filter of what is observed, futures carried open loop, and how they are measured."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from worldgym.config import TokenizerConfig
from worldgym.errors import UserError

TOKENIZER = TokenizerConfig(resolution=32, channels=(8, 8, 16), latent_channels=4, codes=32, scales=(1, 2, 4), heads=2)
SIZES = {"width": 32, "embedding": 24, "head_width": 40, "components": 12, "picture_width": 16}
BATCH, STEPS, INSTRUCTIONS = 3, 6, 5


@pytest.fixture
def recurrent(load_benchmark):
    return load_benchmark("recurrent_state")


@pytest.fixture
def model(recurrent):
    torch.manual_seed(0)
    model = recurrent.RecurrentState(TOKENIZER, recurrent.StateConfig(**SIZES), action_size=2, instruction_size=20)
    torch.nn.init.normal_(model.initial)
    torch.nn.init.normal_(model.picture_head.leave.weight, std=0.1)
    model.measure(maps(64), reward_spread=2.0)
    return model


def maps(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, TOKENIZER.width, TOKENIZER.grid, TOKENIZER.grid)


@pytest.fixture
def fused(model) -> torch.Tensor:
    return maps(BATCH, STEPS + 1)


@pytest.fixture
def actions(model) -> torch.Tensor:
    return torch.rand(BATCH, STEPS, 2) * 2 - 1


@pytest.fixture
def instructions(recurrent) -> torch.Tensor:
    return torch.randn(INSTRUCTIONS, 20)


@pytest.fixture
def window(recurrent, model, fused, actions):
    """Of three stretches, shown one, two and four frames; the last ends two frames early."""
    inside = torch.ones(BATCH, STEPS + 1, dtype=torch.bool)
    inside[2, -2:] = False
    drawn = torch.tensor([[0, 3], [1, 6], [3, 4]])
    ends = torch.rand(2, BATCH, STEPS, INSTRUCTIONS).round()
    return recurrent.Window(
        frames=fused[:, :4],
        observed=torch.tensor([1, 2, 4]),
        actions=actions,
        rewards=torch.randn(BATCH, STEPS, INSTRUCTIONS),
        successes=ends[0],
        terminations=ends[1],
        inside=inside,
        components=model.project(fused.flatten(0, 1)).unflatten(0, (BATCH, STEPS + 1)),
        drawn=drawn,
        targets=fused[torch.arange(BATCH)[:, None], drawn],
    )


# -- the filter ------------------------------------------------------------------------------------------------------


def test_a_state_that_is_kept_is_the_one_that_filters_all_frames_again(model, fused, actions):
    kept = model.correct(model.initial.expand(BATCH, -1), fused[:, 0])
    for step in range(1, 4):
        kept = model.correct(model.predict(kept, actions[:, step - 1]), fused[:, step])
    torch.testing.assert_close(kept, model.observe(fused[:, :4], actions[:, :3]))


def test_a_rollout_is_its_steps(model, fused, actions):
    state = model.observe(fused[:, :1], actions[:, :0])
    together = model.rollout(state, actions)
    for step in range(STEPS):
        state = model.predict(state, actions[:, step])
        torch.testing.assert_close(together[:, step], state)


def test_training_goes_the_way_of_use(model, window, fused, actions):
    states = model._follow(model.embed(window.frames.flatten(0, 1)).unflatten(0, (BATCH, 4)), window)
    for row, observed in enumerate(window.observed.tolist()):
        one = slice(row, row + 1)
        begun = model.observe(fused[one, :observed], actions[one, : observed - 1])
        torch.testing.assert_close(states[one, observed - 1], begun)
        torch.testing.assert_close(states[one, observed:], model.rollout(begun, actions[one, observed - 1 :]))


def test_frames_that_are_not_observed_do_not_reach_the_state(model, window):
    def states(frames: torch.Tensor) -> torch.Tensor:
        embedded = model.embed(frames.flatten(0, 1)).unflatten(0, (BATCH, 4))
        return model._follow(embedded, window)

    hidden = torch.arange(4) >= window.observed[:, None]
    other = torch.where(hidden[..., None, None, None], maps(BATCH, 4), window.frames)
    torch.testing.assert_close(states(other), states(window.frames))


def test_a_future_is_the_same_alone_as_among_others(model, fused, actions, instructions):
    together = model.rollout(model.observe(fused[:, :2], actions[:, :1]), actions)
    said = model.outcomes(together, instructions)
    for row in range(BATCH):
        one = slice(row, row + 1)
        alone = model.rollout(model.observe(fused[one, :2], actions[one, :1]), actions[one])
        torch.testing.assert_close(alone, together[one], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.outcomes(alone, instructions).reward, said.reward[one], atol=1e-5, rtol=1e-5)


# -- what is read off ------------------------------------------------------------------------------------------------


def test_each_instruction_is_judged_by_itself(model, instructions):
    states = torch.randn(4, 7, SIZES["width"])
    for outcome, alone in zip(
        model.outcomes(states, instructions), model.outcomes(states, instructions[2:3]), strict=True
    ):
        assert outcome.shape == (4, 7, INSTRUCTIONS)
        torch.testing.assert_close(alone[..., 0], outcome[..., 2])
        assert outcome.std(-1).min() > 0


def test_a_picture_needs_no_other_picture(model, fused):
    """Drawn at every step or at the end alone, it is of the state and of what was observed last."""
    states = torch.randn(BATCH, SIZES["width"])
    together = model.picture(states, fused[:, 0])
    assert together.shape == fused[:, 0].shape
    torch.testing.assert_close(model.picture(states[1:2], fused[1:2, 0]), together[1:2], atol=1e-5, rtol=1e-5)


def test_principal_components_reproduce_what_lies_in_them(recurrent):
    plane = torch.linalg.qr(torch.randn(50, 3))[0]
    samples = torch.randn(30, 3) * torch.tensor([3.0, 2.0, 1.0]) @ plane.T
    variances, directions = recurrent.principal_components(samples, 3)
    torch.testing.assert_close(directions @ directions.T, torch.eye(3), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close((samples @ directions.T) @ directions, samples, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close((samples @ directions.T).square().mean(0), variances)


def test_components_need_more_maps_than_there_are(model):
    with pytest.raises(ValueError, match="12 maps cannot have 12 components; sample more"):
        model.measure(maps(12), 1.0)


# -- training --------------------------------------------------------------------------------------------------------


def test_what_comes_after_an_episode_does_not_count(model, window, instructions):
    spoilt = {
        name: torch.where(
            window.inside[2, -STEPS:].view(-1, 1) | (torch.arange(BATCH) != 2).view(-1, 1, 1),
            getattr(window, name),
            99.0,
        )
        for name in ("rewards", "successes", "terminations")
    }
    beyond = torch.where(window.inside[..., None], window.components, 99.0)
    actions = window.actions.clone()
    actions[2, -2:] = 99.0
    expected = model.loss(window, instructions)
    for part, same in zip(
        model.loss(window._replace(components=beyond, actions=actions, **spoilt), instructions), expected,
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(part, same)


@pytest.mark.parametrize("part", ["components", "picture", "reward", "success", "terminated"])
def test_the_last_step_teaches_the_first_state(model, window, instructions, part):
    """Each loss, of the last frame of a stretch of which one was observed, reaches how that frame was read."""
    only = window._replace(
        observed=torch.ones_like(window.observed),
        frames=window.frames[:, :1],
        inside=torch.arange(STEPS + 1).eq(STEPS).expand(BATCH, -1),
        drawn=torch.full((BATCH, 1), STEPS),
        targets=window.targets[:, :1],
    )
    getattr(model.loss(only, instructions), part).backward()
    assert model.embedding[0].weight.grad.abs().sum() > 0
    assert model.initial.grad.abs().sum() > 0


def test_it_learns_a_speed_that_no_single_frame_shows(recurrent, instructions):
    """A patch goes by the map at a speed of its own: two frames tell where it will be, and one does not."""
    torch.manual_seed(0)
    model = recurrent.RecurrentState(TOKENIZER, recurrent.StateConfig(**{**SIZES, "components": 4}), 2, 20)

    def moving(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        begin, speed = torch.rand(count, 1) * 2 - 1, torch.rand(count, 1) * 2 - 1
        place = begin + speed * torch.arange(5)
        return place, place[..., None, None, None] * torch.ones(TOKENIZER.width, TOKENIZER.grid, TOKENIZER.grid)

    place, frames = moving(256)
    model.measure(frames.flatten(0, 1) + 0.01 * torch.randn_like(frames).flatten(0, 1), place.var().item())
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(150):
        place, frames = moving(64)
        observed = torch.randint(1, 3, (64,))
        window = recurrent.Window(
            frames[:, :2], observed, torch.zeros(64, 4, 2), place[:, 1:, None].expand(-1, -1, INSTRUCTIONS),
            torch.zeros(64, 4, INSTRUCTIONS), torch.zeros(64, 4, INSTRUCTIONS), torch.ones(64, 5, dtype=torch.bool),
            model.project(frames.flatten(0, 1)).unflatten(0, (64, 5)), torch.full((64, 1), 4), frames[:, 4:],
        )  # fmt: skip
        loss = model.loss(window, instructions)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    place, frames = moving(256)
    error = []
    for observed in (1, 2):
        state = model.observe(frames[:, :observed], torch.zeros(256, observed - 1, 2))
        state = model.rollout(state, torch.zeros(256, 5 - observed, 2))[:, -1]
        error.append((model.outcomes(state, instructions).reward[:, 0] - place[:, -1]).square().mean().item())
    assert error[1] < error[0] / 4


# -- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def bench(load_benchmark):
    return load_benchmark("recurrent_state_bench")


@pytest.fixture
def tiny(bench, recurrent):
    """(its settings, a world, a recording of it)."""

    def make(recording, world, **settings):
        sizes = recurrent.StateConfig(**SIZES)
        return (
            bench.Experiment("tiny", "", sizes, updates=4, batch=4, observed=3, ahead=4, **settings),
            world,
            recording,
        )

    return make


def test_maps_are_made_once_for_each_tokenizer_and_recording(bench, make_world, recording, tmp_path):
    world, data = make_world(), recording(3, 5)
    made = bench.fused_maps(world, data, tmp_path)
    np.testing.assert_allclose(made[7:8], bench.fuse(world, data.frames[7:8]).numpy(), atol=2e-3, rtol=2e-3)
    (file,) = tmp_path.iterdir()
    before = file.stat().st_mtime_ns
    bench.fused_maps(world, data, tmp_path)
    assert [file.stat().st_mtime_ns for file in tmp_path.iterdir()] == [before]
    bench.fused_maps(world, recording(3, 6), tmp_path)
    world.tokenizer.quantizer.codebook.data.add_(1)
    bench.fused_maps(world, data, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_windows_show_what_was_recorded_up_to_the_end(bench, recording):
    data = replace(recording(4, 8), rewards=np.arange(64.0, dtype=np.float32).reshape(32, 2))
    maps = np.arange(32, dtype=np.float16)[:, None, None, None] * np.ones((1, 2, 2, 2), np.float16)
    learned = bench.Recording(data, maps, torch.arange(32.0)[:, None])
    window = learned.windows(np.array([0, 12]), np.array([3, 2]), 4, np.random.default_rng(0))
    assert window.inside.tolist() == [[True] * 7, [True] * 4 + [False] * 3]
    assert window.components[..., 0].tolist() == [[0, 1, 2, 3, 4, 5, 6], [12, 13, 14, 15, 15, 15, 15]]
    assert window.frames[:, :, 0, 0, 0].tolist() == [[0, 1, 2], [12, 13, 14]]
    torch.testing.assert_close(window.rewards[..., 0], 2 * window.components[:, 1:, 0])
    assert torch.equal(window.actions, torch.from_numpy(data.actions)[window.components[:, :-1, 0].long()])
    drawn = window.components[..., 0].gather(1, window.drawn)
    assert torch.equal(window.targets[:, :, 0, 0, 0], drawn)
    assert window.inside.gather(1, window.drawn).all()


def test_a_training_that_was_cut_continues_as_if_it_had_not_been(
    bench, tiny, make_world, recording, tmp_path, monkeypatch
):
    monkeypatch.setattr(bench, "SAVE_EVERY", 2)
    setting = tiny(recording(20, 12), make_world())
    for folder in ("whole", "cut"):
        (tmp_path / folder).mkdir()
    whole = bench.train(*setting, tmp_path / "whole")
    draw = bench.draw

    def killed(config, learned, rows, update):
        if update == 3:
            raise KeyboardInterrupt
        return draw(config, learned, rows, update)

    monkeypatch.setattr(bench, "draw", killed)
    with pytest.raises(KeyboardInterrupt):
        bench.train(*setting, tmp_path / "cut")
    monkeypatch.setattr(bench, "draw", draw)
    for one, other in zip(bench.train(*setting, tmp_path / "cut").parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_training_of_other_settings_is_not_continued(bench, tiny, make_world, recording, tmp_path):
    config, world, data = tiny(recording(20, 12), make_world())
    bench.train(replace(config, updates=1), world, data, tmp_path)
    with pytest.raises(UserError, match="trained with another seed, updates; choose another --out"):
        bench.train(replace(config, seed=1), world, data, tmp_path)


@pytest.mark.parametrize("shown", [1, 3])
def test_both_predict_the_same_held_out_stretches(bench, tiny, make_world, recording, tmp_path, shown):
    config, world, data = tiny(recording(20, 12), make_world(), shown=shown, at=(1, 4), stretches=5)
    state = bench.train(config, world, data, tmp_path)
    seen = bench.held_out(config, data)
    assert set(data.frames[19 * 12 :, 0, 0, 0]) >= set(seen.past.frames[:, :, 0, 0, 0].flat)
    np.testing.assert_array_equal(seen.past.frames[:, -1], seen.future.frames[:, 0])
    for said in (bench.by_the_world(world, data, seen, False), bench.by_the_state(world, data, seen, state)):
        assert said.rewards.shape == said.over.shape == (5, 4) and said.quality.shape == (5, 2)
        assert np.isfinite(said.quality).all() and said.rewards.std() > 0


def test_ends_are_foreseen_if_within_two_steps(bench):
    def ends(*steps):
        return np.stack([np.arange(6) == step for step in steps])

    said, true = ends(3, 5, 6, 2, 6, 0), ends(5, 2, 4, 6, 6, 0)
    assert bench.ends_foreseen(said, true) == "1 of 3 ends foreseen within 2 steps, false alarms in 1 of 2 without one"


def test_a_future_earns_until_its_end_whatever_else_is_tried(bench, recurrent, make_world, monkeypatch):
    world = make_world()
    state = recurrent.RecurrentState(world.config.tokenizer, recurrent.StateConfig(**SIZES), 2, 64).eval()
    returns = bench.StateReturns(world, state, "reach the centre")
    sequences = np.random.default_rng(0).uniform(-1, 1, (5, 4, 2)).astype(np.float32)
    with pytest.raises(RuntimeError, match="ground"):
        returns(sequences)
    returns.ground(np.zeros((2, 64, 64, 3), np.uint8), np.zeros((1, 2), np.float32))
    together = returns(sequences)
    monkeypatch.setattr(bench, "TILE", 2)
    np.testing.assert_allclose(returns(sequences), together, rtol=1e-4, atol=1e-5)
    states = state.rollout(returns.now.expand(5, -1), torch.from_numpy(sequences))
    said = state.outcomes(states, returns.instruction)
    expected = []
    for rewards, over in zip(said.reward[..., 0].tolist(), (said.terminated[..., 0] > 0).tolist(), strict=True):
        expected.append(sum(rewards[: over.index(True) + 1] if True in over else rewards))
    np.testing.assert_allclose(together, expected, rtol=1e-4, atol=1e-5)
