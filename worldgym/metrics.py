"""How close a dream is to what happened."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8


def psnr(predicted: UInt8[np.ndarray, "*b h w c"], real: UInt8[np.ndarray, "*b h w c"]) -> Float[np.ndarray, "*b"]:
    """Peak signal-to-noise ratio of each picture, dB; identical pictures count as 60 dB."""
    error = (predicted.astype(np.float32) - real.astype(np.float32)) ** 2
    return -10 * np.log10(np.maximum(error.mean((-3, -2, -1)) / 255**2, 1e-6))


def ssim(predicted: UInt8[np.ndarray, "*b h w c"], real: UInt8[np.ndarray, "*b h w c"]) -> Float[np.ndarray, "*b"]:
    """Structural similarity of each picture, at most 1 (Wang et al. 2004).

    As they have it: windows of 11 pixels weighted by a Gaussian of 1.5, those that lie inside the picture; each
    channel for itself, then the mean of all. Pictures are at least 11 pixels a side.
    """
    *batch, height, width, channels = predicted.shape
    if min(height, width) < 11:
        raise ValueError(f"pictures are {height} x {width}; SSIM looks through windows of 11 pixels")
    flat = [picture.reshape(-1, height, width, channels) for picture in (predicted, real)]
    values = [_ssim(flat[0][i : i + 256], flat[1][i : i + 256]) for i in range(0, len(flat[0]), 256)]
    return np.concatenate(values).reshape(batch)


def _ssim(predicted: np.ndarray, real: np.ndarray) -> np.ndarray:
    x, y = (torch.from_numpy(np.require(p, requirements="W")).movedim(-1, 1).float() / 255 for p in (predicted, real))
    moments = torch.stack([x, y, x * x, y * y, x * y], 1)
    # As products with banded matrices, many times faster on a CPU than a convolution of one channel.
    moments = _blur(moments.shape[-2]) @ moments @ _blur(moments.shape[-1]).T
    mean_x, mean_y, xx, yy, xy = moments.unbind(1)
    varies_x, varies_y, together = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    light, contrast = 0.01**2, 0.03**2
    similar = (2 * mean_x * mean_y + light) * (2 * together + contrast)
    similar = similar / ((mean_x**2 + mean_y**2 + light) * (varies_x + varies_y + contrast))
    return similar.flatten(1).mean(1).numpy()


def sharpness(pictures: UInt8[np.ndarray, "*b h w c"]) -> Float[np.ndarray, "*b"]:
    """Variance of the Laplacian of the grey picture (Pech-Pacheco et al. 2000), grey being 0 to 1: blur lowers it.

    Noise raises it as edges do, so it means something only together with a metric that noise lowers.
    """
    grey = pictures.astype(np.float32).mean(-1) / 255
    inside = grey[..., 1:-1, 1:-1]
    around = grey[..., :-2, 1:-1] + grey[..., 2:, 1:-1] + grey[..., 1:-1, :-2] + grey[..., 1:-1, 2:]
    return (around - 4 * inside).var((-2, -1)).astype(np.float64)


def _blur(size: int) -> Float[torch.Tensor, "inside size"]:
    """Rows that each weigh the 11 pixels of a window."""
    weights = torch.exp(-((torch.arange(11) - 5) ** 2) / (2 * 1.5**2))
    matrix = torch.zeros(size - 10, size)
    for first, row in enumerate(matrix):
        row[first : first + 11] = weights / weights.sum()
    return matrix


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95% interval of a success rate (Wilson's score)."""
    if trials == 0:
        return 0.0, 1.0
    z, rate = 1.96, successes / trials
    centre = rate + z * z / (2 * trials)
    half = z * np.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials**2))
    bounds = np.array([centre - half, centre + half]) / (1 + z * z / trials)
    return float(max(bounds[0], 0.0)), float(min(bounds[1], 1.0))  # they are, but for rounding


def rank_correlation(one: Float[np.ndarray, " n"], other: Float[np.ndarray, " n"]) -> float:
    """Spearman's: the correlation of the ranks; nan where one of the two is constant."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return correlation(np.argsort(np.argsort(one)).astype(float), np.argsort(np.argsort(other)).astype(float))


def correlation(one: Float[np.ndarray, " n"], other: Float[np.ndarray, " n"]) -> float:
    """Pearson's; nan where one of the two is constant, for then there is nothing to correlate."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.corrcoef(one, other)[0, 1])


