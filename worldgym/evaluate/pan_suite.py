"""PAN's evaluation (arXiv 2511.09057, section 7.3) with a simulator for a judge, where the paper has a chat model.

    rows = play(world, rounds, judges)         # the dream, the truth, and one frame repeated
    metrics = evaluate_rows(rows, rounds, judges)

Sentences are said one after the other, a round each, and nothing real is seen after the first frame. All rows are
judged by their pixels alone: the truth's own row says what the judges can see, the repeated frame what a figure is
worth that nothing moves for. Every interval is a 95% bootstrap interval over episodes.

Of the paper's figures five are here. Structured planning is in `worldgym.planners.reasoning`; open-ended planning, a
chat model's over pictures of a robot at work, has no counterpart on a table.

    agent         after one sentence the named object went the commanded way, counted where it truly does
    environment   after the same sentence each other object is where physics puts it under the *same actions*: those
                  that the dream itself chose, replayed in the simulator
    smoothness    optical flow within a round, by WR-Arena's formula (the benchmark of PAN's authors); the truth's is
                  the mark, and more is not better
    consistency   share of rounds in all frames of which everything is there, nothing new is, and the background is as
                  it was
    step-wise     of the true outcomes of four sentences, the one that the dream's last frame is nearest to is its own
                  sentence's; one in four by chance

What differs from the paper, and why, is in docs/decisions.md.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, UInt8
from tqdm import tqdm

from ..metrics import bootstrap
from ..world import WorldModel
from .fidelity import CHUNK, Locate, went_along

ROUNDS = 10
"""Sentences said after each other, as in the paper."""
CANDIDATES = 4
"""True outcomes to choose from, as in the paper."""
MOVES = 0.5
"""Pixels a frame from which on flow is motion."""
FLOW_WINDOW = 9
"""Pixels that flow is averaged over, about an object's width: the controlled object then has its true speed."""
CHANGES = 8
"""Grey levels from which on a pixel changes."""


class Rounds(NamedTuple):
    """r sentences of n frames each, said on b held-out tables, and what truly came of them."""

    seeds: Int[np.ndarray, " b"]
    """The simulator's, for the start."""
    sentences: list[list[str]]
    """[b][r]."""
    frames: UInt8[np.ndarray, "b t h w c"]
    """t = r * n + 1: the start, then all rounds."""
    positions: Float32[np.ndarray, "b t k 2"]
    """Of all objects, the actuated one first."""
    objects: Int[np.ndarray, " b"]
    """Row, in `positions`, of the object that the first sentence names."""
    directions: Float[np.ndarray, "b 2"]
    """Unit vectors: where the first sentence wants it."""
    outcomes: Float32[np.ndarray, "b o k 2"]
    """Positions after the first sentence, then after o - 1 others from the same start; nan where fewer differ."""

    @property
    def length(self) -> int:
        """Frames of a round."""
        return (self.frames.shape[1] - 1) // len(self.sentences[0])


class Judges(NamedTuple):
    """What a simulator knows that a picture does not say by itself."""

    locate: Locate
    intact: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]
    """Frames [t, h, w, 3] and how they began [h, w, 3] -> what is as it should be, bool [t] each."""
    replay: Callable[[np.ndarray, np.ndarray], np.ndarray]
    """Seeds [b] and actions [b, n, a] -> positions [b, k, 2] that physics leads to."""
    enough: float
    """A shorter way of the named object does not count as having moved."""
    near: float
    """Half an object's width: an object further off than this is somewhere else."""


class Row(NamedTuple):
    """What is judged."""

    frames: UInt8[np.ndarray, "b t h w c"]
    """As in `Rounds`; the first is real."""
    truth: Float32[np.ndarray, "b k 2"]
    """Where physics puts everything by the end of the first round, under the actions taken here."""


def play(world: WorldModel, rounds: Rounds, judges: Judges) -> dict[str, Row]:
    """The rows by name: "dream", and the truth and the first frame repeated, which belong to no world."""
    frames, actions = dream_rounds(world, rounds)
    true = rounds.positions[:, rounds.length]
    return {
        "truth": Row(rounds.frames, true),
        "dream": Row(frames, judges.replay(rounds.seeds, actions)),
        "repeat": Row(np.broadcast_to(rounds.frames[:, :1], rounds.frames.shape), true),
    }


@torch.no_grad()
def dream_rounds(
    world: WorldModel, rounds: Rounds
) -> tuple[UInt8[np.ndarray, "b t h w c"], Float32[np.ndarray, "b n a"]]:
    """Dream all rounds from the first frame: the frames, and the actions that the first sentence became."""
    if world.config.frames_per_action != rounds.length:
        raise ValueError(
            f"the rounds have {rounds.length} frames; a sentence of {world.config.name!r} covers "
            f"{world.config.frames_per_action}"
        )
    chunks = []
    for begin in tqdm(range(0, len(rounds.seeds), CHUNK), desc="dreaming", unit="chunk"):
        rows = slice(begin, begin + CHUNK)
        state, frames, actions = world.start(rounds.frames[rows, :1]), [rounds.frames[rows, 0]], []
        for said in zip(*rounds.sentences[rows], strict=True):
            read = world.read(list(said))
            for _ in range(rounds.length):
                action = world.act(state, read)
                state, _ = world.step(state, action)
                frames.append(world.render(state).cpu().numpy())
                actions.append(action.cpu().numpy())
        chunks.append((np.stack(frames, 1), np.stack(actions[: rounds.length], 1)))
    seen, done = zip(*chunks, strict=True)
    return np.concatenate(seen), np.concatenate(done)


