"""Does a dream look back, and does it matter when a step was? A trained world without parts of what it remembers.

    python benchmarks/past.py tabletop

The same world and episodes three times: as it was trained; with all steps at one time in the backbone's positions, so
that it can't tell an old one from a new one; and without any step before the newest frame, which leaves that frame, the
action and the context. Nothing is trained here, so this says what a world makes use of, and not what one would be worth
that had learned to do without: for that see "timeless" in ablations.py and scaling.py.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from baselines import Timeless
from section import Results, Section, made_by, moved_error, one_digit, row, steps_head, with_interval

from worldgym.data import Segment
from worldgym.envs_real.tabletop import locate
from worldgym.envs_real.tabletop.cases import BLOCK_WIDTH, held_out_episodes
from worldgym.evaluate import evaluate_objects
from worldgym.metrics import bootstrap, psnr
from worldgym.results import current_commit, write_results
from worldgym.world import WorldModel


@dataclass(frozen=True)
class Past:
    """Dream held-out episodes in three ways."""

    world: Annotated[str, tyro.conf.Positional] = "tabletop"
    """A bundled world or a checkpoint folder."""
    episodes: int = 128
    at: tuple[int, ...] = (1, 4, 8, 16)
    """Steps to look at; the last is where the dreams end."""
    seed: int = 0
    json: Path = Path("benchmarks/results/tabletop_past.json")


def main(config: Past) -> None:
    commit, world = current_commit(), WorldModel.load(config.world)
    real, places = held_out_episodes(config.episodes, max(config.at), config.seed)
    truth, places = real.frames[:, config.at], places[:, [0, *config.at]]
    still = psnr(np.broadcast_to(real.frames[:, :1], truth.shape), truth)
    timeless = WorldModel.load(config.world)
    timeless.dynamics.layout = Timeless(**vars(timeless.dynamics.layout))
    ways = {
        "as it is": dream(world, real, config.at),
        "all steps at one time": dream(timeless, real, config.at),
        "no past": dream(world, real, config.at, forgetful=True),
    }
    whole = psnr(ways["as it is"], truth)
    metrics: dict[str, Any] = {"episodes": config.episodes, "at": config.at, "ways": {}}
    for name, frames in ways.items():
        quality = psnr(frames, truth)
        less = quality - whole
        metrics["ways"][name] = {
            "psnr_gain": (quality - still).mean(0).tolist(),
            "psnr_gain_interval": [bootstrap(np.mean, one) for one in (quality - still).T],
            "psnr_more": less.mean(0).tolist(),
            "psnr_more_interval": [bootstrap(np.mean, one) for one in less.T],
            **evaluate_objects(frames, places, locate, BLOCK_WIDTH),
        }
        print(f"{name:24s}", " ".join(f"{gain:+.1f}" for gain in metrics["ways"][name]["psnr_gain"]))
    write_results(config.json, config.seed, metrics, commit)


def dream(world: WorldModel, real: Segment, at: tuple[int, ...], forgetful: bool = False) -> np.ndarray:
    """The likeliest dreams, uint8 [b, s, h, w, 3] after the steps `at`.

    Args:
        forgetful: begin every step with nothing in the cache but the context.
    """
    state, frames = world.start(real.frames[:, :1]), []
    for when in range(max(at)):
        if forgetful:
            state.cache.filled.fill_(world.dynamics.layout.cells)
        state, _ = world.step(state, real.actions[:, when])
        if when + 1 in at:
            frames.append(world.render(state).cpu().numpy())
    return np.stack(frames, 1)


# -- the section of docs/results.md -----------------------------------------------------------------------------------


def section(results: Results) -> list[str]:
    m = results["metrics"]
    indices = range(len(m["at"]))
    lines = [
        f"The bundled world, which remembers up to 16 steps, without parts of what it remembers, in {m['episodes']} "
        "held-out episodes, open loop from one frame. Nothing is trained anew: this is what it makes use of, not what "
        "it could not have done without. PSNR gain is over repeating the first frame.",
        "",
        *steps_head(m["at"]),
    ]
    for name, found in m["ways"].items():
        lines += [
            row(f"{name} | PSNR gain", [with_interval(found, "psnr_gain", i, one_digit) for i in indices]),
            row(" | moved blocks' error", [moved_error(found, found, i) for i in indices]),
        ]
        if name != "as it is":
            more = [with_interval(found, "psnr_more", i, "{:+.2f}".format) for i in indices]
            lines.append(row(" | PSNR, episode by episode against it as it is", more))
    return [*lines, "", made_by(results)]


SECTION = Section("Does a dream look back?", ("tabletop_past",), "python benchmarks/past.py tabletop", section)


if __name__ == "__main__":
    main(tyro.cli(Past))
