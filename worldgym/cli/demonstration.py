"""The whole way in some minutes: dream, speak, plan in the dream, succeed in MuJoCo; one page to look at afterwards."""

import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from ..envs_real.tabletop import FRAMES_PER_TEXT, TabletopEnv
from ..envs_real.tabletop.cases import carry_out, held_out_episodes
from ..envs_real.twins import twin_of
from ..evaluate import dream, unseen, write_comparison
from ..evaluate.report import page, picture, png, table
from ..evaluate.rollout import Episode
from ..evaluate.video import enlarged, side_by_side, stacked, write_video
from ..metrics import psnr
from ..planners.planning import plan_and_act
from ..planners.settings import Planning
from ..world import WorldModel

SENTENCES = (
    "push the red block right",
    "push the blue block up",
    "push the red block down",
    "push the blue block left",
)
TASKS = {"reach": ("reach *",), "push": ("push the * to the centre", "push the * side", "push the * corner")}
WAYS = {
    "CEM in the dream": {"planner": "cem", "on": "dream"},
    "CEM on true physics": {"planner": "cem", "on": "mujoco"},
    "random actions": {"planner": "random"},
}


def demonstrate(world: WorldModel, name: str, out: Path, episodes: int, seed: int) -> Path:
    """Write videos and `index.html`, which has them all inside; returns the page's path.

    Args:
        name: what `world` was loaded by.
        episodes: of each task and each way to act.
    """
    began = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    size = sum(parameter.numel() for parameter in world.parameters())
    print(f"1. The world {world.config.name!r}: {size / 1e6:.1f} million parameters on {world.device}.")
    gain = dream_actions(world, out / "dream.gif", seed)
    print(f"2. Four dreams of 16 actions from one frame each, MuJoCo above and dream below: {out / 'dream.gif'}")
    speak(world, out / "sentences.gif", seed)
    print(f"3. Four sentences, carried out in MuJoCo above and in the dream below: {out / 'sentences.gif'}")
    ahead = "" if world.recurrent is None else " In the dream, futures are tried in its state, and no picture is drawn."
    print(f"4. Planning, and acting in MuJoCo.{ahead}")
    figures, played = plan(world, name, episodes, seed)
    rewards = {}
    for task in TASKS:
        rows = [side_by_side([episode.frames for episode in played[task, way][:4]], gap=2) for way in WAYS]
        write_video(out / f"{task}.gif", enlarged(stacked(rows, gap=2)))
        rewards[task] = reward_curves(played, task)
    parts = [
        f"<h1>A demonstration of {world.config.name}</h1>",
        f"<p>{size / 1e6:.1f} million parameters on {world.device}, seed {seed}.</p>",
        "<h2>Dreaming</h2><p>Held-out episodes, open loop from one real frame: MuJoCo above, the dream below.</p>",
        shown(out / "dream.gif", "four dreams under four episodes of MuJoCo"),
        picture(gain, "png", "PSNR by step"),
        f"<h2>Sentences</h2><p>{'; '.join(SENTENCES)}. MuJoCo above, the dream below, 16 frames each.</p>",
        shown(out / "sentences.gif", "four sentences carried out"),
        "<h2>Planning</h2><p>All act in MuJoCo, from the same seeds; they differ in where action sequences are tried."
        f"{ahead}</p>",
        table(["", *TASKS, "seconds a decision"], figures),
    ]
    for task in TASKS:
        parts += [
            f"<h3>{task}</h3><p>Rows: {', '.join(WAYS)}.</p>",
            shown(out / f"{task}.gif", f"episodes of {task}"),
            picture(rewards[task], "png", f"reward by step, {task}"),
        ]
    (out / "index.html").write_text(page(f"A demonstration of {world.config.name}", parts), encoding="utf-8")
    print(f"Done in {time.monotonic() - began:.0f} s. Look at {out / 'index.html'}")
    return out / "index.html"


def dream_actions(world: WorldModel, path: Path, seed: int) -> bytes:
    """Write a video of held-out episodes next to their dreams; returns a PNG of the PSNR by step."""
    episodes, _ = held_out_episodes(4, 15 + world.config.dynamics.observed, seed)
    real = unseen(world, episodes)
    dreamed = np.concatenate([real.frames[:, :1], dream(world, episodes, seed).frames], 1)
    write_comparison(path, real.frames, dreamed)
    figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
    still = np.broadcast_to(real.frames[:, :1], real.frames.shape)
    for label, shown_frames in (("the dream", dreamed), ("the first frame repeated", still)):
        axis.plot(range(1, 17), psnr(shown_frames[:, 1:], real.frames[:, 1:]).mean(0), label=label)
    axis.set(xlabel="step", ylabel="PSNR against MuJoCo, dB")
    axis.legend()
    return png(figure)


def speak(world: WorldModel, path: Path, seed: int) -> None:
    """A video of sentences, carried out in MuJoCo by the scripted controller and in the dream by the world itself."""
    env, videos = TabletopEnv(), []
    for index, sentence in enumerate(SENTENCES):
        first, _ = env.reset(seed=seed + index)
        videos.append(np.stack([first, *(env.render() for _ in carry_out(env, sentence))]))
    env.close()
    real = np.stack(videos)
    state, dreamed = world.start(real[:, :1]), [real[:, 0]]
    for _ in range(FRAMES_PER_TEXT):
        state, _ = world.step(state, list(SENTENCES))
        dreamed.append(world.render(state).cpu().numpy())
    write_comparison(path, real, np.stack(dreamed, 1))


def plan(
    world: WorldModel, name: str, episodes: int, seed: int
) -> tuple[list[list[str]], dict[tuple[str, str], list[Episode]]]:
    """Each way to act, on each task: the rows of a table, and the episodes by (task, way)."""
    played: dict[tuple[str, str], list[Episode]] = {}
    rows, twin = [], twin_of(world.config)
    for way, arguments in WAYS.items():
        row, seconds = [way], None
        for task, patterns in TASKS.items():
            asked: Any = {"instruction": patterns, "episodes": episodes, "seed": seed, **arguments}
            metrics, played[task, way] = plan_and_act(Planning(name, **asked), world, twin)
            seconds = metrics["seconds_per_decision"]
            won = sum(episode.success for episode in played[task, way])
            row.append(f"{won} of {episodes}, return {metrics['mean_return']:.1f}")
            print(f"   {task}, {way}: {row[-1]}")
        rows.append([*row, "-" if seconds is None else f"{seconds:.2f}"])
    twin.close()
    return rows, played


def reward_curves(played: dict[tuple[str, str], list[Episode]], task: str) -> bytes:
    """Mean reward by step of each way to act, as a PNG; an episode that succeeded is at 0 from then on."""
    figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
    longest = max(len(episode.rewards) for way in WAYS for episode in played[task, way])
    for way in WAYS:
        rewards = [np.pad(episode.rewards, (0, longest - len(episode.rewards))) for episode in played[task, way]]
        axis.plot(range(1, longest + 1), np.mean(rewards, 0), label=way)
    axis.set(xlabel="step", ylabel="reward in MuJoCo")
    axis.legend()
    return png(figure)


def shown(path: Path, alt: str) -> str:
    """HTML of a GIF."""
    return f"<p>{picture(path.read_bytes(), 'gif', alt)}</p>"
