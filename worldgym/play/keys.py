"""Arrow keys for `gymnasium.utils.play`, in worlds whose actions are two numbers."""

from itertools import combinations

import numpy as np

STILL = np.zeros(2, np.float32)
"""What no key means: `play(..., noop=STILL)`."""
ARROWS = {
    # pygame's key codes, which are SDL's and never change
    1073741903: (1.0, 0.0),  # right
    1073741904: (-1.0, 0.0),  # left
    1073741905: (0.0, -1.0),  # down
    1073741906: (0.0, 1.0),  # up
}


def arrow_keys() -> dict[tuple[int, ...], np.ndarray]:
    """Key combinations to float32 [2] actions: the arrow keys, alone and two at a time."""
    held: list[tuple[int, ...]] = [*((key,) for key in ARROWS), *combinations(ARROWS, 2)]
    return {keys: np.sum([ARROWS[key] for key in keys], 0).astype(np.float32) for keys in held}