def evaluate_rows(rows: dict[str, Row], rounds: Rounds, judges: Judges) -> dict[str, Any]:
    """The five figures of each row; `value`, `interval`, and `cases`, of which each is a share or a mean."""
    return {
        "episodes": len(rounds.seeds),
        "seeds": [int(rounds.seeds.min()), int(rounds.seeds.max())],
        "rounds": len(rounds.sentences[0]),
        "frames_per_round": rounds.length,
        "candidates": rounds.outcomes.shape[1],
        "rows": {name: _figures(row, rounds, judges) for name, row in rows.items()},
    }


def _figures(row: Row, rounds: Rounds, judges: Judges) -> dict[str, Any]:
    length, count = rounds.length, len(rounds.sentences[0])
    before, after = judges.locate(row.frames[:, 0]), judges.locate(row.frames[:, length])
    asked = rounds.objects, rounds.directions
    moves = went_along(rounds.positions[:, 0], rounds.positions[:, length], *asked) > judges.enough
    obeyed = went_along(before, after, *asked) > judges.enough  # of a vanished object nan, which is no larger
    # Everything but the actuated object and the named one; each table has as many.
    others = np.array([[k for k in range(1, after.shape[1]) if k != named] for named in rounds.objects])
    seen, true, begun = (
        np.take_along_axis(one, others[..., None], 1) for one in (after, row.truth, rounds.positions[:, 0])
    )
    right = np.linalg.norm(seen - true, axis=-1) < judges.near
    pushed = np.linalg.norm(true - begun, axis=-1) > judges.near
    chosen = nearest(after, rounds.outcomes)
    whole = [judges.intact(video[1:], video[0]) for video in row.frames]
    held = {name: np.stack([one[name] for one in whole]).reshape(-1, count, length).all(-1) for name in whole[0]}
    consistent = np.logical_and.reduce(list(held.values()))
    smooth = np.array([[smoothness(one) for one in split(video, count)] for video in row.frames])
    return {
        "agent": _mean(obeyed[moves]),
        "environment": _mean(right),
        "environment_where_pushed": _mean(right[pushed]),
        "smoothness": {**_mean(smooth), "by_round": smooth.mean(0).tolist()},
        "consistency": {
            **_mean(consistent),
            "by_round": consistent.mean(0).tolist(),
            "by_round_interval": [bootstrap(np.mean, one) for one in consistent.T],
            "parts": {name: float(one.mean()) for name, one in held.items()},
        },
        "step_wise": _mean(chosen[~np.isnan(rounds.outcomes).any((1, 2, 3))]),
    }


def _mean(values: np.ndarray) -> dict[str, Any]:
    """The mean of all values and its interval, which resamples rows: episodes. Without values both are None."""
    if not values.size:
        return {"value": None, "interval": None, "cases": 0}
    return {"value": float(values.mean()), "interval": bootstrap(np.mean, values), "cases": values.size}


def nearest(found: Float[np.ndarray, "b k 2"], outcomes: Float[np.ndarray, "b o k 2"]) -> Bool[np.ndarray, " b"]:
    """Is the first outcome the nearest, by the summed distance of the objects that were found?"""
    away = np.nansum(np.linalg.norm(found[:, None] - outcomes, axis=-1), -1)
    return away[:, 0] < away[:, 1:].min(1)


def split(video: UInt8[np.ndarray, "t h w c"], rounds: int) -> list[UInt8[np.ndarray, "n h w c"]]:
    """Rounds of a video; each begins with the frame that the one before it ended with."""
    length = (len(video) - 1) // rounds
    return [video[begin : begin + length + 1] for begin in range(0, rounds * length, length)]


def smoothness(video: UInt8[np.ndarray, "n h w 3"]) -> float:
    """Median speed times exp(-median acceleration) of a round's optical flow, of the pixels that move; 0 if none does.

    WR-Arena's figure (`smoothness_eval_scripts`, with its lambda of 1; the paper's text leaves the speed out, and would
    so call a still picture perfect): medians over frames and pixels of a pixel's speed, px a frame, and of how much
    that differs from the frame before, px a frame^2, which is 0 for the first. Its scenes have moving cameras, and it
    counts all pixels; under a fixed camera most stand still, and so does their median, in reality too. Here a pixel
    counts when it is faster than `MOVES` in this frame or was in the one before.
    """
    speeds = flow_speeds(video)
    changes = np.abs(np.diff(speeds, axis=0, prepend=speeds[:1]))
    fast = speeds > MOVES
    moving = fast | np.concatenate([fast[:1], fast[:-1]])
    return float(np.median(speeds[moving]) * np.exp(-np.median(changes[moving]))) if moving.any() else 0.0


def flow_speeds(video: UInt8[np.ndarray, "n h w 3"]) -> Float32[np.ndarray, "n-1 h w"]:
    """Length of the optical flow from each frame to the next, px, by Farneback's method (2003)."""
    import cv2

    near, speeds = np.ones((FLOW_WINDOW, FLOW_WINDOW), np.uint8), []
    grey = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in video]
    for before, after in itertools.pairwise(grey):
        flow = cv2.calcOpticalFlowFarneback(
            before, after, np.empty((*before.shape, 2), np.float32),
            pyr_scale=0.5, levels=3, winsize=FLOW_WINDOW, iterations=3, poly_n=5, poly_sigma=1.1, flags=0,
        )  # fmt: skip
        # Along straight edges the method finds flow between two equal pictures: nothing moves where nothing changes.
        changed = cv2.dilate((cv2.absdiff(before, after) > CHANGES).astype(np.uint8), near)
        speeds.append(np.linalg.norm(flow, axis=-1) * changed)
    return np.stack(speeds).astype(np.float32)
