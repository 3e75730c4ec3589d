"""How true a dream is: open-loop dreams of held-out episodes against what really happened, step by step.

    dreamed, truth = dream(world, real, seed), unseen(world, real)
    metrics = evaluate_dreams(world, truth, dreamed)                          # any world
    metrics |= evaluate_objects(dreamed.frames, positions, locate, width)     # where something finds the objects
    metrics |= evaluate_perception(world, real, dreamed, weights, samples)    # LPIPS, FVD, best of many

Every interval is a 95% bootstrap interval over episodes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from tqdm import tqdm

from ..actions import read_codec
from ..config import WorldConfig
from ..data import Episodes, Segment, last_row, segments_at
from ..errors import UserError
from ..metrics import (
    bootstrap,
    calibration,
    correlation,
    frechet_distance,
    psnr,
    rank_correlation,
    reliability,
    ssim,
    wilson,
)
from ..model.pixels import to_float, to_uint8
from ..model.processes import several, share, whole
from ..world import WorldModel
from .perceptual import Lpips, VideoFeatures
from .video import enlarged, side_by_side, stacked, write_video

Locate = Callable[[np.ndarray], np.ndarray]
"""Object positions [..., k, 2] found in frames [..., h, w, 3], nan where an object isn't seen."""

CHUNK = 64
"""Dreams that run side by side."""
MOVED = 0.05
"""An object counts as moved once it is this far from where it began."""
NEARLY = 2
"""Steps by which an end may be foreseen too early or too late and still count."""
NO_WEIGHTS = "not measured: no weights"


@dataclass(frozen=True)
class Dreamed:
    """Dreams of b segments, t steps each."""

    frames: np.ndarray
    """uint8 [b, t, h, w, 3], without the real frames that they began from."""
    rewards: np.ndarray
    """float64 [b, t]."""
    success: np.ndarray
    """float64 [b, t], probability."""
    terminated: np.ndarray
    """float64 [b, t], probability."""
    uncertainty: np.ndarray
    """float64 [b, t], nats; not numbers where they were imagined."""
    asked: np.ndarray
    """int64 [b], the instruction that each was judged by."""


def check_recording(world: WorldConfig, dataset: str, data: Episodes) -> None:
    """A ValueError if the recording cannot be of this world."""
    size = world.tokenizer.resolution
    found = data.frames.shape[1:], data.actions.shape[1], data.instructions
    if found != ((size, size, 3), world.action_size, world.instructions):
        raise ValueError(
            f"{dataset} has frames {found[0]}, actions of {found[1]} and {len(found[2])} instructions "
            f"({found[2][0]!r}, ...); the world {world.name!r} has {(size, size, 3)}, {world.action_size} and "
            f"{len(world.instructions)} ({world.instructions[0]!r}, ...): it was trained on something else"
        )
    if (acted := read_codec(data.action_space, world.action_size)) != world.codec:
        raise ValueError(f"{dataset} has actions in {acted.space}; the world {world.name!r} takes {world.codec.space}")


def open_questions(real: Segment) -> list[str]:
    """What a recording cannot show about the dreams of it, a sentence each."""
    questions = [
        "Where objects are: nothing finds the objects of this world in its pictures, so there are no position errors "
        "and no share of objects kept.",
        "Sentences: what a sentence should do is known of the Tabletop's twin alone.",
        "What the recorded behaviour never did: the test split was played as the training split was.",
    ]
    if not real.successes.any():
        questions.append(
            "Whether success is recognised: none was recorded in these stretches, so its calibration shows false "
            "alarms alone."
        )
    if not real.terminations.any():
        questions.append(
            "Whether the end of an episode is recognised: none ended in these stretches, so its calibration shows "
            "false alarms alone."
        )
    if np.ptp(real.rewards) == 0:
        questions.append("Whether rewards are right: they are all the same here, so nothing correlates.")
    return questions


