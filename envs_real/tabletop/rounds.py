"""PAN's evaluation on the Tabletop: what is said, what truly comes of it, and what a picture of the table must show."""

import numpy as np
import torch
import torch.nn.functional as F

from worldgym.evaluate.pan_suite import CANDIDATES, ROUNDS, Judges, Rounds

from .cases import ENOUGH, HELD_OUT, carry_out, case_env, case_seed, pushes
from .scene import Variation
from .tasks import BLOCK_HALF
from .vision import label, locate, middles, pixel_places

AREA = (0.5, 1.5)
"""An object is whole while its number of pixels is between these multiples of what it was at first."""
REACH = 1.5 * BLOCK_HALF
"""No pixel of an object is further from its middle than this: a corner of a box, and a pixel more."""
ASTRAY = 0.1
"""Share of a colour's pixels that may be further away, of edges that blend into that colour."""
MARGIN = 2
"""Pixels round objects that are neither theirs nor the background's."""
CHANGED = 25
"""Grey levels by which a pixel of the background differs from what it was."""
STAINED = 0.01
"""Share of the background that may have changed."""


def sentence_rounds(count: int, seed: int) -> Rounds:
    """`count` random starts, those of `sentence_cases` and with its sentences; then nine more pushes each, at random.

    The other outcomes are those of three other pushes from the same start, drawn from the ones that leave something
    further than half a block from where the said one does.
    """
    env, said = case_env(), []
    known = pushes(env.colors)
    frames, positions, outcomes = [], [], []
    for index in range(count):
        random = np.random.default_rng([HELD_OUT, seed + index])
        frame, info = env.reset(seed=case_seed(seed, index))
        start, ends = env.snapshot(), []
        for push in known:
            env.restore(start)
            for _ in carry_out(env, push.sentence):
                pass
            ends.append(env.positions)
        env.restore(start)
        first = index % len(known)
        said.append([known[which] for which in (first, *random.integers(len(known), size=ROUNDS - 1))])
        outcomes.append(_to_choose_from(np.stack(ends), first, random))
        shots, places = [frame], [info["positions"]]
        for push in said[-1]:
            for _ in carry_out(env, push.sentence):
                shots.append(env.render())
                places.append(env.positions)
        frames.append(np.stack(shots))
        positions.append(np.stack(places))
    env.close()
    return Rounds(
        np.array([case_seed(seed, index) for index in range(count)]),
        [[push.sentence for push in row] for row in said],
        np.stack(frames),
        np.stack(positions),
        np.array([row[0].block for row in said]),
        np.array([row[0].direction for row in said]),
        np.stack(outcomes),
    )


def _to_choose_from(ends: np.ndarray, first: int, random: np.random.Generator) -> np.ndarray:
    """[CANDIDATES, k, 2] of the outcomes [m, k, 2] of all pushes; nan where too few of them differ."""
    apart = np.linalg.norm(ends - ends[first], axis=-1).max(-1) > BLOCK_HALF
    others = random.permutation(np.flatnonzero(apart))[: CANDIDATES - 1]
    if len(others) < CANDIDATES - 1:
        return np.full((CANDIDATES, *ends.shape[1:]), np.nan, np.float32)
    return ends[[first, *others]]


def judges() -> Judges:
    return Judges(locate, intact, replay, ENOUGH, BLOCK_HALF)


def replay(seeds: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Positions [b, k, 2] after the actions [b, n, 2] from the starts of the seeds [b]."""
    env, positions = case_env(), []
    for seed, sequence in zip(seeds, actions, strict=True):
        env.reset(seed=int(seed))
        for action in sequence:
            env.advance(action)
        positions.append(env.positions)
    env.close()
    return np.stack(positions)


def intact(frames: np.ndarray, first: np.ndarray) -> dict[str, np.ndarray]:
    """Is the table as it was, but for where things are? bool [t] each.

    Args:
        frames: uint8 [t, h, w, 3], seen by the nominal camera.
        first: uint8 [h, w, 3], how it began.

    Returns:
        "all there": each object shows about as many pixels as at first.
        "nothing appeared": no colour of an object is anywhere but where the object is.
        "background": where it was seen at first and is no object now, it has the colour it had.
    """
    objects, places = range(1 + len(Variation().colors)), pixel_places(frames.shape[-2])
    shown, begun = label(frames), label(first)
    found = middles(shown, len(objects))
    there, single = np.ones((2, len(frames)), bool)
    for index in objects:
        mask = shown == index
        count, whole = mask.sum((1, 2)), (begun == index).sum()
        there &= (count >= AREA[0] * whole) & (count <= AREA[1] * whole)
        x, y = (found[:, index, axis, None, None] for axis in (0, 1))
        astray = mask & (np.hypot(places - x, -places[:, None] - y) > REACH)
        single &= astray.sum((1, 2)) <= ASTRAY * count
    background = ~_grown(np.isin(shown, objects)) & ~_grown(np.isin(begun, objects)[None])
    changed = (np.abs(frames.astype(np.int16) - first) > CHANGED).any(-1) & background
    clean = changed.sum((1, 2)) <= STAINED * background.sum((1, 2))
    return {"all there": there, "nothing appeared": single, "background": clean}


def _grown(mask: np.ndarray) -> np.ndarray:
    """bool [t, h, w], true within MARGIN pixels of where it was."""
    pixels = torch.from_numpy(mask).float()[:, None]
    return F.max_pool2d(pixels, 2 * MARGIN + 1, 1, MARGIN)[:, 0].bool().numpy()
