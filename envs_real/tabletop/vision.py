"""Objects found in pictures of the table by colour alone."""

import numpy as np

from .scene import PALETTE, PUSHER_RGB, VIEW_HALF, WALL_RGB, Variation


def locate(frames: np.ndarray, colors: tuple[str, ...] = ("red", "blue")) -> np.ndarray:
    """Object positions found in pictures by colour alone, for judging dreams.

    Args:
        frames: uint8 [..., h, w, 3] seen by the nominal camera.

    Returns:
        float32 [..., 1 + blocks, 2], pusher first: the mean place of the pixels nearest to the object's colour,
        nan where fewer than three pixels have it.
    """
    return middles(label(frames, colors), 1 + len(colors))


def label(frames: np.ndarray, colors: tuple[str, ...] = ("red", "blue")) -> np.ndarray:
    """What each pixel shows, by the nearest colour: int8 [..., h, w].

    Args:
        frames: uint8 [..., h, w, 3] of the nominal light.

    Returns:
        0 for the pusher, 1 to k for the blocks in the order of `colors`, k + 1 for the table, k + 2 for the wall; -1
        where none of these colours is near.
    """
    image = frames.astype(np.float32) / 255
    # A frame is lit evenly, so rendered colours are the named ones times one brightness.
    named = [PUSHER_RGB, *(PALETTE[color] for color in colors), Variation().table_rgb, WALL_RGB]
    known = np.asarray(named, np.float32)
    away = (known**2).sum(-1) - 2 * image @ known.T  # squared distances, less what they share: the pixel's own length
    nearest = away.argmin(-1)
    distance = np.take_along_axis(away, nearest[..., None], -1)[..., 0] + np.einsum("...c,...c->...", image, image)
    return np.where(distance < 0.1, nearest, -1).astype(np.int8)


def middles(shown: np.ndarray, objects: int) -> np.ndarray:
    """Mean place of the pixels of each of the first labels: float32 [..., objects, 2], nan of fewer than three.

    Args:
        shown: labels [..., h, w].
    """
    centres = pixel_places(shown.shape[-1])
    found = np.full((*shown.shape[:-2], objects, 2), np.nan, np.float32)
    for index in range(objects):
        mask = (shown == index).astype(np.float32)
        count = mask.sum((-2, -1))
        with np.errstate(invalid="ignore", divide="ignore"):
            x, y = (mask.sum(-2) @ centres) / count, (mask.sum(-1) @ -centres) / count
        found[..., index, :] = np.where((count >= 3)[..., None], np.stack([x, y], -1), np.nan)
    return found


def pixel_places(size: int) -> np.ndarray:
    """x of the pixels of a row, from the left, or minus y of those of a column, from the top: [size]."""
    return ((np.arange(size) + 0.5) / size * 2 - 1) * VIEW_HALF
