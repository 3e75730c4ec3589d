"""WorldGym and LeRobot: each reads what the other wrote, and LeRobot rolls out a world by the `env.py` of its EnvHub.

Run by with_lerobot.sh, in an environment that has both; a folder stands in for the hub.
"""

import importlib.metadata
import inspect
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import torch
import tyro

# Compiled operators of torchvision, which nothing here needs, do not load next to torch for CPUs.
register_fake, torch.library.register_fake = torch.library.register_fake, lambda name: lambda function: function  # type: ignore
import torchvision  # noqa: E402, F401

torch.library.register_fake = register_fake

from lerobot.datasets.compute_stats import aggregate_stats, compute_episode_stats  # noqa: E402
from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402
from lerobot.datasets.utils import DEFAULT_FEATURES, validate_frame  # noqa: E402

from worldgym.data import load_episodes  # noqa: E402
from worldgym.datasets import DreamedEpisode, dream_episodes  # noqa: E402
from worldgym.envs_real import hopper_record, reacher_record  # noqa: E402
from worldgym.envs_real.settings import RecordConfig  # noqa: E402
from worldgym.envs_real.tabletop import record as tabletop_record  # noqa: E402
from worldgym.hub import ENV_PY  # noqa: E402
from worldgym.lerobot import lerobot_to_minari, minari_to_lerobot, write_lerobot  # noqa: E402
from worldgym.listing import find_world  # noqa: E402
from worldgym.results import current_commit, write_results  # noqa: E402
from worldgym.starts import bundled_starts  # noqa: E402
from worldgym.world import WorldModel  # noqa: E402

RECORDERS = {"tabletop": tabletop_record, "reacher": reacher_record, "hopper": hopper_record}


@dataclass(frozen=True)
class WithLeRobot:
    json: Path | None = None
    """Write the figures here."""
    steps: int = 6
    """Of each episode."""


