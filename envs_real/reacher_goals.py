"""When the Reacher has reached a pose, by CLEAR-LeWM's two rules for dm_control's Reacher.

Both arms have a shoulder that turns round and round and an elbow with limits, so the numbers are the same; Gymnasium's
links are 0.1 and 0.11 m long, dm_control's 0.12 m each.
"""

import numpy as np

from .goals import Rule
from .reacher import ARM

JOINT = 0.05
"""rad."""
TIP = 0.01
"""m."""


def joints_off(poses: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The larger error of the two joints. The shoulder's is taken the short way round; the elbow cannot turn round."""
    shoulder, elbow = np.moveaxis(poses[..., :2] - goal[:2], -1, 0)
    return np.asarray(np.maximum(np.abs((shoulder + np.pi) % (2 * np.pi) - np.pi), np.abs(elbow)) / JOINT)


def tip_off(poses: np.ndarray, goal: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(tip(poses) - tip(goal), axis=-1) / TIP)


def tip(poses: np.ndarray) -> np.ndarray:
    """Where the arm ends, [..., 2], metres."""
    first, both = poses[..., 0], poses[..., 0] + poses[..., 1]
    joints = np.stack([first, both], -1)
    return np.stack([np.cos(joints) @ ARM, np.sin(joints) @ ARM], -1)


RULES = {
    "moderate": Rule(joints_off, 1, f"shoulder, the short way round, and elbow are within {JOINT} rad"),
    "strict": Rule(tip_off, 2, f"the tip is within {TIP} m for two steps"),
}
