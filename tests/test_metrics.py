"""Metrics against values that were computed elsewhere, or that are known."""

import numpy as np
import pytest

from worldgym.metrics import (
    bootstrap,
    calibration,
    correlation,
    frechet_distance,
    psnr,
    rank_correlation,
    reliability,
    sharpness,
    ssim,
)


def test_psnr_of_a_known_error():
    black = np.zeros((2, 16, 16, 3), np.uint8)
    assert psnr(black + np.uint8(51), black) == pytest.approx(20 * np.log10(5))
    assert psnr(black, black) == pytest.approx(60)


def test_ssim_is_that_of_scikit_image():
    """Of `structural_similarity(a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255,
    channel_axis=-1)`, scikit-image 0.26."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (24, 32, 3), np.uint8)
    darker = np.clip(noise.astype(int) // 2 + random.integers(0, 100, noise.shape), 0, 255).astype(np.uint8)
    y, x = np.mgrid[:24, :32]
    chess = np.where((x // 8 + y // 8) % 2, 200, 40)
    shapes = np.stack([(x * 7 + y * 3) % 256, (x * y) % 256, chess], -1).astype(np.uint8)
    found = ssim(np.stack([noise, shapes]), np.stack([darker, np.roll(shapes, 1, 1)]))
    np.testing.assert_allclose(found, [0.7204357467, 0.8157000187], atol=1e-4)


def test_blur_lowers_sharpness_and_flat_pictures_have_none():
    edge = np.zeros((1, 16, 16, 3), np.uint8)
    edge[:, :, 8:] = 255
    ramp = np.broadcast_to(np.linspace(0, 255, 16).astype(np.uint8)[:, None], (1, 16, 16, 3))
    # Of 14 columns inside, two have a Laplacian of 1 and -1 next to the edge: the variance is 2 / 14.
    assert sharpness(edge) == pytest.approx(2 / 14)
    assert sharpness(ramp) < 1e-3
    assert sharpness(np.full((3, 16, 16, 3), 90, np.uint8)).tolist() == [0.0, 0.0, 0.0]


def test_ssim_of_flat_pictures_is_the_light_alone():
    a, b = np.full((16, 16, 3), 100, np.uint8), np.full((16, 16, 3), 50, np.uint8)
    light = (0.01 * 255) ** 2
    assert ssim(a, b) == pytest.approx((2 * 100 * 50 + light) / (100**2 + 50**2 + light), abs=1e-4)
    assert ssim(a, a) == pytest.approx(1.0)


def test_ssim_keeps_the_shape_of_batches_beyond_its_chunks():
    pictures = np.random.default_rng(0).integers(0, 256, (90, 3, 11, 11, 3), np.uint8)
    found = ssim(pictures, pictures[::-1])
    assert found.shape == (90, 3)
    np.testing.assert_allclose(found[7, 2], ssim(pictures[7, 2], pictures[-8, 2]), atol=1e-6)


def test_ssim_of_pictures_smaller_than_its_window_is_an_error():
    with pytest.raises(ValueError, match="10 x 10"):
        ssim(np.zeros((10, 10, 3), np.uint8), np.zeros((10, 10, 3), np.uint8))


def test_correlation_with_something_constant_is_undefined():
    assert np.isnan(correlation(np.ones(4), np.arange(4.0)))
    assert np.isnan(rank_correlation(np.arange(4.0), np.ones(4)))
    assert rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 10.0, 11.0])) == pytest.approx(1)


def test_a_bootstrap_interval_covers_the_mean_as_often_as_it_says():
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        low, high = bootstrap(np.mean, random.normal(3.0, 2.0, 40), draws=200)
        hits += low <= 3.0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_a_bootstrap_draws_rows_of_all_columns_together():
    values = np.arange(20.0)
    assert bootstrap(correlation, values, 2 * values) == pytest.approx([1, 1])


def test_reliability_rises_where_the_uncertainty_is_right():
    stated = np.random.default_rng(0).permutation(100).astype(float)
    groups = reliability(stated, 3 * stated)
    assert groups["cases"] == [10] * 10
    assert groups["stated"] == pytest.approx(np.arange(4.5, 100, 10))
    assert groups["error"] == pytest.approx(3 * np.arange(4.5, 100, 10))


def test_calibration_of_an_honest_and_of_a_boastful_head():
    random = np.random.default_rng(0)
    stated = random.uniform(size=20_000)
    happened = random.uniform(size=20_000) < stated
    honest = calibration(stated, happened)
    assert honest["expected_error"] < 0.02
    assert honest["brier"] == pytest.approx(1 / 6, abs=0.01)  # the mean of p (1 - p)
    assert sum(honest["cases"]) == 20_000
    boastful = calibration(np.ones(10), np.arange(10) < 3)
    assert boastful["expected_error"] == pytest.approx(0.7)
    assert boastful["brier_of_base_rate"] == pytest.approx(0.21)
    assert boastful["happened"] == pytest.approx([0.3])


def test_frechet_distance_is_that_by_the_root_of_a_matrix():
    """Of `scipy.linalg.sqrtm`, SciPy 1.17."""
    random = np.random.default_rng(0)
    one = random.normal(size=(50, 6))
    other = random.normal(size=(30, 6)) @ np.diag([1, 2, 0.5, 1, 1, 3.0]) + 0.3
    assert frechet_distance(one, other) == pytest.approx(6.976467919)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(one, one + 2) == pytest.approx(24)


def test_frechet_distance_of_fewer_rows_than_features():
    rows = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32)
    assert frechet_distance(rows, np.concatenate([rows, rows]) + 1) == pytest.approx(40, rel=0.05)
