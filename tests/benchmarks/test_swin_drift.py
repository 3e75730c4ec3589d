"""benchmarks/swin_drift.py: what a video model without a window learns, and how all are judged."""

import numpy as np
import pytest
import torch

from worldgym.decoders.flow import mix, velocity
from worldgym.decoders.swin import window_loss


@pytest.fixture
def drift(load_benchmark):
    return load_benchmark("swin_drift")


@pytest.fixture
def model(drift):
    torch.manual_seed(0)
    model = drift.VideoModel(4, layers=1, heads=2).eval().requires_grad_(False)
    torch.nn.init.normal_(model.wan.wan.proj_out.weight, std=0.1)
    return model


def test_without_a_window_a_window_is_two_beginnings(drift, model):
    chance = torch.Generator().manual_seed(1)
    latents, noise = (torch.randn(3, 4, 13, 2, 2, generator=chance) for _ in range(2))
    states, shares = torch.rand(3, 13, drift.STATE, 2, 2, generator=chance), torch.rand(3, 2, generator=chance)
    config = drift.VARIANTS["chunk after chunk"]

    def beginning(when):
        frames = slice(4 * when, 4 * when + 9)
        condition = drift.told(states[:, frames])
        chances = torch.stack([shares[:, when], torch.zeros(3), torch.ones(3)], 1)  # all are first, none is dropped
        return window_loss(model, config, latents[:, :, frames], condition, condition, noise[:, :, frames], chances)

    found = drift.chunk_loss(model, config, latents[:, :, :9], states[:, :9], noise[:, :, :9], shares)
    torch.testing.assert_close(found, (beginning(0) + beginning(1)) / 2)


def test_it_begins_with_the_best_guess_of_gaussian_differences(drift, model):
    """What is left to the network is uncorrelated with what it is shown, and of unit variance at all noise levels."""
    torch.nn.init.zeros_(model.wan.wan.proj_out.weight)
    before = torch.randn(1, 4, 1, 8, 8)
    clean = torch.cat([before, before + torch.randn(1, 4, 60, 8, 8)], 2)
    noise = torch.randn_like(clean)
    for level in (0.125, 0.5, 1.0):
        levels = torch.full((1, 61), level)
        levels[:, 0] = 0.0
        mixed = mix(clean, noise, levels)
        condition = drift.Condition(torch.zeros(1, 1, 1, 1), aligned=torch.zeros(1, 2 * drift.STATE, 61, 8, 8))
        flow, _ = model(mixed, levels, condition, (61,))
        left = (velocity(clean, noise) - flow)[:, :, 1:] * np.hypot(1 - level, level)
        seen = (mixed - (1 - level) * before)[:, :, 1:]
        assert abs(float(left.var()) - 1) < 0.06 and abs(float((left * seen).mean())) < 0.04


def test_the_truth_is_judged_true_and_a_still_picture_ever_worse(drift):
    real, places = drift.held_out_episodes(2, 24, 0)
    seen = drift.Seen(real.frames, places)
    truth = drift.judge(seen.frames[:, 1:], seen)
    found = drift.figures(truth, truth)
    assert found["psnr_last"] == pytest.approx(60) and found["objects_found"] == [1.0] * 6
    assert found["border"] == found["inside"] == found["sharpness_last"] == 1.0 and found["psnr_change"] == 0
    still = drift.figures(drift.judge(np.broadcast_to(seen.frames[:, :1], seen.frames[:, 1:].shape), seen), truth)
    assert still["psnr_change"] < -1 and still["border"] == still["inside"] == 0
    gains = drift.against([truth], [truth])
    assert gains["psnr_last"] == gains["ssim_decline"] == 0
