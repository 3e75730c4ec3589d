"""How close a dream is to what happened."""

import numpy as np
from jaxtyping import Float, UInt8


def psnr(predicted: UInt8[np.ndarray, "*b h w c"], real: UInt8[np.ndarray, "*b h w c"]) -> Float[np.ndarray, "*b"]:
    """Peak signal-to-noise ratio of each picture, dB; identical pictures count as 60 dB."""
    error = (predicted.astype(np.float32) - real.astype(np.float32)) ** 2
    return -10 * np.log10(np.maximum(error.mean((-3, -2, -1)) / 255**2, 1e-6))


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95% interval of a success rate (Wilson's score)."""
    if trials == 0:
        return 0.0, 1.0
    z, rate = 1.96, successes / trials
    centre = rate + z * z / (2 * trials)
    half = z * np.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials**2))
    return float((centre - half) / (1 + z * z / trials)), float((centre + half) / (1 + z * z / trials))


def rank_correlation(one: Float[np.ndarray, " n"], other: Float[np.ndarray, " n"]) -> float:
    """Spearman's: the correlation of the ranks."""
    return correlation(np.argsort(np.argsort(one)).astype(float), np.argsort(np.argsort(other)).astype(float))


def correlation(one: Float[np.ndarray, " n"], other: Float[np.ndarray, " n"]) -> float:
    """Pearson's."""
    return float(np.corrcoef(one, other)[0, 1])
