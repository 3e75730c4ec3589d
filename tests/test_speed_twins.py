"""Every fast path equals its plain twin."""

import time
from functools import partial

import numpy as np
import pytest
import torch

import worldgym.world as world_module
from worldgym import bench
from worldgym.model.backbone import attention, forked_attention
from worldgym.model.cache import KVCache
from worldgym.model.scale_head import entropy
from worldgym.world import WorldModel, WorldState


@pytest.fixture
def baselines(load_benchmark):
    return load_benchmark("baselines")


def steps(world, state, actions):
    """(state, rewards [t, b]) after the actions [b, t, a]."""
    rewards = []
    for when in range(actions.shape[1]):
        state, outcome = world.step(state, actions[:, when])
        rewards.append(outcome.reward)
    return state, torch.stack(rewards)


def close(one, other):
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def everyone(state):
    return torch.arange(len(state))


@pytest.mark.parametrize("groups", [1, 2])
def test_attention_to_a_shared_past_equals_attention_to_copies_of_it(groups):
    torch.manual_seed(0)
    query = torch.randn(6, 4, 5, 8)
    key, value = torch.randn(2, 6, groups, 7, 8)
    trunk_key, trunk_value = torch.randn(2, 2, groups, 9, 8)
    mask = torch.rand(6, 1, 5, 16) > 0.4
    forked = forked_attention(query, key, value, trunk_key, trunk_value, 3, mask)
    copied = [torch.cat([t.repeat_interleave(3, 0), o], 2) for t, o in ((trunk_key, key), (trunk_value, value))]
    torch.testing.assert_close(forked, attention(query, *copied, mask))


def test_a_fork_dreams_what_copies_dream(world, frames, actions):
    """From dreams of unequal age, over the step at which they begin a new window, and with its own forks."""
    state, _ = steps(world, world.start(frames[:, :1], seeds=[1, 2, 3], temperature=1.0), actions[:, :2])
    state = state.put(torch.tensor([1]), world.start(frames[1:2, 3:4], seeds=[9], temperature=1.0))
    copied = state.select(everyone(state).repeat_interleave(2))
    forked = state.fork(2)
    assert forked.cache.trunk.keys.data_ptr() == state.cache.keys.data_ptr()
    assert copied.cache.trunk is None
    each = np.concatenate([actions, -actions], 1).reshape(6, 12, 2)
    forked, found = steps(world, forked, each[:, :2])
    copied, expected = steps(world, copied, each[:, :2])
    close(found, expected)
    for one in (
        forked.select(torch.tensor([5, 0])),
        WorldState.restore(forked.snapshot()).select(torch.tensor([5, 0])),
    ):
        close(
            steps(world, one, each[[5, 0], 2:6])[1],
            steps(world, copied.select(torch.tensor([5, 0])), each[[5, 0], 2:6])[1],
        )
    again, twice = forked.fork(2), copied.select(everyone(copied).repeat_interleave(2))
    more = each[:, 2:9].repeat(2, 0)
    close(steps(world, again, more)[1], steps(world, twice, more)[1])
    close(steps(world, forked, each[:, 2:9])[1], steps(world, copied, each[:, 2:9])[1])


def test_what_becomes_of_a_parent_leaves_its_fork_alone(world, frames, actions):
    """Stepping on, a new window, and new dreams in its place."""
    parent, _ = steps(world, world.start(frames[:, :1]), actions[:, :2])
    expected = steps(world, parent.fork(2), actions[:, 2:8].repeat(2, 0))[1]
    fork = parent.fork(2)
    parent, _ = steps(world, parent, -actions[:, 2:8])
    parent.put(torch.tensor([0]), world.start(frames[:1, 2:3]))
    assert torch.equal(steps(world, fork, actions[:, 2:8].repeat(2, 0))[1], expected)


def test_put_copies_nothing_and_spends_the_state(world, frames, actions):
    state, _ = steps(world, world.start(frames[:, :1]), actions[:, :1])
    where = state.cache.keys.data_ptr()
    after = state.put(torch.tensor([2]), world.start(frames[:1, :1]))
    assert after.cache.keys.data_ptr() == where
    with pytest.raises(ValueError, match="fork"):
        world.step(state, actions[:, 1])
    world.step(after, actions[:, 1])


