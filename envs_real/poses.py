"""A pose: where everything is, without its motion. What twins are put into, and what recorders keep of each frame."""

from typing import Any

import numpy as np


def read_pose(pose: Any, like: np.ndarray) -> np.ndarray:
    """A pose as a twin takes it, float64 [p]; a ValueError if it is no pose of that twin.

    Args:
        like: any pose of the twin.
    """
    found = np.asarray(pose)
    if found.shape != like.shape or found.dtype.kind != "f" or not np.isfinite(found).all():
        raise ValueError(f"the pose is {found.dtype} {found.shape}; this twin takes {like.shape} finite floats")
    return found.astype(np.float64)
