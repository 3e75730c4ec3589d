"""How true a dream is: open-loop dreams of held-out episodes against what really happened, step by step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import matplotlib
import numpy as np
import torch

from .data import Segment
from .metrics import correlation, psnr, rank_correlation, wilson
from .pixels import to_float, to_uint8
from .world import WorldModel

matplotlib.use("Agg")
from matplotlib import pyplot as plt

Locate = Callable[[np.ndarray], np.ndarray]
"""Object positions [..., k, 2] found in frames [..., h, w, 3], nan where an object isn't seen."""

CHUNK = 64
"""Dreams that run side by side."""
MOVED = 0.05
"""A block counts as moved once it is this far from where it began."""


def evaluate_dreams(
    world: WorldModel, real: Segment, positions: np.ndarray, locate: Locate, unit: float, seed: int
) -> tuple[dict[str, Any], np.ndarray]:
    """Dream every segment from its first frame with its actions, and compare.

    Args:
        real: held-out episodes, t steps each.
        positions: [b, t + 1, k, 2], true places of the objects, the actuated one first.
        locate: finds those places in pictures.
        unit: a block's width, in the unit of `positions`.
        seed: picks the instruction that each dream's reward is judged by.

    Returns:
        metrics, most of them lists with one entry for each step; and the dreamed frames, uint8 [b, t, h, w, 3].
    """
    steps, first = real.actions.shape[1], real.frames[:, :1]
    asked = np.random.default_rng(seed).integers(len(world.config.instructions), size=len(first))
    chunks = [
        _dream(world, first[i : i + CHUNK], real.actions[i : i + CHUNK], asked[i : i + CHUNK])
        for i in range(0, len(first), CHUNK)
    ]
    frames, rewards, entropy = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    truth = real.frames[:, 1:]
    quality, repeat = psnr(frames, truth), psnr(np.broadcast_to(first, truth.shape), truth)
    true_rewards = np.take_along_axis(real.rewards, asked[:, None, None], -1)[..., 0]
    error = np.linalg.norm(locate(frames) - positions[:, 1:], axis=-1) / unit
    error = np.where(np.isnan(error), np.inf, error)  # an object that vanished is as wrong as can be
    moved = np.linalg.norm(positions[:, 1:] - positions[:, :1], axis=-1)[..., 1:] > MOVED
    still = np.linalg.norm(positions[:, 1:] - positions[:, :1], axis=-1) / unit
    metrics = {
        "episodes": len(first),
        "reconstruction_psnr": float(psnr(_reconstruct(world, real), truth).mean()),
        "psnr": quality.mean(0).tolist(),
        "psnr_repeat_context": repeat.mean(0).tolist(),
        "psnr_gain": (quality - repeat).mean(0).tolist(),
        "psnr_gain_interval": [_bootstrap(gain, np.mean) for gain in (quality - repeat).T],
        "pusher_error_blocks": np.median(error[..., 0], 0).tolist(),
        "pusher_error_blocks_interval": [_bootstrap(one, np.median) for one in error[..., 0].T],
        "moved_block_error_blocks": [_median(error[:, t, 1:][moved[:, t]]) for t in range(steps)],
        "moved_block_error_blocks_interval": [
            _bootstrap(error[:, t, 1:][moved[:, t]], np.median) for t in range(steps)
        ],
        "moved_blocks": moved.sum((0, 2)).tolist(),
        "moved_block_error_blocks_if_still": [_median(still[:, t, 1:][moved[:, t]]) for t in range(steps)],
        "reward_correlation": [correlation(rewards[:, t], true_rewards[:, t]) for t in range(steps)],
        "reward_correlation_all_steps": correlation(rewards.flatten(), true_rewards.flatten()),
        "uncertainty_rank_correlation": {"token_entropy": rank_correlation(entropy.flatten(), -quality.flatten())},
    }
    return metrics, frames


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
    rows = np.arange(len(frames))
    before, after = locate(frames)[rows, objects], locate(world.render(state).cpu().numpy())[rows, objects]
    dreamed = ((after - before) * directions).sum(-1)
    counted = true_moves > enough
    obeyed = int((dreamed[counted] > enough).sum())  # nan, a vanished block, compares as false
    return {
        "cases": len(frames),
        "cases_where_it_really_moved": int(counted.sum()),
        "obeyed": obeyed,
        "rate": obeyed / max(1, int(counted.sum())),
        "interval": wilson(obeyed, int(counted.sum())),
        "distance_correlation": correlation(np.nan_to_num(dreamed[counted]), true_moves[counted]),
    }