def test_slots_that_nobody_wrote_are_never_seen(world, frames, actions, monkeypatch):
    """New slots hold whatever was in memory."""
    expected = steps(world, world.start(frames[:2, :1]), actions[:2, :9])[1]
    empty = KVCache.empty

    def poisoned(*arguments):
        cache = empty(*arguments)
        cache.keys.fill_(torch.nan), cache.values.fill_(torch.nan)
        return cache

    monkeypatch.setattr(KVCache, "empty", poisoned)
    state = world.start(frames[:1, :1])
    state, _ = steps(world, state, actions[:1, :1])
    batch = state.select(torch.tensor([0, 0])).put(torch.tensor([1]), world.start(frames[1:2, :1]))
    found = steps(world, batch, np.stack([actions[0, 1:9], actions[1, :8]]))[1]
    close(found[:, 0], expected[1:, 0])
    close(found[:, 1], expected[:8, 1])


@pytest.mark.parametrize("block", [1, 2, 5])
def test_blocks_of_dreams_equal_all_at_once(world, frames, actions, block, monkeypatch):
    state = world.start(frames[:, :1], seeds=[1, 2, 3], temperature=1.0)
    tries = np.stack([actions[:, :6], -actions[:, :6], actions[:, 6:]], 1)
    monkeypatch.setattr(world_module, "BLOCK", {})
    returns = world.evaluate(state, tries)
    whole, rewards = steps(world, state.fork(1), actions[:, :6])
    monkeypatch.setattr(world_module, "BLOCK", {"cpu": block})
    close(world.evaluate(state, tries), returns)
    parts, found = steps(world, state.fork(1), actions[:, :6])
    close(found, rewards)
    assert (world.render(parts).int() - world.render(whole).int()).abs().max() <= 1


def test_tokens_drawn_at_once_equal_each_scale_by_itself(world):
    torch.manual_seed(0)
    head, quantizer = world.dynamics.scale_head, world.tokenizer.quantizer
    aligned, action = torch.randn(2, 32, 8, 8), torch.randn(2, 64)
    latent = torch.randn(2, 4, 8, 8)
    ids, total, measured = head.draw(aligned, action, latent, quantizer, None, 0.0)
    unmeasured = head.draw(aligned, action, latent, quantizer, None, 0.0, measure=False)
    assert torch.equal(ids, unmeasured[0]) and unmeasured[2] is None
    plain, entropies, sofar = [], [], torch.zeros_like(latent)
    for index in range(len(quantizer.splits)):
        log_p = head(aligned, action, latent + head.guess(aligned) - sofar, index, quantizer).log_softmax(-1)
        plain.append(log_p.argmax(-1))
        entropies.append(-(log_p.exp() * log_p).sum(-1))
        sofar = sofar + quantizer.contribution(plain[-1], index)
    assert torch.equal(ids, torch.cat(plain, 1))
    kept = torch.lerp(sofar, latent + head.guess(aligned), head.residual)
    torch.testing.assert_close(total, kept)
    torch.testing.assert_close(measured, torch.cat(entropies, 1).mean(1))


def test_entropy_is_that_of_the_distribution():
    logits = torch.randn(100, 512, generator=torch.Generator().manual_seed(0)) * torch.logspace(-2, 2, 100)[:, None]
    expected = torch.distributions.Categorical(logits=logits.double()).entropy()
    torch.testing.assert_close(entropy(logits).double(), expected, atol=1e-4, rtol=1e-4)


def test_returns_have_gradients_through_the_cache(world, frames, actions):
    """Against a finite difference, through steps that write beside each other."""
    dynamics = world.dynamics
    start = world.start(frames[:1, :1])

    def total(first):
        state, fused, result = start.fork(1), start.fused, 0.0
        for when in range(3):
            action = dynamics.from_vector(first if when == 0 else torch.as_tensor(actions[:1, when]))
            hidden = dynamics.hidden_state(state.cache, state.steps + when, fused, action)
            aligned = dynamics.scale_head.align(hidden, fused, action)
            result = result + aligned.square().mean()
            fused = fused + dynamics.scale_head.from_fused.weight[:, :, 0, 0].T.matmul(aligned.flatten(2)).view_as(
                fused
            )
        return result

    first = torch.tensor(actions[:1, 0], requires_grad=True)
    (gradient,) = torch.autograd.grad(total(first), first)
    step = 1e-2 * torch.ones_like(first)
    with torch.no_grad():
        difference = total(first + step) - total(first - step)
    torch.testing.assert_close((gradient * 2 * step).sum(), difference, rtol=0.05, atol=1e-5)


