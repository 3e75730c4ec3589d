"""Does a dream hold on tables it never saw? Colours, numbers of blocks, cameras and frictions held out of the training.

    python benchmarks/zero_shot.py tabletop --episodes 64

Each table is played by the same behaviours from the same seeds and dreamed open loop from one real frame, with the
true actions; the nominal table, on which the world was trained, is the figure to compare with. Positions are found by
colour, so the finder is told the table's own colours and, for a tilted camera, the camera: what it finds in the *true*
frames, and how well, is a column of its own, the floor of the errors beside it. A dream that paints an unknown colour
as a known one loses the object; that is the point.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from section import Results, Section, error, made_by, markdown, moved_error, share

from worldgym.envs_real.tabletop import TabletopEnv, Variation, locate
from worldgym.envs_real.tabletop.cases import BLOCK_WIDTH, HELD_OUT
from worldgym.envs_real.tabletop.skills import phrases, skill_action
from worldgym.evaluate import evaluate_objects
from worldgym.metrics import bootstrap, psnr, ssim
from worldgym.results import current_commit, write_results
from worldgym.world import WorldModel

TABLES = {
    "the training's table": Variation(),
    "colours: green, blue": Variation(colors=("green", "blue")),
    "colours: red, purple": Variation(colors=("red", "purple")),
    "one block: red": Variation(colors=("red",)),
    "three blocks: red, blue, yellow": Variation(colors=("red", "blue", "yellow")),
    "camera tilted by 10 degrees": Variation(camera_tilt=10.0),
    "camera tilted by 20 degrees": Variation(camera_tilt=20.0),
    "friction x 0.4": Variation(friction=0.4),
    "friction x 2.5": Variation(friction=2.5),
}
HEIGHTS = 0.2, 0.16
"""Of the pusher and of a block, in the unit of positions."""


@dataclass(frozen=True)
class ZeroShot:
    """Dream held-out episodes of tables that differ from the training's."""

    world: Annotated[str, tyro.conf.Positional] = "tabletop"
    """A bundled world or a checkpoint folder."""
    episodes: int = 64
    steps: int = 16
    seed: int = 0
    json: Path = Path("benchmarks/results/tabletop_zero_shot.json")
    pictures: Path = Path("docs/images")
    """Folder for zero_shot.png: true and dreamed frames of every table."""


def main(config: ZeroShot) -> None:
    commit = current_commit()
    world = WorldModel.load(config.world)
    tables, shown = {}, {}
    for name, variation in TABLES.items():
        frames, actions, positions = play(variation, config.episodes, config.steps, config.seed)
        dreamed = dream(world, frames, actions)
        tables[name] = figures(variation, frames, dreamed, positions)
        shown[name] = frames[0], dreamed[0]
        last = {key: tables[name][key][-1] for key in ("psnr_gain", "moved_error", "objects_kept")}
        print(f"{name:34s} " + "  ".join(f"{key} {value:6.2f}" for key, value in last.items()), flush=True)
    show(shown, config.pictures / "zero_shot.png")
    metrics = {"episodes": config.episodes, "steps": config.steps, "tables": tables}
    write_results(config.json, config.seed, metrics, commit)


