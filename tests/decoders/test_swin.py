"""Causal Swin-DPM: streaming is the window, and the future is not in it."""

from dataclasses import replace

import pytest
import torch
from diffusers import WanTransformer3DModel

from worldgym.decoders.flow import Schedule, advance, guide, mix, noise_levels
from worldgym.decoders.swin import Asked, CausalSwin, SwinConfig, window_levels, window_loss
from worldgym.decoders.wan import Condition, ConditionedWan

STATE = 12
CONFIG = SwinConfig(frames=2, schedule=Schedule(6, 5.0), guidance=3.0)
CHUNKS = 4


@pytest.fixture
def model() -> ConditionedWan:
    torch.manual_seed(0)
    wan = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
        text_dim=8, freq_dim=16, ffn_dim=32, num_layers=2, rope_max_seq_len=32,
    )  # fmt: skip
    model = ConditionedWan(wan, STATE)
    for layer in model.layers:  # as training would leave it
        torch.nn.init.normal_(layer.state.out.weight, std=0.3)
    return model.eval()


@pytest.fixture
def script():
    """First frame, and for each chunk what it is asked, its noise and that of its condition frame."""
    torch.manual_seed(3)
    first = torch.randn(2, 4, 8, 6)
    asked = [
        Asked(*(Condition(torch.randn(2, 1, 6, 8), torch.randn(2, 1, 3, STATE)) for _ in range(2)))
        for _ in range(CHUNKS)
    ]
    return first, asked, torch.randn(CHUNKS, 2, 4, 2, 8, 6), torch.randn(CHUNKS, 2, 4, 1, 8, 6)


def stream(swin: CausalSwin, script, count: int = CHUNKS) -> list[torch.Tensor]:
    first, asked, noise, condition_noise = script
    state, shown = swin.start(first), []
    for index in range(count):
        state, chunk = swin.next(state, asked[index], noise[index], condition_noise[index])
        shown.append(chunk)
    return shown


@torch.no_grad()
def whole_windows(model: ConditionedWan, config: SwinConfig, script) -> list[torch.Tensor]:
    """What the paper draws: two chunks denoised side by side in one pass, the window moved on when one is clean."""
    first, asked, noise, condition_noise = script
    levels, half = noise_levels(config.schedule), config.schedule.steps // 2

    def flow(latents, level, conditions, chunks):
        sides = []
        for part in zip(*conditions, strict=True):
            whole = Condition(torch.cat([c.text for c in part], 1), torch.cat([c.state for c in part], 1))
            sides.append(model(latents, level, whole, chunks)[0])
        return guide(*sides, config.guidance)

    def noised(frame, index):
        return mix(frame, condition_noise[index], torch.full((2, 1), config.condition_level))

    def level(value, frames):
        return levels[value].expand(2, frames)

    at_condition, n = torch.full((2, 1), config.condition_level), config.frames
    before, early, shown = noised(first[:, :, None], 0), noise[0], []
    for step in range(half):  # a video's first chunk comes alone to half time
        both = flow(torch.cat([before, early], 2), torch.cat([at_condition, level(step, n)], 1), [asked[0]], (1 + n,))
        early = advance(early, both[:, :, 1:], levels[step], levels[step + 1])
    for index in range(1, CHUNKS + 1):
        late = noise[index] if index < CHUNKS else torch.zeros_like(early)
        pair = [asked[index - 1], asked[min(index, CHUNKS - 1)]]
        for step in range(half):
            window = torch.cat([before, early, late], 2)
            at = torch.cat([at_condition, level(step + half, n), level(step, n)], 1)
            both = flow(window, at, pair, (1 + n, n))[:, :, 1:]
            early = advance(early, both[:, :, :n], levels[step + half], levels[step + half + 1])
            late = advance(late, both[:, :, n:], levels[step], levels[step + 1])
        shown.append(early)
        if index < CHUNKS:
            before, early = noised(early[:, :, -1:], index), late
    return shown


