"""Other people's environments: how fast they are recorded, and what a short training makes of them.

    bash benchmarks/adapters.sh

Run once in the environment of each package, with the names of its worlds: figures and pictures are added to those that
are already there.
"""

import json
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
import tyro
from PIL import Image
from section import Results, Section, estimate, made_by, markdown, one_digit

from worldgym.data import load_episodes
from worldgym.envs_real.gym_record import make_twin
from worldgym.evaluate import dream, evaluate_dreams, held_out_segments, unseen
from worldgym.results import current_commit, write_results
from worldgym.world import WorldModel

FRAMES = 60
"""Frames that a speed is measured over."""
FIGURES = (
    "reconstruction_psnr", "psnr", "psnr_gain", "psnr_gain_interval", "reward_correlation_all_steps",
    "reward_correlation_all_steps_interval",
)  # fmt: skip
"""Of those that `worldgym evaluate` has."""


@dataclass(frozen=True)
class Adapters:
    """Measure worlds that `benchmarks/adapters.sh` has trained."""

    names: tyro.conf.Positional[tuple[str, ...]]
    """Of worlds: runs/adapters/NAME/world, trained on adapters/NAME-v0."""
    packages: tuple[str, ...] = ("mujoco",)
    """Whose versions are told."""
    steps: int = 12
    at: tuple[int, ...] = (1, 4, 8, 12)
    """Steps that the picture shows."""
    seed: int = 0
    runs: Path = Path("runs/adapters")
    json: Path = Path("benchmarks/results/adapters.json")
    picture: Path = Path("docs/images/adapters.png")


def main(config: Adapters) -> None:
    commit = current_commit()
    worlds: dict[str, Any] = (
        json.loads(config.json.read_text(encoding="utf-8"))["metrics"]["worlds"] if config.json.exists() else {}
    )
    for name in config.names:
        data = load_episodes(f"adapters/{name}-v0")
        world = WorldModel.load(str(config.runs / name / "world"))
        seen = world.config.dynamics.observed
        real = held_out_segments(data, len(data.starts), config.steps + seen - 1, config.seed)
        found = evaluate_dreams(world, unseen(world, real), dream(world, real, config.seed))
        env = data.environment
        worlds[name] = {
            "environment": env,
            "versions": {package: version(package) for package in config.packages},
            "frames": len(data.frames),
            "episodes": len(data.starts) - 1,
            "successes": int(data.successes.any(1).sum()),
            "frames_seen": seen,
            "trained": {stage: trained(config.runs / name / stage) for stage in ("tokenizer", "world")},
            "frames_a_second": {
                "as_it_comes": frames_a_second(gym.make(env, render_mode="rgb_array")),
                "recorded": frames_a_second(make_twin(env)),
            },
            "stretches": found["episodes"],
            **{figure: found[figure] for figure in FIGURES},
        }
        strip(config, name, real.frames[0], real.actions[0], seen)
        write_results(config.json, config.seed, {"at": config.at, "worlds": worlds}, commit)
    show(config, list(worlds))


def trained(folder: Path) -> dict[str, Any]:
    """How it came about."""
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return {"command": run["command"], "steps": run["metrics"]["step"]}


def frames_a_second(env: gym.Env) -> float:
    """Of steps with their frames, without those that open the renderer."""
    env.reset(seed=0)
    env.action_space.seed(0)
    begun = 0.0
    for frame in range(-3, FRAMES):
        if frame == 0:
            begun = time.perf_counter()
        *_, terminated, truncated, _ = env.step(env.action_space.sample())
        env.render()
        if terminated or truncated:
            env.reset()
    speed = FRAMES / (time.perf_counter() - begun)
    env.close()
    return speed


def strip(config: Adapters, name: str, frames: np.ndarray, actions: np.ndarray, seen: int) -> None:
    """The last frame seen and the steps `at`: truth above what the environment of the dream shows for its actions."""
    env = gym.make("worldgym/Dream-v0", world=str(config.runs / name / "world"))
    env.reset(seed=config.seed, options={"frames": frames[:seen], "actions": actions[: seen - 1]})
    dreamed = np.stack([env.step(action)[0] for action in actions[seen - 1 :]])
    env.close()
    begun = frames[seen - 1 : seen]
    rows = [np.concatenate([begun, after])[[0, *config.at]] for after in (frames[seen:], dreamed)]
    Image.fromarray(np.concatenate([np.concatenate(list(row), 1) for row in rows])).save(path_of(config, name))


def path_of(config: Adapters, name: str) -> Path:
    """Of its strip of frames."""
    return config.runs / name / "strip.png"


def show(config: Adapters, names: list[str]) -> None:
    """All strips in two columns."""
    lines = -(-len(names) // 2)
    figure, axes = plt.subplots(lines, 2, figsize=(10, 2.2 * lines), layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, name in zip(axes.T.flat, names, strict=False):
        axis.imshow(Image.open(path_of(config, name)))
        axis.set_title(name, fontsize=10)
    figure.suptitle(f"MuJoCo above, the dream below: the last frame seen, then after {told(config.at)} steps")
    config.picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(config.picture, dpi=80)
    plt.close(figure)


def told(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}"


# -- the section of docs/results.md -----------------------------------------------------------------------------------


def section(results: Results) -> list[str]:
    m = results["metrics"]
    worlds, steps = m["worlds"].values(), " / ".join(str(step) for step in m["at"])
    last = m["at"][-1] - 1
    rows = []
    for found in worlds:
        gains = " / ".join(f"{found['psnr_gain'][step - 1]:+.1f}" for step in m["at"])
        low, high = found["psnr_gain_interval"][last]
        speeds, training = found["frames_a_second"], found["trained"]
        reward, interval = (found[f"reward_correlation_all_steps{which}"] for which in ("", "_interval"))
        rows.append(
            [
                f"`{found['environment'].rpartition(':')[2]}`",
                f"{speeds['as_it_comes']:.0f}",
                f"{speeds['recorded']:.0f}",
                f"{training['tokenizer']['steps']} + {training['world']['steps']}",
                one_digit(found["reconstruction_psnr"]),
                f"{gains} ({low:+.1f} to {high:+.1f})",
                estimate(reward, interval, ".2f"),
            ]
        )
    packages = sorted({f"{name} {number}" for found in worlds for name, number in found["versions"].items()})
    head = ["environment", "frames/s as it comes", "as recorded", "trained for", "tokenizer, dB", "gain, dB", "reward"]
    sizes = {(found["episodes"], found["frames"] // found["episodes"] - 1, found["stretches"]) for found in worlds}
    recorded = "; ".join(f"{one} episodes of {length} steps, {held} held out" for one, length, held in sorted(sizes))
    return [
        f"Other people's environments by their ids ({', '.join(packages)}). The trainings are so short that they show "
        f"an open way, and not how good a world can be. Each: {recorded}. Frames a second: of steps with their frames, "
        "as the package draws them and as `worldgym record` does, in one process. Trained for: steps of tokenizer and "
        "dynamics, from the weights of the Tabletop or of the package's first world. Gain: PSNR over repeating the "
        f"last frame seen, after {steps} steps of open loop, interval of the last; below 0 at first, since what has "
        "hardly moved is repeated better than so young a tokenizer draws it. Reward: correlation over all steps.",
        "",
        *markdown(head, rows),
        "",
        "![Held-out episodes, MuJoCo above the dream](images/adapters.png)",
        "",
        made_by(results),
    ]


SECTION = Section(
    "Do other people's environments come in by their ids?", ("adapters",), "benchmarks/adapters.sh", section
)


if __name__ == "__main__":
    main(tyro.cli(Adapters))