def play(variation: Variation, count: int, steps: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames [n, t + 1, h, w, 3], actions [n, t, 2] and positions [n, t + 1, k, 2]: a sentence of the table's own,
    carried out with a little noise; every fourth episode plays smooth noise."""
    env = TabletopEnv(f"push the {variation.colors[0]} block to the centre", variation=variation)
    pushes = [task for phrase, task in phrases(env.colors).items() if phrase.startswith("push")]
    frames, actions, positions = [], [], []
    for index in range(count):
        rng = np.random.default_rng([HELD_OUT + seed, index])
        frame, info = env.reset(seed=int(rng.integers(2**31)))
        shots, done, places = [frame], [], [info["positions"]]
        task, motion = pushes[rng.integers(len(pushes))], rng.normal(size=2)
        for _ in range(steps):
            motion = 0.85 * motion + 0.5 * rng.normal(size=2)
            carried_out = skill_action(task, env.positions, env.colors) + 0.08 * rng.normal(size=2)
            action = np.clip(motion if index % 4 == 3 else carried_out, -1, 1).astype(np.float32)
            env.advance(action)
            shots.append(env.render())
            done.append(action)
            places.append(env.positions)
        frames.append(np.stack(shots))
        actions.append(np.stack(done))
        positions.append(np.stack(places))
    env.close()
    return np.stack(frames), np.stack(actions), np.stack(positions)


def dream(world: WorldModel, frames: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """uint8 [n, t, h, w, 3]."""
    state, shots = world.start(frames[:, :1]), []
    for when in range(actions.shape[1]):
        state, _ = world.step(state, actions[:, when])
        shots.append(world.render(state).cpu().numpy())
    return np.stack(shots, 1)


def figures(variation: Variation, frames: np.ndarray, dreamed: np.ndarray, positions: np.ndarray) -> dict[str, Any]:
    def find(pictures: np.ndarray) -> np.ndarray:
        return untilt(locate(pictures, variation.colors), variation.camera_tilt)

    truth = frames[:, 1:]
    repeat = np.broadcast_to(frames[:, :1], truth.shape)
    gain = psnr(dreamed, truth) - psnr(repeat, truth)
    in_truth = evaluate_objects(truth, positions, find, BLOCK_WIDTH)
    return {
        "psnr": psnr(dreamed, truth).mean(0).tolist(),
        "psnr_gain": gain.mean(0).tolist(),
        "psnr_gain_interval": [bootstrap(np.mean, one) for one in gain.T],
        "ssim": ssim(dreamed, truth).mean(0).tolist(),
        **evaluate_objects(dreamed, positions, find, BLOCK_WIDTH),
        "finder_on_true_frames": {name: in_truth[name] for name in ("controlled_error", "moved_error", "objects_kept")},
    }


def untilt(found: np.ndarray, degrees: float) -> np.ndarray:
    """Places on the table of what a camera tilted by `degrees` sees at these places of the nominal picture.

    It is orthographic: y shrinks by the cosine, and what has a height shows its side, which moves the middle of its
    silhouette up by the sine of half the height.
    """
    tilt, heights = np.deg2rad(degrees), np.array([HEIGHTS[0], *[HEIGHTS[1]] * (found.shape[-2] - 1)])
    x, y = found[..., 0], found[..., 1]
    return np.stack([x, (y - heights / 2 * np.sin(tilt)) / np.cos(tilt)], -1)


def show(tables: dict[str, tuple[np.ndarray, np.ndarray]], path: Path, steps: tuple[int, ...] = (1, 8, 16)) -> None:
    """Every table's first episode: true and dreamed frames at some steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    steps = tuple(step for step in steps if step <= len(next(iter(tables.values()))[1]))
    figure, axes = plt.subplots(
        len(tables), 1 + 2 * len(steps), figsize=(1.5 * (1 + 2 * len(steps)), 1.6 * len(tables)), layout="constrained"
    )
    for line, (name, (frames, dreamed)) in zip(axes, tables.items(), strict=True):
        pictures = [frames[0], *(picture for step in steps for picture in (frames[step], dreamed[step - 1]))]
        titles = ["start", *(f"{kind}, step {step}" for step in steps for kind in ("true", "dream"))]
        for axis, picture, title in zip(line, pictures, titles, strict=True):
            axis.imshow(picture)
            axis.set(xticks=[], yticks=[])
            axis.set_title(title, fontsize=7)
        line[0].set_ylabel(name.replace(": ", ":\n").replace(" by", "\nby").replace("'s", "'s\n"), fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    plt.close(figure)


# -- the section of docs/results.md -----------------------------------------------------------------------------------


def section(results: Results) -> list[str]:
    m = results["metrics"]
    steps = [step for step in (8, 16) if step <= m["steps"]]
    head = ["table", "PSNR gain, dB", "pusher's error", "moved blocks' error", "objects found", "finder's own error"]
    rows = []
    for name, t in m["tables"].items():
        shown = (
            [f"{t['psnr_gain'][s - 1]:+.1f}" for s in steps],
            [error(t["controlled_error"][s - 1]) for s in steps],
            [moved_error(t, t, s - 1) for s in steps],
            [share(t["objects_kept"][s - 1]) for s in steps],
            [moved_error(t, t["finder_on_true_frames"], s - 1) for s in steps],
        )
        rows.append([name, *(" / ".join(cells) for cells in shown)])
    return [
        f"{m['episodes']} episodes a table, the same behaviours and seeds, dreamed open loop from one real frame with "
        "the true actions. Each cell: after " + " / ".join(str(step) for step in steps) + " steps. PSNR gain is over "
        "repeating the first frame. Last column: the moved blocks' error of the finder itself, in the true frames.",
        "",
        *markdown(head, rows),
        "",
        "![True and dreamed frames of every table](images/zero_shot.png)",
        "",
        made_by(results),
    ]


SECTION = Section(
    "Does it hold on tables it never saw?", ("tabletop_zero_shot",), "python benchmarks/zero_shot.py tabletop", section
)


if __name__ == "__main__":
    main(tyro.cli(ZeroShot))
