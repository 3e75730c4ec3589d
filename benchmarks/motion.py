"""What is the motion prompt worth (SAMPO's ablation), where a frame alone does not tell how things go on?

    bash benchmarks/motion.sh

All worlds dream the same held-out stretches, after the same true frames, of which each is shown as many as it can be
told motion from. A world with a prompt is also shown one frame alone: what the prompt adds to it, and to nothing else.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from drift import show
from section import Results, Section, estimate, made_by, markdown

from worldgym.bench import num_parameters
from worldgym.data import load_episodes
from worldgym.evaluate import dream, held_out_segments
from worldgym.metrics import bootstrap, psnr
from worldgym.results import current_commit, write_results
from worldgym.world import WorldModel


@dataclass(frozen=True)
class Motion:
    """Dream the same stretches in worlds that are told of motion in different ways."""

    worlds: tuple[str, ...]
    """Checkpoint folders, each named NAME_SEED/world."""
    dataset: str = "worldgym/reacher-v0"
    episodes: int = 128
    steps: int = 12
    at: tuple[int, ...] = (1, 2, 4, 8, 12)
    """Steps that the table shows."""
    seed: int = 0
    json: Path = Path("benchmarks/results/reacher_motion.json")
    picture: Path = Path("docs/images/motion.png")


def main(config: Motion) -> None:
    commit = current_commit()
    worlds = {Path(folder).parent.name: WorldModel.load(folder) for folder in config.worlds}
    seen = max(world.config.dynamics.observed for world in worlds.values())
    if seen == 1:
        raise ValueError(f"none of {', '.join(worlds)} is told of motion; name a world with a prompt or a memory")
    real = held_out_segments(load_episodes(config.dataset), config.episodes, config.steps + seen - 1, config.seed)
    truth, last = real.frames[:, seen:], real.frames[:, seen - 1 : seen]
    still = psnr(np.broadcast_to(last, truth.shape), truth)
    fast = np.abs(last[:, 0].astype(int) - real.frames[:, seen - 2]).mean((1, 2, 3))
    fastest = fast >= np.quantile(fast, 0.75)
    metrics: dict[str, Any] = {
        "episodes": len(truth), "seen": seen, "at": config.at, "psnr_still": still.mean(0).tolist(), "worlds": {},
    }  # fmt: skip
    pictures = {"MuJoCo": truth}
    for name, world in worlds.items():
        dynamics = world.config.dynamics
        for shown in [dynamics.observed] + ([1] if dynamics.prompt else []):
            dreamed = dream(world, real.since(seen - shown), config.seed, shown=shown)
            gain = psnr(dreamed.frames, truth) - still
            wrong = np.abs(dreamed.rewards - real.rewards[:, seen - 1 :, 0])
            label = name if shown == dynamics.observed else f"{name}, from one frame"
            pictures[label] = dreamed.frames
            metrics["worlds"][label] = {
                "parameters": num_parameters(world),
                "frames_shown": shown,
                "psnr_gain": gain.mean(0).tolist(),
                "psnr_gain_interval": [bootstrap(np.mean, gain[:, when]) for when in range(config.steps)],
                "psnr_gain_of_the_fastest_quarter": gain[fastest].mean(0).tolist(),
                "reward_error": wrong.mean(0).tolist(),
                "reward_error_interval": [bootstrap(np.mean, wrong[:, when]) for when in range(config.steps)],
            }
            print(f"{label:32s} " + " ".join(f"{gain[:, step - 1].mean():+.2f}" for step in config.at))
            write_results(config.json, config.seed, metrics, commit)
    show(pictures, [step - 1 for step in config.at], config.at, config.picture)


# -- the section of docs/results.md -----------------------------------------------------------------------------------


def section(results: Results) -> list[str]:
    m = results["metrics"]
    steps = m["at"]
    still = " / ".join(f"{m['psnr_still'][step - 1]:.1f}" for step in steps)
    lines = [
        f"The Reacher, whose speed no frame tells. {m['episodes']} held-out stretches, dreamed open loop after the "
        f"same {m['seen']} frames; worlds of equal data and optimiser steps, told of motion in different ways. PSNR "
        f"gain over repeating the last frame, which has {still} dB at the steps "
        + " / ".join(str(step) for step in steps)
        + "; fastest: of the quarter of stretches that begin so.",
        "",
    ]
    head = ["told of motion by", "frames shown", *(str(step) for step in steps), "fastest", "reward off by"]
    rows = []
    for name, found in m["worlds"].items():
        cells = [name, str(found["frames_shown"])]
        for step in steps:
            cells.append(estimate(found["psnr_gain"][step - 1], found["psnr_gain_interval"][step - 1], "+.1f"))
        cells.append(" / ".join(f"{found['psnr_gain_of_the_fastest_quarter'][step - 1]:+.1f}" for step in steps))
        cells.append(" / ".join(f"{found['reward_error'][step - 1]:.3f}" for step in steps))
        rows.append(cells)
    return [
        *lines,
        *markdown(head, rows),
        "",
        "![The same stretches in every world](images/motion.png)",
        "",
        made_by(results),
    ]


SECTION = Section("What is a motion prompt worth?", ("reacher_motion",), "benchmarks/motion.sh", section)


if __name__ == "__main__":
    main(tyro.cli(Motion))