def main(config: WithLeRobot) -> None:
    commit, metrics = current_commit(), {"lerobot": importlib.metadata.version("lerobot")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["MINARI_DATASETS_PATH"] = str(folder / "minari")
        for world in RECORDERS:
            metrics |= {f"{world}, {what}": figure for what, figure in read_back(folder, world, config.steps).items()}
        metrics["its own data set, imported"] = import_theirs(folder)
        metrics["its own videos, streamed"] = stream_theirs(folder)
        metrics["EnvHub"] = roll_out(folder) or "this version has none"
    for what, figure in metrics.items():
        print(f"{what}: {figure}")
    if config.json:
        write_results(config.json, 0, metrics, commit)


def read_back(folder: Path, name: str, steps: int) -> dict[str, str]:
    """Dreams and a recording of a bundled world as LeRobot loads them, compared number by number."""
    world = WorldModel.load(name)
    starts, rng = bundled_starts(name, world.config), np.random.default_rng(0)
    assert starts is not None
    first = np.stack([starts.draw(None, rng).frames[-1] for _ in range(2)])
    actions = rng.uniform(-1, 1, (2, steps, world.config.action_size)).astype(np.float32)
    dreams = dream_episodes(world, first, actions)
    write_lerobot(folder / f"dreams_{name}", name, dreams)

    dataset = f"test/{name}-v0"
    RECORDERS[name].record(RecordConfig(dataset, episodes=2, steps=steps, workers=1))
    minari_to_lerobot(dataset, folder / f"recorded_{name}")
    data = load_episodes(dataset)
    recorded = []
    for begin, end in zip(data.starts, data.starts[1:], strict=False):
        parts = {part: getattr(data, part)[begin:end] for part in ("frames", "rewards", "successes", "terminations")}
        empty = {"uncertainty": np.zeros(end - begin), "seed": 0}
        recorded.append(DreamedEpisode(actions=data.actions[begin : end - 1], **parts, **empty))
    return {
        "dreams": compare(folder / f"dreams_{name}", dreams),
        "recording": compare(folder / f"recorded_{name}", recorded),
    }


def compare(folder: Path, episodes: list[DreamedEpisode]) -> str:
    found = LeRobotDataset("local/test", root=folder)
    number = 0
    for episode in episodes:
        for step in range(len(episode.actions)):
            row = found[number]
            frame = np.rint(row["observation.image"].numpy().transpose(1, 2, 0) * 255)
            assert np.array_equal(frame, episode.frames[step])
            assert np.array_equal(row["action"].numpy(), episode.actions[step])
            for part in ("rewards", "successes", "terminations"):
                found_part = np.atleast_1d(row[f"next.{part}"].numpy())
                assert np.array_equal(found_part, getattr(episode, part)[step + 1])
            number += 1
    assert len(found) == number and found.num_episodes == len(episodes)
    check_by_lerobot(folder, found)
    state = found.features.get("observation.state", {"shape": (0,)})["shape"][0]
    what = f"{number} rows of {len(episodes)} episodes are equal and pass LeRobot's checks"
    return f"{what}, observation.state has {state} numbers"


def check_by_lerobot(folder: Path, found: LeRobotDataset) -> None:
    """LeRobot's own checks of frames that it writes, its statistics, and its windows in time, on a data set of ours."""
    for index in range(len(found)):
        row = found[index]
        frame = {name: np.atleast_1d(row[name].numpy()) for name in set(found.features) - set(DEFAULT_FEATURES)}
        frame["observation.image"] = np.moveaxis(frame["observation.image"], 0, 2)
        validate_frame(frame | {"task": row["task"]}, found.features)
    parts = []
    for episode in range(found.num_episodes):
        rows = [row for row in found.hf_dataset if row["episode_index"] == episode]
        numbers = {name: np.stack([np.atleast_1d(row[name]) for row in rows]) for name in ("action", "next.rewards")}
        parts.append(compute_episode_stats(numbers, found.features))
    for name, theirs in aggregate_stats(parts).items():
        for figure in ("min", "max", "mean", "std", "count"):
            assert np.allclose(found.meta.stats[name][figure], theirs[figure], atol=1e-5), (name, figure)
    times = {"action": [0.0, 1 / found.fps], "observation.image": [-1 / found.fps, 0.0]}
    window = LeRobotDataset("local/test", root=folder, delta_timestamps=times)[1]
    assert torch.equal(window["action"], torch.stack([found[1]["action"], found[2]["action"]]))
    images = torch.stack([found[0]["observation.image"], found[1]["observation.image"]])
    assert torch.equal(window["observation.image"], images)


def import_theirs(folder: Path) -> str:
    """What LeRobot writes itself, with pictures that are not square."""
    features: dict[str, dict[str, Any]] = {
        "observation.images.top": {"dtype": "image", "shape": (48, 64, 3), "names": ["height", "width", "channels"]},
        "observation.state": {"dtype": "float32", "shape": (2,), "names": None},
        "action": {"dtype": "float32", "shape": (2,), "names": None},
    }
    theirs = LeRobotDataset.create("local/theirs", 10, features, root=folder / "theirs", use_videos=False)
    pictures, actions = [], []
    rng = np.random.default_rng(0)
    for _ in range(2):
        for _ in range(5):
            picture, number = rng.integers(0, 256, (48, 64, 3), np.uint8), rng.uniform(-2, 2, 2).astype(np.float32)
            theirs.add_frame(
                {"observation.images.top": picture, "observation.state": number, "action": number, "task": "reach"}
            )
            pictures.append(picture[:, 8:56]), actions.append(number)
        theirs.save_episode()
    getattr(theirs, "finalize", lambda: None)()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", UserWarning)
        lerobot_to_minari(folder / "theirs", "test/theirs-v0", size=48, reward="end")
    data = load_episodes("test/theirs-v0")
    assert np.array_equal(data.frames, pictures) and data.starts.tolist() == [0, 5, 10]
    wanted = np.stack(actions) / np.abs(actions).max(0)
    steps = np.r_[0:4, 5:9]
    assert np.allclose(data.actions[steps], wanted[steps]) and data.instructions == ("reach",)
    assert any("square in the middle" in str(warning.message) for warning in warned)
    return "10 frames and their actions are equal"


def stream_theirs(folder: Path) -> str:
    """What LeRobot writes itself: two cameras in several videos, streamed.

    Its own metadata say which frame of which video each row shows, and ffmpeg decodes that from the video's start:
    LeRobot's own decoders need an older torchvision, or torchcodec.
    """
    cameras = {f"observation.images.{name}": sides for name, sides in (("top", (96, 128)), ("wrist", (64, 64)))}
    features: dict[str, dict[str, Any]] = {
        name: {"dtype": "video", "shape": (*sides, 3), "names": ["height", "width", "channels"]}
        for name, sides in cameras.items()
    }
    features["action"] = {"dtype": "float32", "shape": (2,), "names": None}
    theirs = LeRobotDataset.create("local/videos", 10, features, root=folder / "videos", use_videos=True)
    theirs.meta.info |= {"video_files_size_in_mb": 0.01, "data_files_size_in_mb": 0.01}
    rng = np.random.default_rng(0)
    lengths = [12 + number % 5 for number in range(21)]
    for number, length in enumerate(lengths):
        for step in range(length):
            shown = {name: np.full((*sides, 3), 40 + 8 * number, np.uint8) for name, sides in cameras.items()}
            for picture in shown.values():
                picture[:, 4 * step : 4 * step + 8] = 255
            acted = {"action": rng.uniform(-2, 2, 2).astype(np.float32)}
            theirs.add_frame(shown | acted | {"task": "reach"})
        theirs.save_episode()
    getattr(theirs, "finalize", lambda: None)()
    loaded, worst = LeRobotDataset("local/videos", root=folder / "videos").meta, 0
    files = {name: len(list((folder / "videos/videos" / name).rglob("*.mp4"))) for name in cameras}
    for name, (height, width) in cameras.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            data = load_episodes(f"lerobot:{folder}/videos?camera={name}&size={height}&reward=end")
        assert np.diff(data.starts).tolist() == lengths
        left = (width - height) // 2
        for episode in range(0, len(lengths), 3):
            film = imageio.imread(folder / "videos" / loaded.get_video_file_path(episode, name), plugin="FFMPEG")
            first = round(loaded.episodes[episode][f"videos/{name}/from_timestamp"] * loaded.fps)
            wanted = film[first : first + lengths[episode], :, left : left + height].astype(int)
            frames = data.frames[data.starts[episode] : data.starts[episode + 1]]
            worst = max(worst, int(np.abs(wanted - frames).max()))
    assert worst <= 4, worst
    several = " and ".join(f"{count} files" for count in files.values())
    assert min(files.values()) > 1, files
    return f"{sum(lengths)} frames of two cameras in {several}: a third, compared, differ by at most {worst} of 255"


class Still(torch.nn.Module):
    """A policy that does nothing, as LeRobot's `rollout` asks one."""

    def __init__(self, size: int):
        super().__init__()
        self.size, self.nothing = size, torch.nn.Parameter(torch.zeros(1))

    def reset(self) -> None:
        pass

    def select_action(self, observation: dict[str, Any]) -> torch.Tensor:
        return torch.zeros(len(observation["observation.image"]), self.size)


def roll_out(folder: Path) -> str | None:
    """LeRobot's own `make_env` and `rollout` on the `env.py` of a world; None before it has an EnvHub."""
    from lerobot.envs import utils
    from lerobot.envs.factory import make_env
    from lerobot.scripts.lerobot_eval import rollout

    if not hasattr(utils, "_download_hub_file"):
        return None
    (folder / "pushed").mkdir()
    for file in find_world("hopper").iterdir():
        if file.is_file():
            (folder / "pushed" / file.name).symlink_to(file)
    (folder / "pushed/env.py").write_text(ENV_PY.format(repo="user/hopper"), encoding="utf-8")
    utils.hf_hub_download = lambda **_: str(folder / "pushed/env.py")
    envs = make_env("user/hopper", n_envs=2, trust_remote_code=True)
    env = envs["hopper"][0]
    processors = {name: lambda value: value for name in inspect.signature(rollout).parameters if "processor" in name}
    try:
        with torch.no_grad():
            played = rollout(env=env, policy=Still(env.single_action_space.shape[0]), seeds=[0, 1], **processors)
    except KeyError as error:  # 0.4.1 alone
        return f"its rollouts take environments with {error} only"
    assert torch.isfinite(played["reward"]).all()
    dreams, steps = played["reward"].shape
    return f"{dreams} dreams of {steps} steps"


if __name__ == "__main__":
    main(tyro.cli(WithLeRobot))