def held_out_segments(data: Episodes, count: int, steps: int, seed: int) -> Segment:
    """A stretch of `steps` steps from each of up to `count` episodes of the test split.

    One from each episode, because intervals resample episodes.
    """
    random, episodes = np.random.default_rng(seed), data.split("test")
    lengths = np.diff(data.starts)[episodes]
    fitting = random.permutation(episodes[lengths > steps])[:count]
    if len(fitting) < 4:
        raise ValueError(
            f"{len(fitting)} of the {len(episodes)} episodes of the test split have {steps} steps; evaluating takes at "
            "least 4. One recorded episode in 20 is for testing: record more, or ask for fewer --steps"
        )
    room = data.starts[fitting + 1] - data.starts[fitting] - steps
    return segments_at(data, data.starts[fitting] + random.integers(room), steps)


def unseen(world: WorldModel, real: Segment) -> Segment:
    """Of segments that are dreamed, what the dreams are compared with, and the last frame that was seen before it."""
    return real.since(world.config.dynamics.observed - 1)


def dream(
    world: WorldModel,
    real: Segment,
    seed: int,
    temperature: float = 0.0,
    shown: int | None = None,
    drawn: bool = True,
) -> Dreamed:
    """Dream every segment with its actions, from its first frame, or from several in a world with motion.

    Processes in a group (`worldgym.model.processes.joined`) share the segments; all of them get all dreams.

    Args:
        seed: picks the instruction that each dream is judged by, and the chances of those of a temperature above 0.
        shown: frames that it begins from; as many as the world has `observed` by default.
        drawn: draw every frame; else they are imagined in the recurrent state.

    Raises:
        UserError: there are more processes than segments.
    """
    if len(real.actions) < several():
        raise UserError(f"{several()} processes can't share {len(real.actions)} episodes; ask for more, or start fewer")
    shown = world.config.dynamics.observed if shown is None else shown
    random, count = np.random.default_rng(seed), len(real.actions)
    asked = random.integers(len(world.config.instructions), size=count)
    seeds = random.integers(2**31, size=count)
    mine = share(count)
    chunks = [
        _dream(world, real, asked, seeds, temperature, shown, drawn, mine[begin : begin + CHUNK])
        for begin in range(0, len(mine), CHUNK)
    ]
    frames, rewards, success, terminated, uncertainty = (
        whole(np.concatenate(parts), count) for parts in zip(*chunks, strict=True)
    )
    return Dreamed(frames, rewards, success, terminated, uncertainty, asked)


def _dream(
    world: WorldModel,
    real: Segment,
    asked: np.ndarray,
    seeds: np.ndarray,
    temperature: float,
    seen: int,
    drawn: bool,
    rows: np.ndarray,
) -> tuple[np.ndarray, ...]:
    instructions = [world.config.instructions[index] for index in asked[rows]]
    state = world.start(
        real.frames[rows, :seen], real.actions[rows, : seen - 1], seeds[rows], instructions, temperature
    )
    frames, outcomes = [], []
    for when in range(seen - 1, real.actions.shape[1]):
        state, outcome = world.step(state, real.actions[rows, when], drawn)
        frames.append(world.render(state).cpu().numpy())
        said = outcome.reward, outcome.success, outcome.terminated, outcome.uncertainty
        outcomes.append(torch.stack(said).cpu().numpy())
    return np.stack(frames, 1), *np.stack(outcomes, -1).astype(np.float64)


