"""Does a long dream stay a picture of its world? One dream of 500 steps against MuJoCo with the same actions.

    python benchmarks/drift.py tabletop --dreams 32

The world remembers a window of steps; when it is full, the newest imagined frame becomes the context and the window
starts anew. The variants differ in the length of that window alone, so in how often a dream re-anchors; "never" has a
window as long as the dream, in which steps past the trained window are at time positions that training never showed;
"every 8 steps, keeping 8" begins anew from the last nine imagined frames and the actions between them, so that what
moves is still seen to move.

Three baselines say what a figure is worth: the first frame repeated, the true frame of *another* episode at that step
(a perfect picture of the wrong scene: no drift can be told from PSNR below it), and the tokenizer's picture of the
true frame (what no dream can exceed).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import numpy as np
import torch
import tyro
from section import Results, Section, error, made_by, one_digit, row, share, steps_head, three_digits, with_interval
from tqdm import tqdm

from worldgym.data import Segment
from worldgym.envs_real.tabletop import locate
from worldgym.envs_real.tabletop.cases import BLOCK_WIDTH, held_out_episodes
from worldgym.metrics import bootstrap, psnr, ssim
from worldgym.model.pixels import to_float, to_uint8
from worldgym.results import current_commit, write_results
from worldgym.world import WorldModel

matplotlib.use("Agg")
from matplotlib import pyplot as plt


@dataclass(frozen=True)
class Drift:
    """Dream long episodes of the recorder's behaviours and see what becomes of the picture."""

    world: Annotated[str, tyro.conf.Positional] = "tabletop"
    """A bundled world or a checkpoint folder."""
    dreams: int = 32
    at: tuple[int, ...] = (16, 50, 100, 200, 500)
    """Steps to look at; the last is where the dreams end."""
    every: tuple[int, ...] = (16, 8)
    """Steps between two anchors, a variant each, beside "never"; a world is at home at its own window."""
    seed: int = 0
    json: Path = Path("benchmarks/results/tabletop_drift.json")
    pictures: Path = Path("docs/images")
    """Folder for drift.png, the curves, and drift_frames.png, what is seen at these steps."""


