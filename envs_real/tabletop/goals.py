"""When the Tabletop is as a pose has it. The tolerances are those of CLEAR-LeWM for PushT, as shares of the table's
width: 20 and 10 of 512 pixels. How blocks are turned does not count."""

import numpy as np

from ..goals import Rule

MODERATE, STRICT = 0.08, 0.04
"""Distances on a table that is 2 wide."""


def everything_off(poses: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Of the pusher and the blocks, the one that is furthest off."""
    return np.asarray(np.maximum(_distance(poses[..., :2], goal[:2]), _blocks(poses, goal)) / MODERATE)


def blocks_off(poses: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The same of the blocks alone."""
    return np.asarray(_blocks(poses, goal) / STRICT)


def _blocks(poses: np.ndarray, goal: np.ndarray) -> np.ndarray:
    places, wanted = (part[..., 2:].reshape(*part.shape[:-1], -1, 3)[..., :2] for part in (poses, goal))
    return np.asarray(_distance(places, wanted).max(-1))


def _distance(places: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(places - wanted, axis=-1))


RULES = {
    "moderate": Rule(everything_off, 1, f"the pusher and every block are within {MODERATE}, of a table 2 wide"),
    "strict": Rule(blocks_off, 3, f"every block is within {STRICT} for three steps, wherever the pusher is"),
}