@pytest.mark.parametrize("keep_keys", [False, True])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_streaming_is_the_whole_window(model, script, keep_keys, guidance):
    config = replace(CONFIG, guidance=guidance)
    expected = whole_windows(model, config, script)
    torch.testing.assert_close(stream(CausalSwin(model, config, keep_keys), script), expected, rtol=1e-4, atol=1e-4)


def test_a_chunk_is_finished_before_the_next_action_exists(model, script):
    one = stream(CausalSwin(model, CONFIG), script)
    script[1][2:] = script[1][:2]
    other = stream(CausalSwin(model, CONFIG), script)
    assert all(torch.equal(a, b) for a, b in zip(one[:2], other[:2], strict=True))
    assert not torch.allclose(one[2], other[2], atol=1e-3)


def test_a_stream_is_a_value(model, script):
    swin, (first, asked, noise, condition_noise) = CausalSwin(model, CONFIG), script
    state, _ = swin.next(swin.start(first), asked[0], noise[0], condition_noise[0])
    one = swin.next(state, asked[1], noise[1], condition_noise[1])[1]
    swin.next(state, asked[2], noise[1], condition_noise[1])
    assert torch.equal(swin.next(state, asked[1], noise[1], condition_noise[1])[1], one)


def test_a_chunk_depends_on_the_noisy_past_of_the_one_before(model, script):
    swin, (first, asked, noise, condition_noise) = CausalSwin(model, CONFIG), script
    state, _ = swin.next(swin.start(first), asked[0], noise[0], condition_noise[0])
    with_past = swin.next(state, asked[1], noise[1], condition_noise[1])[1]
    without = swin.next(swin.start(state.condition[:, :, 0]), asked[1], noise[1], condition_noise[1])[1]
    assert not torch.allclose(with_past, without, atol=1e-3)


def test_an_offset_of_all_steps_is_chunk_by_chunk(model, script):
    swin, (_, asked, noise, condition_noise) = CausalSwin(model, replace(CONFIG, offset=1.0)), script
    shown = stream(swin, script, 2)
    alone = swin.next(swin.start(shown[0][:, :, -1]), asked[1], noise[1], condition_noise[1])[1]
    torch.testing.assert_close(shown[1], alone)


def test_a_quarter_offset_runs_from_latents_and_not_from_keys(model, script):
    config = replace(CONFIG, schedule=Schedule(8, 5.0), offset=0.25)
    assert all(chunk.isfinite().all() for chunk in stream(CausalSwin(model, config), script))
    with pytest.raises(ValueError, match=r"0\.5 or more"):
        CausalSwin(model, config, keep_keys=True)


def test_training_pairs_the_chunks_by_steps_before_the_shift():
    shares = torch.tensor([0.0, 0.4, 0.999, 0.999])
    levels = window_levels(CONFIG, shares, torch.tensor([False, False, False, True]))
    assert (levels[:, 0] == 0.055).all()
    early, late = levels[:, 1], levels[:, 3]
    back = lambda level: level / (5 - 4 * level)  # noqa: E731  # the shift undone
    torch.testing.assert_close(back(early[:3]), shares[:3] / 2)
    torch.testing.assert_close(back(late[:3]), shares[:3] / 2 + 0.5)
    assert early[3] > 0.99  # a video's first chunk begins from all noise


def test_the_loss_of_a_perfect_prediction_is_zero_and_leaves_out_the_condition_frame():
    torch.manual_seed(0)
    latents, noise = torch.randn(3, 4, 5, 8, 6), torch.randn(3, 4, 5, 8, 6)

    class Perfect(torch.nn.Module):
        def forward(self, mixed, levels, condition, chunks):
            assert chunks == (3, 2)
            flow = noise - latents
            flow[:, :, 0] = 100.0
            return flow, None

    nothing = Condition(torch.zeros(3, 2, 1, 8))
    loss = window_loss(Perfect(), CONFIG, latents, nothing, nothing, noise, torch.rand(3, 3))
    assert torch.equal(loss, torch.zeros(3))


def test_an_offset_that_is_no_whole_number_of_steps_is_refused():
    with pytest.raises(ValueError, match="not a whole number"):
        SwinConfig(schedule=Schedule(5))
