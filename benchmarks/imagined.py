"""How true are futures that are imagined in the recurrent state, and frames drawn from it, and how fast are they?

    python benchmarks/imagined.py tabletop --dataset worldgym/tabletop-v0
    python benchmarks/imagined.py reacher --dataset worldgym/reacher-v1
    python benchmarks/imagined.py hopper --dataset worldgym/hopper-v1

Held-out stretches, open loop from the same frames, drawn and not: the state is the same, and so are rewards and ends.
Then the same action sequences by turns in the state and on the twin's physics.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from drift import show
from section import RESULTS, Results, Section, estimate, made_by, markdown, three_digits

from worldgym.bench import by_turns
from worldgym.data import load_episodes
from worldgym.envs_real.twins import twin_of
from worldgym.evaluate import dream
from worldgym.evaluate.fidelity import NEARLY, check_recording, held_out_segments, unseen
from worldgym.metrics import bootstrap, correlation, psnr
from worldgym.planners import CEM
from worldgym.planners.mpc import DreamReturns, TwinReturns
from worldgym.results import current_commit, write_results
from worldgym.world import WorldModel

WORLDS = ("tabletop", "reacher", "hopper")
"""Those whose figures are in the README."""


@dataclass(frozen=True)
class Imagined:
    """Dream the same stretches of a recording with and without drawing."""

    world: Annotated[str, tyro.conf.Positional] = "tabletop"
    dataset: str = "worldgym/tabletop-v0"
    episodes: int = 200
    at: tuple[int, ...] = (1, 2, 4, 8, 12, 16)
    """Steps that the table shows."""
    futures: tuple[int, ...] = (64, 1024)
    """Tried at a time where speed is measured."""
    horizon: int = 12
    rounds: int = 9
    """Turns in which speed is measured."""
    seed: int = 0
    device: str = "cpu"
    """Where the world dreams; MuJoCo is on the CPU."""
    json: Path | None = None
    """By default benchmarks/results/WORLD_imagined.json, with its picture in docs/images; else the picture is next to
    it."""


def main(config: Imagined) -> None:
    commit, world, data = current_commit(), WorldModel.load(config.world, config.device), load_episodes(config.dataset)
    check_recording(world.config, config.dataset, data)
    shown, looked = world.config.dynamics.observed, [step - 1 for step in config.at]
    real = held_out_segments(data, config.episodes, shown - 1 + max(config.at), config.seed)
    ahead = unseen(world, real)
    truth, metrics = ahead.frames[:, 1:], {"episodes": len(real.actions), "shown": shown, "at": config.at}
    still = psnr(np.broadcast_to(ahead.frames[:, :1], truth.shape), truth).mean(0)
    metrics |= {"psnr_last_frame": still[looked].tolist(), "ways": {}}
    pictures = {config.world: truth}
    for name, drawn in (("drawn", True), ("imagined", False)):
        dreamed = dream(world, real, config.seed, drawn=drawn)
        pictures[name] = dreamed.frames
        column = dreamed.asked[:, None, None]
        earned, over = (np.take_along_axis(part, column, -1)[..., 0] for part in (ahead.rewards, ahead.terminations))
        pairs = [(dreamed.rewards[:, when], earned[:, when]) for when in looked]
        metrics["ways"][name] = found = {
            "reward_correlation": [correlation(*pair) for pair in pairs],
            "reward_correlation_interval": [bootstrap(correlation, *pair) for pair in pairs],
            "reward_error": [float(np.sqrt(np.square(said - true).mean()) / true.std()) for said, true in pairs],
            "psnr": psnr(dreamed.frames, truth).mean(0)[looked].tolist(),
            "ends": ends(dreamed.terminated > 0.5, over),
        }
        print(f"{name:9s}", *map(three_digits, found["reward_correlation"]), found["ends"])
    metrics["speed"] = speed(config, world)
    folder = Path("docs/images") if config.json is None else config.json.parent
    show(pictures, looked, config.at, folder / f"{config.world}_imagined.png", episodes=3)
    write_results(config.json or RESULTS / f"{config.world}_imagined.json", config.seed, metrics, commit)


def ends(said: np.ndarray, true: np.ndarray) -> dict[str, int]:
    """Of stretches [n, t]: how many end, of how many that was said within a step or two, and false alarms."""
    when, truly = (np.where(one.any(1), one.argmax(1), one.shape[1] + NEARLY + 1) for one in (said, true))
    ending = true.any(1)
    return {
        "ending": int(ending.sum()),
        "foreseen": int((np.abs(when - truly) <= NEARLY)[ending].sum()),
        "others": int((~ending).sum()),
        "false_alarms": int(said.any(1)[~ending].sum()),
    }


def speed(config: Imagined, world: WorldModel) -> dict[str, Any]:
    """Samples x horizon a second by turns from one start, and seconds of a decision of CEM, 64 x 10 x 4."""
    instruction = world.config.instructions[0]
    twin = twin_of(world.config, instruction)
    frame, _ = twin.reset(seed=config.seed)
    state, size = world.start(frame[None, None], instruction=instruction), world.config.action_size
    random, found = np.random.default_rng(config.seed), {}
    for futures in config.futures:
        tried = random.uniform(-1, 1, (futures, config.horizon, size)).astype(np.float32)
        ways = {
            "MuJoCo": partial(twin.get_wrapper_attr("evaluate"), tried),
            "imagined": partial(world.evaluate, state, tried[None]),
        }
        spent = by_turns(ways, config.rounds, world)
        found[futures] = {name: futures * config.horizon / float(np.median(one)) for name, one in spent.items()}
        print(futures, {name: f"{rate:,.0f}" for name, rate in found[futures].items()})
    seen, high = np.repeat(frame[None], world.config.observed, 0), np.ones(size, np.float32)
    done = np.zeros((len(seen) - 1, size), np.float32)
    decide = {
        name: partial(decision, returns, seen, done, CEM(returns, -high, high, 10, 64, 4, action_repeat=1))
        for name, returns in (("imagined", DreamReturns(world, instruction)), ("MuJoCo", TwinReturns(twin)))
    }
    decisions = {name: float(np.median(one)) for name, one in by_turns(decide, config.rounds, world).items()}
    twin.close()
    return {"samples_x_horizon_per_second": found, "seconds_per_decision": decisions}


def decision(returns: Any, frames: np.ndarray, actions: np.ndarray, planner: CEM) -> np.ndarray:
    """A plan from what was seen, the seeing included."""
    returns.ground(frames, actions)
    return planner.plan().actions


# -- the section of docs/results.md -----------------------------------------------------------------------------------


def section(*found: Results) -> list[str]:
    lines = []
    for name, results in zip(WORLDS, found, strict=True):
        m = results["metrics"]
        rows = []
        figures = m["ways"]["imagined"]
        intervals = zip(figures["reward_correlation"], figures["reward_correlation_interval"], strict=True)
        rows.append(["rewards' correlation", *(estimate(one, both, ".3f") for one, both in intervals)])
        rows.append(["rewards' relative error", *(f"{value:.2f}" for value in figures["reward_error"])])
        for title, way in (("PSNR of drawn frames, dB", "drawn"), ("... of the state's own picture", "imagined")):
            rows.append([title, *(f"{value:.1f}" for value in m["ways"][way]["psnr"])])
        rows.append(["... of the last frame repeated", *(f"{value:.1f}" for value in m["psnr_last_frame"])])
        rates = m["speed"]["samples_x_horizon_per_second"]
        over = ", ".join(
            f"{futures}: {one['imagined']:,.0f} imagined, {one['MuJoCo']:,.0f} in MuJoCo "
            f"({one['imagined'] / one['MuJoCo']:.1f} times)"
            for futures, one in rates.items()
        )
        decides = m["speed"]["seconds_per_decision"]
        ends = figures["ends"]
        told = (
            f"Of {ends['ending']} ends {ends['foreseen']} are foreseen within {NEARLY} steps, with false alarms in "
            f"{ends['false_alarms']} of {ends['others']} other stretches."
        )
        lines += [
            f"**{name.capitalize()}**, {m['episodes']} held-out stretches; frames shown: {m['shown']}.",
            "",
            *markdown(["steps ahead", *map(str, m["at"])], rows),
            "",
            *([told, ""] if ends["ending"] else []),
            f"Samples x horizon a second, by futures tried at a time, by turns: {over}. A decision of CEM (64 "
            f"candidates, 10 steps, 4 rounds) takes {1000 * decides['imagined']:.0f} ms, on true physics "
            f"{1000 * decides['MuJoCo']:.0f}.",
            "",
            f"![{name}: the twin, drawn and imagined](images/{name}_imagined.png)",
            "",
            made_by(results),
            "",
        ]
    return lines[:-1]


SECTION = Section(
    "How true are imagined futures and the frames drawn from them, and how fast?",
    tuple(f"{world}_imagined" for world in WORLDS),
    "python benchmarks/imagined.py WORLD --dataset DATASET",
    section,
)


if __name__ == "__main__":
    main(tyro.cli(Imagined))
