"""The motion prompt (SAMPO A3): points tracked through the observed frames, drawn as trajectories on the last one.

    overlay = motion_prompt(frames)        # uint8 [t, h, w, 3] -> [h, w, 3]

A single frame does not show speed. The frame with the trajectories drawn on it does, in a form that the tokenizer's
own encoder reads. Where nothing moved, or there is one frame only, the prompt is the last frame itself.
"""

# OpenCV is imported where it is needed: most worlds have no prompts, and `gym.make` should not wait for it.

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

GRID = 16
"""Points a side, spread evenly over the first frame."""
STILL = 0.012
"""A point that strays from where it began by less than this share of a frame's side is not drawn."""
ASTRAY = 0.012
"""Tracked back to the first frame, a point has to come this near to where it began."""


class Tracks(NamedTuple):
    points: Float[np.ndarray, "t n 2"]
    """Column and row in pixels, in each frame."""
    sure: Bool[np.ndarray, " n"]
    """Whether the tracker trusts a point through all of the frames."""


Tracker = Callable[[UInt8[np.ndarray, "t h w 3"]], Tracks]
"""Follows points from the first frame through the others."""


def motion_prompt(
    frames: UInt8[np.ndarray, "t h w 3"], tracker: Tracker | None = None, length: int = 0
) -> UInt8[np.ndarray, "h w 3"]:
    """The newest frame with the trajectories of what moved, in rainbow colours: red where a point was first, violet
    where it is now.

    Args:
        frames: oldest first.
        tracker: `lucas_kanade` by default.
        length: as many frames as a trajectory's colours are spread over; where fewer were seen, the first is taken to
            have stood still before.
    """
    overlay = frames[-1].copy()
    if len(frames) == 1:
        return overlay
    import cv2

    frames = np.concatenate([frames[:1].repeat(max(0, length - len(frames)), 0), frames])

    points, sure = (tracker or lucas_kanade)(frames)
    strayed = np.linalg.norm(points - points[:1], axis=-1).max(0)
    colours = rainbow(len(frames) - 1)
    for path in points[:, sure & (strayed > STILL * frames.shape[1])].swapaxes(0, 1):
        # Sixteenths of a pixel: at 64 pixels a slow thing moves by less than one.
        corners = np.round(path * 16).astype(np.int32)
        for begin, end, colour in zip(corners[:-1], corners[1:], colours, strict=True):
            cv2.line(overlay, begin.tolist(), end.tolist(), colour, 1, cv2.LINE_AA, shift=4)
    return overlay


def rainbow(count: int) -> list[tuple[int, int, int]]:
    """`count` colours from red to violet."""
    import cv2

    wheel = np.full((1, count, 3), 255, np.uint8)
    wheel[0, :, 0] = np.linspace(0, 140, count)  # hues; OpenCV's circle has 180 degrees
    return [tuple(colour) for colour in cv2.cvtColor(wheel, cv2.COLOR_HSV2RGB)[0].tolist()]


def lucas_kanade(frames: UInt8[np.ndarray, "t h w 3"]) -> Tracks:
    """Pyramidal Lucas-Kanade from OpenCV; nothing has to be downloaded.

    A point is trusted if it is found in every frame and, tracked back, comes home.
    """
    import cv2

    side = frames.shape[1]
    first = grid_points(*frames.shape[1:3])
    grey = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in frames]
    around = max(7, side // 8 | 1)

    def follow(images: list[np.ndarray], begin: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        paths, found = [begin], np.ones(len(begin), bool)
        for before, after in pairwise(images):
            points, status, _ = cv2.calcOpticalFlowPyrLK(
                before,
                after,
                paths[-1],
                np.empty_like(begin),
                winSize=(around, around),
                maxLevel=2,
                minEigThreshold=1e-3,
            )
            paths.append(points)
            found &= status[:, 0] == 1
        return paths, found

    paths, found = follow(grey, first)
    home, found_back = follow(grey[::-1], paths[-1])
    near = np.linalg.norm(home[-1] - first, axis=-1) < ASTRAY * side
    return Tracks(np.stack(paths), found & found_back & near)


class CoTracker:
    """CoTracker3, which SAMPO uses: `world.tracker = CoTracker(model)`.

    It trusts and draws other points than `lucas_kanade`, which the trainings here use.

    Args:
        model: what `torch.hub.load("facebookresearch/co-tracker", "cotracker3_offline")` returns: from float video
            [b, t, 3, h, w] in 0 to 255 and a `grid_size` to tracks [b, t, n, 2] and visibility [b, t, n].
    """

    def __init__(self, model: torch.nn.Module):
        self.model = model

    @torch.no_grad()
    def __call__(self, frames: UInt8[np.ndarray, "t h w 3"]) -> Tracks:
        device = next((parameter.device for parameter in self.model.parameters()), torch.device("cpu"))
        video = torch.from_numpy(np.ascontiguousarray(frames)).to(device).permute(0, 3, 1, 2).float()[None]
        tracks, visible = self.model(video, grid_size=GRID)
        return Tracks(tracks[0].float().cpu().numpy(), (visible[0] > 0.5).all(0).flatten().cpu().numpy())


def grid_points(height: int, width: int) -> Float[np.ndarray, "n 2"]:
    """Column and row of the points that are tracked."""
    rows = (np.arange(GRID) + 0.5) * height / GRID - 0.5
    columns = (np.arange(GRID) + 0.5) * width / GRID - 0.5
    return np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 2).astype(np.float32)