def _dream(world: WorldModel, first: np.ndarray, actions: np.ndarray, asked: np.ndarray):
    state = world.start(first, instruction=[world.config.instructions[index] for index in asked])
    frames, outcomes = [], []
    for when in range(actions.shape[1]):
        state, outcome = world.step(state, actions[:, when])
        frames.append(world.render(state).cpu().numpy())
        outcomes.append(torch.stack([outcome.reward, outcome.uncertainty]).cpu().numpy())
    return np.stack(frames, 1), *np.stack(outcomes, -1).astype(np.float64)


@torch.no_grad()
def _reconstruct(world: WorldModel, real: Segment) -> np.ndarray:
    """Every frame through the tokens and back, relative to its segment's first frame."""
    outputs = []
    for segment in real.frames:
        images = to_float(torch.from_numpy(np.ascontiguousarray(segment)).to(world.device))
        contexts = images[:1].expand(len(images) - 1, -1, -1, -1)
        outputs.append(to_uint8(world.tokenizer.reconstruct(images[1:], contexts)).cpu().numpy())
    return np.stack(outputs)


def _bootstrap(values: np.ndarray, statistic) -> list[float]:
    """95% interval by resampling."""
    if len(values) == 0:
        return [float("nan")] * 2
    drawn = np.random.default_rng(0).integers(len(values), size=(1000, len(values)))
    return np.quantile(statistic(values[drawn], axis=1), [0.025, 0.975], method="nearest").tolist()


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else float("nan")


def plot_report(metrics: dict[str, Any], path: Path) -> None:
    """The figures by step of horizon, as one picture."""
    horizon = np.arange(1, len(metrics["psnr"]) + 1)
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    axes[0].plot(horizon, metrics["psnr"], "o-", ms=3, label="dream")
    axes[0].plot(horizon, metrics["psnr_repeat_context"], "o-", ms=3, color="0.6", label="repeat the context frame")
    axes[0].set(title="PSNR against MuJoCo", ylabel="dB")
    for name, label in (("pusher", "pusher"), ("moved_block", "moved blocks")):
        axes[1].plot(horizon, metrics[f"{name}_error_blocks"], "o-", ms=3, label=label)
        axes[1].fill_between(horizon, *np.transpose(metrics[f"{name}_error_blocks_interval"]), alpha=0.2)
    axes[1].plot(
        horizon,
        metrics["moved_block_error_blocks_if_still"],
        "o-",
        ms=3,
        color="0.6",
        label="moved blocks, if they stayed",
    )
    axes[1].set(title="Median position error", ylabel="block widths", ylim=(0, None))
    axes[2].plot(horizon, metrics["reward_correlation"], "o-", ms=3, label="reward, dream and MuJoCo")
    axes[2].set(title="Correlation", ylim=(0, 1))
    for axis in axes:
        axis.set_xlabel("steps dreamed")
        axis.legend(frameon=False, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def write_comparison(path: Path, real: np.ndarray, dreamed: np.ndarray, columns: int = 4, scale: int = 2) -> None:
    """A GIF or MP4 of pairs, real above dream, `columns` of them side by side.

    Args:
        real, dreamed: uint8 [b, t, h, w, 3], b >= columns.
    """
    gap = np.full((*real.shape[1:3], 2, 3), 255, np.uint8)
    pairs = [np.concatenate([real[i], dreamed[i]], 1) for i in range(columns)]
    gap = np.concatenate([gap, gap], 1)
    video = np.concatenate([part for pair in pairs for part in (pair, gap)][:-1], 2)
    write_video(path, video.repeat(scale, 1).repeat(scale, 2))


def write_video(path: Path, video: np.ndarray, frames_per_second: int = 5) -> None:
    """uint8 [t, h, w, 3] as a GIF that loops, or as whatever the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gif":
        iio.imwrite(path, video, duration=1000 // frames_per_second, loop=0)
    else:
        iio.imwrite(path, video, fps=frames_per_second)