def evaluate_dreams(world: WorldModel, real: Segment, dreamed: Dreamed) -> dict[str, Any]:
    """Pictures, outcomes and the world's own doubts; lists have one entry for each step.

    Args:
        real: what the dreams are of, as `unseen` gives it.
    """
    steps, truth = real.actions.shape[1], real.frames[:, 1:]
    first = np.broadcast_to(real.frames[:, :1], truth.shape)
    column = dreamed.asked[:, None, None]
    rewards, success, terminated = (
        np.take_along_axis(one, column, -1)[..., 0] for one in (real.rewards, real.successes, real.terminations)
    )
    quality, repeat = psnr(dreamed.frames, truth), psnr(first, truth)
    structure = ssim(dreamed.frames, truth)
    error = 255 * 10 ** (-quality.astype(np.float64) / 20)
    return {
        "episodes": len(truth),
        "reconstruction_psnr": float(psnr(reconstruct(world, real), truth).mean()),
        "psnr": quality.mean(0).tolist(),
        "psnr_interval": [bootstrap(np.mean, one) for one in quality.T],
        "psnr_repeat_context": repeat.mean(0).tolist(),
        "psnr_gain": (quality - repeat).mean(0).tolist(),
        "psnr_gain_interval": [bootstrap(np.mean, one) for one in (quality - repeat).T],
        "ssim": structure.mean(0).tolist(),
        "ssim_interval": [bootstrap(np.mean, one) for one in structure.T],
        "ssim_repeat_context": ssim(first, truth).mean(0).tolist(),
        "reward_correlation": [correlation(dreamed.rewards[:, t], rewards[:, t]) for t in range(steps)],
        "reward_correlation_interval": [
            bootstrap(correlation, dreamed.rewards[:, t], rewards[:, t]) for t in range(steps)
        ],
        "reward_correlation_all_steps": correlation(dreamed.rewards.flatten(), rewards.flatten()),
        "reward_correlation_all_steps_interval": bootstrap(_over_all(correlation), dreamed.rewards, rewards),
        "uncertainty_rank_correlation": {
            "token_entropy": rank_correlation(dreamed.uncertainty.flatten(), error.flatten())
        },
        "uncertainty": {
            "rank_correlation_all_steps_interval": bootstrap(_over_all(rank_correlation), dreamed.uncertainty, error),
            "rank_correlation": [rank_correlation(dreamed.uncertainty[:, t], error[:, t]) for t in range(steps)],
            "rank_correlation_interval": [
                bootstrap(rank_correlation, dreamed.uncertainty[:, t], error[:, t]) for t in range(steps)
            ],
            "reliability": reliability(dreamed.uncertainty.flatten(), error.flatten()),
            "reliability_of_last_step": reliability(dreamed.uncertainty[:, -1], error[:, -1]),
        },
        "success_calibration": calibration(dreamed.success.flatten(), success.flatten()),
        "terminated_calibration": calibration(dreamed.terminated.flatten(), terminated.flatten()),
    }


def last_segments(data: Episodes, steps: int) -> Segment:
    """The last `steps` steps of every episode of the test split that has as many, up to its end if it has one."""
    episodes = data.split("test")
    first = np.array([last_row(data, episode) for episode in episodes.tolist()]) - steps
    return segments_at(data, first[first >= data.starts[episodes]], steps)


def evaluate_ends(world: WorldModel, real: Segment, seed: int) -> dict[str, Any] | None:
    """Do dreams end when episodes do?

    An end is foreseen if the dream is over (with a probability above one half) for the first time within `NEARLY` steps
    of the true one; it is dreamed on for as many, with the last action held. None if no episode ends.

    Args:
        real: the last steps of episodes, with the frames that the dreams begin from.
    """
    held = Segment(*(np.concatenate([part, part[:, -1:].repeat(NEARLY, 1)], 1) for part in vars(real).values()))
    dreamed = dream(world, held, seed)
    ended = np.take_along_axis(real.terminations[:, -1], dreamed.asked[:, None], 1)[:, 0]
    if not ended.any():
        return None
    steps = real.actions.shape[1] - (world.config.dynamics.observed - 1)
    never = np.ones((len(ended), 1), bool)
    first = np.argmax(np.concatenate([dreamed.terminated > 0.5, never], 1), 1)
    late = first - (steps - 1)

    def share(happened: np.ndarray) -> dict[str, Any]:
        return {"rate": float(happened.mean()), "interval": wilson(int(happened.sum()), len(happened))}

    return {
        "steps": steps,
        "ended": int(ended.sum()),
        "went_on": int((~ended).sum()),
        "foreseen": share(np.abs(late[ended]) <= NEARLY),
        "too_early": share(late[ended] < -NEARLY),
        "missed": share(late[ended] > NEARLY),
        "false_alarms": share(late[~ended] <= 0) if (~ended).any() else None,
    }


