"""Videos with what was done in them: the training data of PAN at full size.

A folder with `clips.jsonl`, one clip a line: `{"video": "kitchen.mp4", "actions": ["open the drawer", ...]}`. The
video's path is relative to the folder; after its first frame come as many frames for each action as a chunk has.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor


@dataclass(frozen=True)
class Clip:
    video: Path
    actions: tuple[str, ...]


def find_clips(folder: Path, least: int) -> list[Clip]:
    """The clips with at least this number of actions."""
    path = folder / "clips.jsonl"
    if not path.exists():
        raise FileNotFoundError(f"{folder} has no clips.jsonl, which names videos and their actions")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    clips = [Clip(folder / line["video"], tuple(line["actions"])) for line in lines]
    if missing := [str(clip.video) for clip in clips if not clip.video.exists()]:
        raise FileNotFoundError(f"{path} names {len(missing)} videos that are not there, such as {missing[0]}")
    found = [clip for clip in clips if len(clip.actions) >= least]
    if not found:
        raise ValueError(f"none of the {len(clips)} clips in {path} has {least} actions")
    return found


def read_frames(clip: Clip, first: int, count: int, height: int, width: int) -> UInt8[Tensor, "t h w c"]:
    """`count` frames from number `first` on, resized."""
    frames = []
    for index, frame in enumerate(iio.imiter(clip.video)):
        if index >= first:
            frames.append(frame)
        if len(frames) == count:
            break
    if len(frames) < count:
        raise ValueError(f"{clip.video} has no frames {first} to {first + count}, which its actions need")
    images = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
    if images.shape[2:] != (height, width):
        resized = F.interpolate(images.float(), (height, width), mode="bicubic", antialias=True)
        images = resized.round().clamp(0, 255).to(torch.uint8)
    return images.permute(0, 2, 3, 1)