def main(config: Drift) -> None:
    commit = current_commit()
    world = WorldModel.load(config.world)
    steps, window = max(config.at), world.config.dynamics.window
    look = sorted({*range(1, 21), *range(25, steps, 5), *config.at})
    real, positions = held_out_episodes(config.dreams, steps, config.seed)
    truth, places = real.frames[:, look], positions[:, look]
    baselines = {
        "first frame repeated": np.broadcast_to(real.frames[:, :1], truth.shape),
        "another episode's true frame": np.roll(truth, 1, 0),
        "the tokenizer's picture of the true frame": reconstruct(world, real, look),
    }
    metrics: dict[str, Any] = {
        "dreams": config.dreams,
        "at": list(config.at),
        "looked_at": look,
        "trained_window": window,
        "baselines": {name: figures(frames, truth, places) for name, frames in baselines.items()},
        "variants": {},
    }
    windows = {f"every {length} steps": length for length in config.every} | {"never": steps}
    variants: list[tuple[str, Iterator[np.ndarray]]] = [
        (name, dream(world, real, length)) for name, length in windows.items()
    ]
    variants.append((f"every {window // 2} steps, keeping {window // 2}", dream_with_history(world, real, window // 2)))
    shown = {"MuJoCo": truth}
    for name, dreamed in variants:
        steps_seen = tqdm(enumerate(dreamed, 1), total=steps, desc=name, unit="step")
        shown[name] = np.stack([frames for step, frames in steps_seen if step in look], 1)
        metrics["variants"][name] = figures(shown[name], truth, places)
        plot(metrics, config.pictures / "drift.png")
        show(shown, [look.index(step) for step in config.at], config.at, config.pictures / "drift_frames.png")
        write_results(config.json, config.seed, metrics, commit)  # after each: a variant takes minutes
    for group in ("baselines", "variants"):
        for name, found in metrics[group].items():
            rows = [look.index(step) for step in config.at]
            print(f"{name:42s} " + "   ".join(f"{found['psnr'][i]:5.1f} {found['objects_kept'][i]:4.0%}" for i in rows))


def dream(world: WorldModel, real: Segment, window: int) -> Iterator[np.ndarray]:
    """The likeliest dreams, re-anchored every `window` steps: uint8 [b, h, w, 3] after each step."""
    trained = world.config
    world.config = replace(trained, dynamics=replace(trained.dynamics, window=window))
    try:
        state = world.start(real.frames[:, :1])
        for when in range(real.actions.shape[1]):
            state, _ = world.step(state, real.actions[:, when])
            yield world.render(state).cpu().numpy()
    finally:
        world.config = trained


def dream_with_history(world: WorldModel, real: Segment, kept: int) -> Iterator[np.ndarray]:
    """As `dream`, but a full window goes on from its newer half."""
    state, frames = world.start(real.frames[:, :1]), [real.frames[:, 0]]
    for when in range(real.actions.shape[1]):
        if when > kept and when % kept == 0:
            state = world.start(np.stack(frames[-kept - 1 :], 1), real.actions[:, when - kept : when])
        state, _ = world.step(state, real.actions[:, when])
        frames = [*frames[-kept:], world.render(state).cpu().numpy()]
        yield frames[-1]


@torch.no_grad()
def reconstruct(world: WorldModel, real: Segment, look: list[int]) -> np.ndarray:
    """Each true frame relative to the true frame that opens its window: the best that re-anchored dreams could do."""
    steps = torch.tensor(look)
    opens, outputs = (steps - 1) // world.config.dynamics.window * world.config.dynamics.window, []
    for episode in real.frames:
        images = to_float(torch.from_numpy(episode).to(world.device))
        outputs.append(to_uint8(world.tokenizer.reconstruct(images[steps], images[opens])).cpu().numpy())
    return np.stack(outputs)


def misplaced(frames: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which objects are found, bool [b, s, k], and how far from their true places, in block widths."""
    found = np.stack([locate(episode) for episode in frames])
    kept = ~np.isnan(found).any(-1)
    return kept, np.where(kept, np.linalg.norm(found - places, axis=-1) / BLOCK_WIDTH, np.inf)


def figures(frames: np.ndarray, truth: np.ndarray, places: np.ndarray) -> dict[str, list]:
    """One entry for each step looked at; an object that is lost is as far off as can be.

    Args:
        frames, truth: uint8 [b, s, h, w, 3].
        places: [b, s, k, 2], where the objects truly are.
    """
    kept, error = misplaced(frames, places)
    quality, structure = (
        np.stack([judge(*pair) for pair in zip(frames, truth, strict=True)]) for judge in (psnr, ssim)
    )
    return {
        "psnr": quality.mean(0).tolist(),
        "psnr_interval": [bootstrap(np.mean, one, draws=200) for one in quality.T],
        "ssim": structure.mean(0).tolist(),
        "objects_kept": kept.mean((0, 2)).tolist(),
        "objects_kept_interval": [bootstrap(np.mean, kept[:, i], draws=200) for i in range(kept.shape[1])],
        "others_kept": kept[..., 1:].mean((0, 2)).tolist(),
        "controlled_kept": kept[..., 0].mean(0).tolist(),
        "controlled_error": np.median(error[..., 0], 0).tolist(),
        "others_error": np.median(error[..., 1:], (0, 2)).tolist(),
    }


PANELS = (
    ("psnr", "PSNR against MuJoCo, dB"),
    ("ssim", "SSIM"),
    ("objects_kept", "objects still found, share"),
    ("controlled_error", "pusher's median error, block widths"),
)


def plot(metrics: dict[str, Any], path: Path) -> None:
    figure, axes = plt.subplots(1, 4, figsize=(17, 3.8), layout="constrained")
    horizon = metrics["looked_at"]
    for axis, (name, title) in zip(axes, PANELS, strict=True):
        for label, found in metrics["variants"].items():
            values = np.array(found[name])
            axis.plot(horizon, np.where(np.isfinite(values), values, np.nan), lw=1.2, label=f"re-anchored {label}")
        for shade, (label, found) in zip(("0.75", "0.55", "0.35"), metrics["baselines"].items(), strict=True):
            if name in ("psnr", "ssim"):
                axis.plot(horizon, found[name], lw=1, color=shade, label=label)
        axis.axvline(metrics["trained_window"], color="0.8", lw=1, ls=":")
        axis.set(title=title, xlabel="steps dreamed", xscale="log")
        axis.set_ylim(bottom=None if name == "psnr" else 0)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def show(shown: dict[str, np.ndarray], where: list[int], at: tuple[int, ...], path: Path, episodes: int = 2) -> None:
    """Rows: each of what is shown, of the first episodes; columns: the steps `at`, which are frames number `where`."""
    rows = [(episode, name, frames) for episode in range(episodes) for name, frames in shown.items()]
    figure, axes = plt.subplots(
        len(rows), len(at), figsize=(1.6 * len(at) + 1.2, 1.6 * len(rows)), layout="constrained", squeeze=False
    )
    for line, (episode, name, frames) in zip(axes, rows, strict=True):
        for axis, index in zip(line, where, strict=True):
            axis.imshow(frames[episode, index])
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name.replace(", ", ",\n"), fontsize=9)
    for axis, step in zip(axes[0], at, strict=True):
        axis.set_title(f"step {step}", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    plt.close(figure)


# -- the section of docs/results.md -----------------------------------------------------------------------------------


def section(results: Results) -> list[str]:
    m = results["metrics"]
    where = [m["looked_at"].index(step) for step in m["at"]]
    lines = [
        f"{m['dreams']} dreams of {m['at'][-1]} steps from one real frame each, against MuJoCo with the same actions. "
        f"The world was trained on windows of {m['trained_window']} steps; a variant says when the newest imagined "
        'frame becomes the context. "never" runs its window on, at time positions that training never showed.',
        "",
        *steps_head(m["at"]),
    ]
    for name, found in m["baselines"].items():
        lines.append(row(f"{name} | PSNR", [one_digit(found["psnr"][i]) for i in where]))
    for name, found in m["variants"].items():
        lines += of_long_dreams(f"re-anchored {name}", found, where)
    pictures = ["![Curves](images/drift.png)", "", "![Frames](images/drift_frames.png)"]
    return [*lines, "", *pictures, "", made_by(results)]


def of_long_dreams(label: str, found: dict[str, Any], where: Sequence[int]) -> list[str]:
    return [
        row(f"{label} | PSNR", [one_digit(found["psnr"][i]) for i in where]),
        row(" | SSIM", [three_digits(found["ssim"][i]) for i in where]),
        row(" | objects found", [with_interval(found, "objects_kept", i, share) for i in where]),
        row(" | pusher's error", [error(found["controlled_error"][i]) for i in where]),
    ]


SECTION = Section(
    "Does a long dream stay a picture?", ("tabletop_drift",), "python benchmarks/drift.py tabletop", section
)


if __name__ == "__main__":
    main(tyro.cli(Drift))