def evaluate_objects(frames: np.ndarray, positions: np.ndarray, locate: Locate, unit: float) -> dict[str, Any]:
    """Are the objects there, and where they should be?

    Args:
        frames: uint8 [b, t, h, w, 3], dreamed.
        positions: [b, t + 1, k, 2], true places of the objects, the actuated one first.
        locate: finds those places in pictures.
        unit: an object's width, in the unit of `positions`. The first object is the one that actions control.
    """
    found = locate(frames)
    kept = np.asarray(~np.isnan(found).any(-1))
    error = np.linalg.norm(found - positions[:, 1:], axis=-1) / unit
    error = np.where(np.isnan(error), np.inf, error)  # an object that vanished is as wrong as can be
    still = np.linalg.norm(positions[:, 1:] - positions[:, :1], axis=-1)
    moved = still[..., 1:] > MOVED
    moved_error = [error[:, t, 1:][moved[:, t]] for t in range(frames.shape[1])]
    return {
        "controlled_error": np.median(error[..., 0], 0).tolist(),
        "controlled_error_interval": [bootstrap(np.median, one) for one in error[..., 0].T],
        "moved_error": [_median(one) for one in moved_error],
        "moved_error_interval": [
            bootstrap(lambda far, counted: _median(far[counted]), error[:, t, 1:], moved[:, t])
            for t in range(frames.shape[1])
        ],
        "moved": moved.sum((0, 2)).tolist(),
        "moved_error_if_still": [_median(still[:, t, 1:][moved[:, t]] / unit) for t in range(frames.shape[1])],
        "objects_kept": kept.mean((0, 2)).tolist(),
        "objects_kept_interval": [bootstrap(np.mean, kept[:, t]) for t in range(frames.shape[1])],
        "controlled_kept": kept[..., 0].mean(0).tolist(),
        "others_kept": kept[..., 1:].mean((0, 2)).tolist(),
    }


def evaluate_perception(
    world: WorldModel, real: Segment, dreamed: Dreamed, lpips: Path | None, fvd: Path | None, samples: int, seed: int
) -> dict[str, Any]:
    """LPIPS and FVD of the likeliest dreams, and all metrics of pictures by iVideoGPT's protocol.

    That protocol (arXiv 2405.15223 and its code, after earlier video prediction): `samples` dreams of temperature 1
    from each first frame; PSNR, SSIM and LPIPS are means over a video's frames, of the best of its samples by that very
    metric; FVD compares all samples with the real videos. A video is the first frame and what follows. Two things
    differ: the first frame counts in FVD alone and is the real one, and tokens are drawn from all, not the top 100.

    Args:
        real: what `dream` was given.
        lpips, fvd: TorchScript files, see perceptual.py; without one its metric says that it was not measured.
        samples: 1 leaves the protocol out.
    """
    distance = None if lpips is None else Lpips(lpips, world.device)
    features = None if fvd is None else VideoFeatures(fvd, world.device)
    known = unseen(world, real)
    truth = known.frames[:, 1:]
    metrics: dict[str, Any] = {"lpips": NO_WEIGHTS, "fvd": NO_WEIGHTS}
    if distance is not None:
        far = distance(dreamed.frames, truth)
        metrics["lpips"] = far.mean(0).tolist()
        metrics["lpips_interval"] = [bootstrap(np.mean, one) for one in far.T]
    if features is not None:
        happened = features(known.frames)
        metrics["fvd"] = frechet_distance(features(_with_first(known, dreamed.frames)), happened)
    if samples == 1:
        return metrics | {"best_of": "not measured: one sample"}

    judges = {"psnr": psnr, "ssim": ssim} | ({} if distance is None else {"lpips": distance})
    better = {"psnr": np.maximum, "ssim": np.maximum, "lpips": np.minimum}
    best: dict[str, np.ndarray] = {}
    seen = []
    for sample in tqdm(range(samples), desc="sampling", unit="sample"):
        frames = dream(world, real, seed + 1 + sample, temperature=1.0).frames
        for name, judge in judges.items():
            values = judge(frames, truth).mean(1)
            best[name] = better[name](best.get(name, values), values)
        if features is not None:
            seen.append(features(_with_first(known, frames)))
    metrics["best_of"] = {
        "samples": samples,
        "videos": len(truth),
        "frames": truth.shape[1],
        "lpips": NO_WEIGHTS,
        "fvd": NO_WEIGHTS if features is None else frechet_distance(np.concatenate(seen), happened),
        **{name: float(values.mean()) for name, values in best.items()},
        **{f"{name}_interval": bootstrap(np.mean, values) for name, values in best.items()},
    }
    return metrics