def test_bfloat16_dreams_nearly_the_same(make_world, frames, actions):
    exact = steps(make_world(), make_world().start(frames[:, :1]), actions[:, :1])[1]
    world = make_world().compute_in(torch.bfloat16)
    state = world.start(frames[:, :1])
    state, found = steps(world, state, actions[:, :1])
    torch.testing.assert_close(found, exact, atol=0.05, rtol=0.05)
    assert state.fused.dtype == state.latent.dtype == found.dtype == torch.float32
    assert world.evaluate(state, actions[:, None, 1:7]).isfinite().all()
    assert torch.equal(world.render(WorldState.restore(state.snapshot())), world.render(state))
    with pytest.raises(ValueError, match=r"torch\.float32 or torch\.bfloat16"):
        world.compute_in(torch.float16)


def test_baselines_have_as_many_weights_as_the_dynamics(baselines):
    """At the sizes of the bundled world."""
    world = WorldModel.load("tabletop", "cpu")
    size = bench.num_parameters(world.dynamics)
    assert bench.num_parameters(baselines.Raster(world, 1, past=1).model) == pytest.approx(size, rel=0.03)
    assert bench.num_parameters(baselines.AllScales(world, 1).backbone) == pytest.approx(size, rel=0.15)


def test_baselines_leave_their_history_as_it_was(baselines, make_world):
    """Each turn of the benchmark goes on from the same past."""
    world = make_world()
    raster, scales = baselines.Raster(world, 2, tokens=3, past=1), baselines.AllScales(world, 2)
    before = raster.cache.get_seq_length(), scales.cache.filled.clone()
    assert raster.kept_cache().shape == raster.as_shipped().shape == (2, 1)
    scales.step()
    assert raster.cache.get_seq_length() == before[0] == 256 + 4
    assert torch.equal(scales.cache.filled, before[1])


@pytest.fixture
def measure(checkpoint, monkeypatch):
    """`measure(baselines)`: all figures of a tiny world with its costliest parts left out."""
    monkeypatch.setattr(bench, "bench_simulators", lambda twin, steps: {"Twin-v0": {"steps_per_second": 1.0}})
    monkeypatch.setattr(bench, "matmul_ceiling", lambda world: 100.0)
    seconds = {"import_worldgym": 0.1, "import_worldgym_processor": 0.1, "gym_make": 1.0, "gym_make_processor": 1.0}
    monkeypatch.setattr(bench, "start_up", lambda name: seconds)
    world = WorldModel.load(str(checkpoint), "cpu")
    decide = {"dream": lambda: time.sleep(0.02), "mujoco": lambda: time.sleep(0.01)}
    return partial(bench.bench, world, str(checkpoint), bench.BenchSizes((2,), 1, 8), decide, 30)


def test_a_benchmark_tells_everything_it_measured(measure, baselines, tmp_path):
    metrics = measure(baselines.TIMED)
    told = bench.table(metrics)
    planning = {on: found["samples_x_horizon_per_second"] for on, found in metrics["planning"].items()}
    assert 0 < planning["dream"] <= 30 / 0.02 and 0 < planning["mujoco"] <= 30 / 0.01
    assert "samples x horizon per second: dream" in told
    for line in ("pixels", "raster_16_kept_cache", "all_scales_kept", "fork into 256", "step 9 over step 5", "Twin-v0"):
        assert line in told
    assert metrics["batches"]["2"]["figures"]["evaluate"]["mflop_per_dream"] > 0
    assert list(metrics["batches"]["2"]["baseline_seconds_over_ours"]) == [
        "raster_16_as_shipped", "raster_16_kept_cache", "all_scales_kept", "raster_85_kept_cache",
    ]  # fmt: skip
    bench.plot(metrics, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").stat().st_size > 5000


@pytest.mark.slow
def test_without_baselines_a_benchmark_is_of_ours_alone(measure):
    metrics = measure()
    assert set(metrics["batches"]["2"]["figures"]) <= set(bench.OWN)
    assert "baseline" not in bench.table(metrics)
