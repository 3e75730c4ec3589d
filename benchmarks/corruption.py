"""Does a dream last longer if its world was trained on a past with mistakes in it?

    bash benchmarks/corruption.sh

Worlds that go on from the bundled one for as many optimiser steps, with slips (wrong tokens) in the past that they are
taught from and without. Each dreams the episodes of drift.py, and a window that is full begins anew from the newest
imagined frame.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from drift import dream, figures, misplaced, of_long_dreams, show
from section import Results, Section, made_by, row, steps_head, with_interval
from tqdm import tqdm

from worldgym.envs_real.tabletop.cases import held_out_episodes
from worldgym.metrics import bootstrap, psnr
from worldgym.results import current_commit, write_results
from worldgym.world import WorldModel


@dataclass(frozen=True)
class Corruption:
    """Dream long with every world."""

    worlds: tuple[Path, ...]
    """Checkpoint folders, NAME/world; the others are compared with the first."""
    dreams: int = 32
    at: tuple[int, ...] = (16, 50, 100, 200, 500)
    """Steps to look at; the last is where the dreams end."""
    seed: int = 0
    json: Path = Path("benchmarks/results/tabletop_corruption.json")
    picture: Path = Path("docs/images/corruption.png")


def main(config: Corruption) -> None:
    commit, steps = current_commit(), max(config.at)
    real, positions = held_out_episodes(config.dreams, steps, config.seed)
    truth, places = real.frames[:, config.at], positions[:, config.at]
    training = json.loads((config.worlds[0] / "run.json").read_text(encoding="utf-8"))["metrics"]["training"]
    metrics: dict[str, Any] = {
        "dreams": config.dreams, "at": config.at, "steps": training["steps"], "batch": training["batch"], "worlds": {},
    }  # fmt: skip
    shown: dict[str, np.ndarray] = {"MuJoCo": truth}
    first: tuple[np.ndarray, np.ndarray] | None = None
    for path in (Path("tabletop"), *config.worlds):
        world, name = WorldModel.load(str(path)), path.parent.name or path.name
        dreamed = tqdm(dream(world, real, world.config.dynamics.window), total=steps, desc=name, unit="step")
        shown[name] = np.stack([frames for step, frames in enumerate(dreamed, 1) if step in config.at], 1)
        found = figures(shown[name], truth, places)
        if path in config.worlds:
            quality = np.stack([psnr(*pair) for pair in zip(shown[name], truth, strict=True)])
            kept = misplaced(shown[name], places)[0].mean(-1)
            first = first or (quality, kept)
            for title, ours, other in zip(("psnr", "objects_kept"), first, (quality, kept), strict=True):
                less = other - ours
                found[f"{title}_more"] = less.mean(0).tolist()
                found[f"{title}_more_interval"] = [bootstrap(np.mean, one) for one in less.T]
        metrics["worlds"][name] = found
        write_results(config.json, config.seed, metrics, commit)  # after each: a world takes minutes
        show(shown, list(range(len(config.at))), config.at, config.picture)
        print(name, *(f"{one:.1f} {kept:.0%} " for one, kept in zip(found["psnr"], found["objects_kept"], strict=True)))


# -- the section of docs/results.md -----------------------------------------------------------------------------------

PASTS = {
    "tabletop": "the bundled world, which they go on from",
    "slips": "gone on with slips",
    "no_slips": "gone on without",
}


def section(results: Results) -> list[str]:
    m = results["metrics"]
    where = range(len(m["at"]))
    lines = [
        f"The bundled world, trained on for {m['steps']} steps of {m['batch']} segments of 16 steps: with slips "
        "(one token in ten of the past that it is taught from is wrong), as it was before, and without. The world "
        f"itself dreams half of the segments in both. {m['dreams']} dreams each, re-anchored every 16 steps.",
        "",
        *steps_head(m["at"]),
    ]
    for name, found in m["worlds"].items():
        lines += of_long_dreams(PASTS[name], found, where)
    less = m["worlds"]["no_slips"]
    quality = [with_interval(less, "psnr_more", i, "{:+.2f}".format) for i in where]
    lines += [
        row("without less with, dream by dream | PSNR", quality),
        row(" | objects found, points", [with_interval(less, "objects_kept_more", i, points) for i in where]),
    ]
    return [*lines, "", "![The same dreams in each world](images/corruption.png)", "", made_by(results)]


def points(share: float | None) -> str:
    """Of percent."""
    return f"{100 * (share or 0.0):+.0f}"


SECTION = Section(
    "Is a past with wrong tokens worth training on?", ("tabletop_corruption",), "benchmarks/corruption.sh", section
)


if __name__ == "__main__":
    main(tyro.cli(Corruption))