def _with_first(real: Segment, frames: np.ndarray) -> np.ndarray:
    return np.concatenate([real.frames[:, :1], frames], 1)


def evaluate_sentences(
    world: WorldModel, frames: np.ndarray, sentences: list[str], objects: np.ndarray, directions: np.ndarray,
    true_moves: np.ndarray, locate: Locate, enough: float,
) -> dict[str, Any]:  # fmt: skip
    """Does a sentence move the named object the commanded way, where it really does?

    Args:
        frames: uint8 [b, h, w, 3], where each case begins.
        objects: [b], row of the named object in what `locate` finds.
        directions: [b, 2], unit vectors.
        true_moves: [b], how far along the direction the real object went.
        enough: the distance that counts as having moved.
    """
    state, read = world.start(frames[:, None]), world.read(sentences)
    for _ in range(world.config.frames_per_action):
        state, _ = world.step(state, world.act(state, read))
    dreamed = went_along(locate(frames), locate(world.render(state).cpu().numpy()), objects, directions)
    counted = true_moves > enough
    obeyed = int((dreamed[counted] > enough).sum())  # nan, a vanished object, compares as false
    return {
        "cases": len(frames),
        "cases_where_it_really_moved": int(counted.sum()),
        "obeyed": obeyed,
        "rate": obeyed / max(1, int(counted.sum())),
        "interval": wilson(obeyed, int(counted.sum())),
        "distance_correlation": correlation(np.nan_to_num(dreamed[counted]), true_moves[counted]),
    }


def went_along(
    before: Float[np.ndarray, "b k 2"], after: Float[np.ndarray, "b k 2"], objects: Int[np.ndarray, " b"],
    directions: Float[np.ndarray, "b 2"],
) -> Float[np.ndarray, " b"]:  # fmt: skip
    """How far the named object of each case went along its direction; nan where it is not seen."""
    rows = np.arange(len(before))
    return ((after - before)[rows, objects] * directions).sum(-1)


@torch.no_grad()
def reconstruct(world: WorldModel, real: Segment) -> np.ndarray:
    """Every frame through the tokens and back, relative to its segment's first frame."""
    outputs = []
    for segment in real.frames:
        images = to_float(torch.from_numpy(np.ascontiguousarray(segment)).to(world.device))
        contexts = images[:1].expand(len(images) - 1, -1, -1, -1)
        outputs.append(to_uint8(world.tokenizer.reconstruct(images[1:], contexts)).cpu().numpy())
    return np.stack(outputs)


def _over_all(statistic: Callable[..., float]) -> Callable[..., float]:
    """Of all steps of the drawn episodes together."""
    return lambda *columns: statistic(*(column.flatten() for column in columns))


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def write_comparison(path: Path, real: np.ndarray, dreamed: np.ndarray) -> None:
    """A GIF or MP4 of four pairs side by side, real above dream.

    Args:
        real, dreamed: uint8 [b, t, h, w, 3], b >= 4.
    """
    pairs = [stacked([real[i], dreamed[i]]) for i in range(4)]
    write_video(path, enlarged(side_by_side(pairs, gap=2), 2))