def bootstrap(statistic: Callable[..., float], *columns: np.ndarray, draws: int = 1000) -> list[float]:
    """95% bootstrap interval of `statistic(*columns)`. It resamples rows, which have to be independent: episodes."""
    if len(columns[0]) == 0:
        return [float("nan")] * 2
    drawn = np.random.default_rng(0).integers(len(columns[0]), size=(draws, len(columns[0])))
    values = np.array([statistic(*(column[rows] for column in columns)) for rows in drawn])
    values = values[~np.isnan(values)]  # a draw in which nothing varies has no correlation
    if len(values) == 0:
        return [float("nan")] * 2
    return np.quantile(values, [0.025, 0.975], method="nearest").tolist()


STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""The 97.5% quantile of Student's t for 1, 2, ... degrees of freedom; with more it is a little too wide."""


def student(values: Sequence[float]) -> tuple[float, list[float]]:
    """The mean of a few independent runs, and its 95% interval by Student's t. A bootstrap of three or five runs is far
    too narrow. The interval of one run is nan."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return mean, [float("nan")] * 2
    half = STUDENT[min(count - 1, len(STUDENT)) - 1] * float(np.std(values, ddof=1)) / count**0.5
    return mean, [mean - half, mean + half]


def reliability(stated: Float[np.ndarray, " n"], error: Float[np.ndarray, " n"], bins: int = 10) -> dict[str, Any]:
    """Does error grow with the uncertainty that was stated? Means of both in `bins` groups of one size, from the
    least uncertain on; empty groups, of which there are some if n < bins, are left out."""
    groups = [group for group in np.array_split(np.argsort(stated, kind="stable"), bins) if len(group)]
    return {
        "stated": [float(stated[group].mean()) for group in groups],
        "error": [float(error[group].mean()) for group in groups],
        "cases": [len(group) for group in groups],
    }


def calibration(stated: Float[np.ndarray, " n"], happened: Bool[np.ndarray, " n"], bins: int = 10) -> dict[str, Any]:
    """Does what is said to happen with probability p happen in a share p of the cases?

    Returns:
        `stated`, `happened`, `interval` (Wilson's), `cases`: of each non-empty bin of probability, `bins` of them of
        one width; `expected_error`, the mean distance of the first two, weighted by cases (Naeini et al. 2015);
        `brier`, the mean squared distance of probability and outcome; `brier_of_base_rate`, that of always
            predicting the mean.
    """
    which = np.minimum((stated * bins).astype(int), bins - 1)
    groups = [np.flatnonzero(which == index) for index in range(bins)]
    groups = [group for group in groups if len(group)]
    said, true = (np.array([values[group].mean() for group in groups]) for values in (stated, happened))
    cases, rate = np.array([len(group) for group in groups]), float(happened.mean())
    return {
        "stated": said.tolist(),
        "happened": true.tolist(),
        "interval": [wilson(int(happened[group].sum()), len(group)) for group in groups],
        "cases": cases.tolist(),
        "happened_in": int(happened.sum()),
        "of": len(happened),
        "expected_error": float((np.abs(said - true) * cases).sum() / cases.sum()),
        "brier": float(((stated - happened) ** 2).mean()),
        "brier_of_base_rate": rate * (1 - rate),
    }


def frechet_distance(one: Float[np.ndarray, "n d"], other: Float[np.ndarray, "m d"]) -> float:
    """Between the Gaussians that have the two sets' means and covariances (Heusel et al. 2017).

    The trace of the root of the covariances' product is the sum of the singular values of the product of the centred
    sets, so no root of an almost singular matrix has to be taken.
    """
    if min(len(one), len(other)) < 2:
        raise ValueError(f"got {len(one)} and {len(other)} rows; a covariance takes at least two")
    centred = [(rows - rows.mean(0)) / np.sqrt(len(rows) - 1) for rows in (one.astype(float), other.astype(float))]
    triangles = [
        np.asarray(np.linalg.qr(rows, mode="r")) for rows in centred
    ]  # at most d rows: n may be tens of thousands
    shared = np.linalg.svd(triangles[0] @ triangles[1].T, compute_uv=False).sum()
    spread = sum((rows**2).sum() for rows in centred)
    return float(((one.mean(0) - other.mean(0)) ** 2).sum() + spread - 2 * shared)
