"""Are drafted dreams as true as those that are drawn token by token?

    python benchmarks/drafted.py

The same held-out episodes by both, open loop from one real frame, and a step of each by turns.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from drift import show
from section import Results, Section, error, estimate, made_by, markdown, share, three_digits, two_digits

from worldgym.bench import by_turns
from worldgym.envs_real.tabletop import locate
from worldgym.envs_real.tabletop.cases import BLOCK_WIDTH, held_out_episodes
from worldgym.evaluate import dream, evaluate_objects
from worldgym.metrics import bootstrap, correlation, psnr, sharpness, ssim
from worldgym.results import current_commit, write_results
from worldgym.world import WorldModel


@dataclass(frozen=True)
class Drafted:
    """Dream the same episodes by the draft and by tokens."""

    world: Annotated[str, tyro.conf.Positional] = "tabletop"
    episodes: int = 256
    at: tuple[int, ...] = (1, 4, 8, 16, 24, 32)
    """Steps that the table shows."""
    seed: int = 0
    rounds: int = 9
    """Turns in which speed is measured."""
    json: Path = Path("benchmarks/results/tabletop_drafted.json")
    picture: Path = Path("docs/images/drafted.png")


def main(config: Drafted) -> None:
    commit, world = current_commit(), WorldModel.load(config.world)
    real, places = held_out_episodes(config.episodes, max(config.at), config.seed)
    truth, looked = real.frames[:, 1:], [step - 1 for step in config.at]
    still = psnr(np.broadcast_to(real.frames[:, :1], truth.shape), truth)
    metrics: dict[str, Any] = {"episodes": len(truth), "at": config.at, "ways": {}}
    pictures, qualities = {"MuJoCo": truth}, {}
    for name, drafted in (("token by token", False), ("drafted", True)):
        dreamed = dream(world, real, config.seed, drafted=drafted)
        pictures[name], qualities[name] = dreamed.frames, psnr(dreamed.frames, truth)
        gain, structure = qualities[name] - still, ssim(dreamed.frames, truth)
        earned = np.take_along_axis(real.rewards, dreamed.asked[:, None, None], -1)[..., 0]
        metrics["ways"][name] = {
            "psnr_gain": gain.mean(0).tolist(),
            "psnr_gain_interval": [bootstrap(np.mean, one) for one in gain.T],
            "ssim": structure.mean(0).tolist(),
            "sharpness": (sharpness(dreamed.frames).mean(0) / sharpness(truth).mean(0)).tolist(),
            "reward_correlation": [correlation(dreamed.rewards[:, when], earned[:, when]) for when in looked],
            **evaluate_objects(dreamed.frames, places, locate, BLOCK_WIDTH),
        }
        print(f"{name:15s} " + " ".join(f"{gain[:, when].mean():+.2f}" for when in looked), "dB over the first frame")
    better = qualities["drafted"] - qualities["token by token"]
    metrics["drafted_better_by"] = better.mean(0).tolist()
    metrics["drafted_better_by_interval"] = [bootstrap(np.mean, one) for one in better.T]
    state, action = world.start(real.frames[:64, :1]), real.actions[:64, 0]
    ways = {
        name: partial(lambda drafted: world.step(state.fork(1), action, drafted), name == "drafted")
        for name in metrics["ways"]
    }
    for name, seconds in by_turns(ways, config.rounds, world, settle=True).items():
        metrics["ways"][name]["seconds_a_step_of_64"] = float(np.median(seconds))
    show(pictures, looked, config.at, config.picture, episodes=3)
    write_results(config.json, config.seed, metrics, commit)


# -- the section of docs/results.md -----------------------------------------------------------------------------------


def section(results: Results) -> list[str]:
    m = results["metrics"]
    looked = [step - 1 for step in m["at"]]
    ways = m["ways"]
    rows = []
    for title, key, display in (
        ("dB over repeating the first frame", "psnr_gain", lambda value: f"{value:+.1f}"),
        ("SSIM", "ssim", three_digits),
        ("sharpness, of the truth's", "sharpness", two_digits),
        ("moved blocks' position error", "moved_error", error),
        ("objects still found", "objects_kept", share),
    ):
        for name, found in ways.items():
            cells = ["-" if key.startswith("moved") and not found["moved"][when] else display(found[key][when])
                     for when in looked]  # fmt: skip
            rows.append([f"{title}, {name}", *cells])
    for name, found in ways.items():
        rows.append([f"reward, correlation, {name}", *map(three_digits, found["reward_correlation"])])
    more, intervals = m["drafted_better_by"], m["drafted_better_by_interval"]
    gains = [estimate(more[when], intervals[when], "+.2f") for when in looked]
    rows.append(["drafted over token by token, dB, episode by episode", *gains])
    slow, fast = (ways[name]["seconds_a_step_of_64"] for name in ("token by token", "drafted"))
    return [
        f"{m['episodes']} held-out episodes of MuJoCo, open loop from one real frame, both ways.",
        "",
        *markdown(["steps dreamed", *map(str, m["at"])], rows),
        "",
        f"A step of 64 dreams takes {1000 * slow:.0f} ms token by token and {1000 * fast:.0f} drafted, by turns.",
        "",
        "![MuJoCo, token by token and drafted](images/drafted.png)",
        "",
        made_by(results),
    ]


SECTION = Section("Are drafted dreams as true?", ("tabletop_drafted",), "python benchmarks/drafted.py", section)


if __name__ == "__main__":
    main(tyro.cli(Drafted))
