"""Videos, uint8 [t, h, w, 3] each: side by side, enlarged, and as files."""

from collections.abc import Sequence
from pathlib import Path

import imageio.v3 as iio
import numpy as np


def side_by_side(videos: Sequence[np.ndarray], gap: int = 0) -> np.ndarray:
    """Videos of one height in a row, `gap` white pixels apart; those that are over stand still."""
    return _joined(videos, gap, axis=2)


def stacked(videos: Sequence[np.ndarray], gap: int = 0) -> np.ndarray:
    """Videos of one width, the first on top, `gap` white pixels apart; those that are over stand still."""
    return _joined(videos, gap, axis=1)


def enlarged(video: np.ndarray, scale: int = 2) -> np.ndarray:
    """Each pixel as `scale` x `scale`."""
    return video.repeat(scale, 1).repeat(scale, 2)


def gif(video: np.ndarray, frames_per_second: int = 5) -> bytes:
    """A GIF that loops."""
    return iio.imwrite("<bytes>", video, extension=".gif", duration=1000 // frames_per_second, loop=0)


def write_video(path: Path, video: np.ndarray, frames_per_second: int = 5) -> None:
    """Write a GIF that loops, or an MP4."""
    check_video(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gif":
        path.write_bytes(gif(video, frames_per_second))
    else:
        iio.imwrite(path, video, fps=frames_per_second)


def check_video(path: Path) -> None:
    """Before anything long is done that ends in a video."""
    if path.suffix not in (".gif", ".mp4"):
        raise ValueError(f"cannot write a video {path.name!r}; the name must end in .gif or .mp4")


def _joined(videos: Sequence[np.ndarray], gap: int, axis: int) -> np.ndarray:
    longest = max(len(video) for video in videos)
    parts: list[np.ndarray] = []
    for video in videos:
        shape = [longest, *video.shape[1:]]
        shape[axis] = gap
        parts += [np.concatenate([video, video[-1:].repeat(longest - len(video), 0)]), np.full(shape, 255, np.uint8)]
    return np.concatenate(parts[:-1], axis)
