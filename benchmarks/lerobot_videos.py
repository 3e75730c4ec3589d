"""How fast does training read LeRobot data sets as they are, next to a copy and next to shards?

    pip install "worldgym[lerobot,shards]"
    python benchmarks/lerobot_videos.py

Writes recorded episodes as LeRobot data sets: with pictures in parquet, and with a video of a larger camera, encoded as
LeRobot encodes it. Then it reads the windows of one epoch, batch by batch, as the trainings do: from the data set
itself, from its copy in Minari and from shards of it, and checks that all give the same frames. All files are in the
page cache. Seconds are of the processor, all threads together, because other programs may share the cores.
"""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tyro
from section import RESULTS, Results, Section, made_by, markdown

from worldgym.streams import DRAWN

CODEC, OPTIONS = "libsvtav1", {"g": "2", "crf": "30", "preset": "12"}
"""LeRobot's own, but for the preset, which makes encoding faster and files larger."""
CAMERA = "observation.image"


@dataclass(frozen=True)
class LeRobotVideos:
    """Compare ways to read them."""

    dataset: str = "worldgym/reacher-v0"
    episodes: int = 60
    sides: tuple[int, ...] = (64, 480)
    """Of the camera's square pictures, in pixels."""
    batch: int = 48
    frames: int = 17
    """In a window."""
    seed: int = 0
    json: Path = RESULTS / "lerobot_videos.json"


def write_pictures(config: LeRobotVideos, folder: Path) -> None:
    """The first episodes of the recording, as a LeRobot data set with PNG in parquet."""
    from worldgym.data import load_episodes
    from worldgym.datasets import DreamedEpisode
    from worldgym.lerobot import write_lerobot

    data, episodes = load_episodes(config.dataset), []
    for begin, end in zip(data.starts[: config.episodes], data.starts[1:], strict=False):
        parts = {name: data_rows(data, name, begin, end) for name in ("frames", "rewards", "successes", "terminations")}
        acted = data_rows(data, "actions", begin, end - 1)
        episodes.append(DreamedEpisode(actions=acted, uncertainty=np.zeros(end - begin, np.float32), seed=0, **parts))
    write_lerobot(folder, "reacher", episodes)


def data_rows(data: Any, name: str, begin: int, end: int) -> np.ndarray:
    return np.array(getattr(data, name)[begin:end])


def write_video(pictures: Path, folder: Path, side: int) -> None:
    """The same data set with its pictures, enlarged, in one video."""
    import av
    import pyarrow.parquet as pq
    from PIL import Image

    from worldgym.lerobot_files import LeRobotFiles

    files, info = LeRobotFiles(str(pictures), 64), json.loads((pictures / "meta/info.json").read_text(encoding="utf-8"))
    info["features"][CAMERA] |= {"dtype": "video", "shape": [side, side, 3]}
    info["video_path"] = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    episodes = pq.read_table(pictures / "meta/episodes/chunk-000/file-000.parquet")
    key = f"videos/{CAMERA}"
    for name in ("chunk_index", "file_index"):
        episodes = episodes.append_column(f"{key}/{name}", [[0] * len(episodes)])
    begins = [begin / info["fps"] for begin in episodes["dataset_from_index"].to_pylist()]
    episodes = episodes.append_column(f"{key}/from_timestamp", [begins])
    rows = pq.read_table(pictures / "data/chunk-000/file-000.parquet").drop_columns([CAMERA])
    for path, table in (("data", rows), ("meta/episodes", episodes)):
        (folder / path / "chunk-000").mkdir(parents=True)
        pq.write_table(table, folder / path / "chunk-000/file-000.parquet")
    (folder / "meta/info.json").write_text(json.dumps(info), encoding="utf-8")
    (folder / f"{key}/chunk-000").mkdir(parents=True)
    with av.open(str(folder / f"{key}/chunk-000/file-000.mp4"), "w") as video:
        stream: Any = video.add_stream(CODEC, info["fps"], options=OPTIONS)
        stream.width = stream.height = side
        for number in range(len(files)):
            for frame in files.frames(number):
                picture = Image.fromarray(frame).resize((side, side), Image.Resampling.BICUBIC)
                video.mux(stream.encode(av.VideoFrame.from_image(picture)))
        video.mux(stream.encode())


def read_epoch(config: LeRobotVideos, data: Any, windows: list[np.ndarray] | None = None) -> dict[str, Any]:
    """An epoch, or the windows that are told: seconds of the processor, what was read, and where."""
    from worldgym.data import StreamedEpisodes

    random, train = np.random.default_rng(config.seed), data.split("train")
    if windows is None:
        assert isinstance(data, StreamedEpisodes)
        choose, draws = data.choice(train, config.batch), int(data.draws(train).sum())
    wanted, sums, began = [], [], time.process_time()
    for step in range(len(windows) if windows is not None else draws // config.batch):
        if windows is not None:
            first = windows[step]
        else:
            chosen = choose(config.seed, step, random)
            room = data.starts[chosen + 1] - data.starts[chosen] - config.frames
            first = data.starts[chosen] + random.integers(room + 1)
        wanted.append(first)
        sums.append(int(data.frames[first[:, None] + np.arange(config.frames)].sum(dtype=np.int64)))
    return {"seconds": time.process_time() - began, "windows": wanted, "sums": sums}


def compare(config: LeRobotVideos, folder: Path, name: str) -> dict[str, Any]:
    """The same windows from the data set, its copy and its shards."""
    from worldgym.cli.shard import Shard, shard
    from worldgym.data import load_episodes
    from worldgym.lerobot import lerobot_to_minari

    data = load_episodes(f"lerobot:{folder}")
    streamed = read_epoch(config, data)
    began = time.process_time()
    copy_id = f"benchmark/{name.replace('_', '-')}-v0"
    lerobot_to_minari(folder, copy_id, 64)
    copy = load_episodes(copy_id)
    copying = time.process_time() - began
    began = time.process_time()
    shard(Shard(f"lerobot:{folder}", f"file://{folder}_shards"))
    sharding = time.process_time() - began
    shards = load_episodes(f"file://{folder}_shards")
    order = np.concatenate([data.split(split) for split in ("train", "validation", "test")])
    place = np.empty(len(order), int)
    place[order] = np.arange(len(order))  # shards hold the splits one after another
    moved = []
    for first in streamed["windows"]:
        episode = data.episodes_of(first)
        moved.append(shards.starts[place[episode]] + first - data.starts[episode])
    ways = {"as it is": streamed, "copy in Minari": read_epoch(config, copy, streamed["windows"]),
            "in shards": read_epoch(config, shards, moved)}  # fmt: skip
    assert all(way["sums"] == streamed["sums"] for way in ways.values())
    count = config.batch * len(streamed["sums"])
    sizes = {
        "as it is": size(folder),
        "copy in Minari": copy.frames[:].nbytes,
        "in shards": size(Path(f"{folder}_shards")),
    }
    preparing = {"as it is": 0.0, "copy in Minari": copying, "in shards": sharding}
    return {
        way: {"windows_s": count / one["seconds"], "megabytes": sizes[way] / 1e6, "preparing_s": preparing[way]}
        for way, one in ways.items()
    }


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def measure(config: LeRobotVideos) -> dict[str, Any]:
    told: dict[str, Any] = {"recording": config.dataset, "episodes": config.episodes, "frames": config.frames,
                            "batch": config.batch, "codec": CODEC, "options": OPTIONS, "sets": {}}  # fmt: skip
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(config, folder / "pictures")
        os.environ["MINARI_DATASETS_PATH"] = str(folder / "minari")
        sets = {"pictures in parquet, 64 pixels": folder / "pictures"}
        for side in config.sides:
            sets[f"video of {side} pixels"] = folder / f"video_{side}"
            write_video(folder / "pictures", folder / f"video_{side}", side)
        for what, where in sets.items():
            told["sets"][what] = compare(config, where, where.name)
            print(what, told["sets"][what], flush=True)
    return told


def main(config: LeRobotVideos) -> None:
    from worldgym.results import check_results, current_commit, write_results  # brings torch, which takes its time

    commit = current_commit()
    check_results(config.json)
    write_results(config.json, config.seed, measure(config), commit)


# -- the section of docs/results.md -----------------------------------------------------------------------------------


def section(results: Results) -> list[str]:
    m = results["metrics"]
    rows = [
        [what, way, f"{one['windows_s']:,.0f}", f"{one['megabytes']:.1f}", f"{one['preparing_s']:.1f}"]
        for what, ways in m["sets"].items() for way, one in ways.items()
    ]  # fmt: skip
    options = ", ".join(f"{name} {value}" for name, value in m["options"].items())
    return [
        f"The first {m['episodes']} episodes of {m['recording']} as LeRobot data sets: with PNG in parquet, and with a "
        f"video of enlarged pictures ({m['codec']}, {options}). We read the windows of one epoch, {m['frames']} frames "
        f"each at 64 pixels, {m['batch']} a batch, in the order in which training reads them. `as it is` decodes every "
        "training episode once, at the camera's resolution. All files are in the page cache, and seconds are of the "
        f"processor over all threads. An epoch draws a window for every {DRAWN} frames, so each window costs "
        "the decoding of as many.",
        "",
        *markdown(["LeRobot data set", "read", "windows a second", "MB", "seconds of preparing"], rows),
        "",
        made_by(results),
    ]


SECTION = Section(
    "How fast are videos of LeRobot read?", ("lerobot_videos",), "python benchmarks/lerobot_videos.py", section
)

if __name__ == "__main__":
    main(tyro.cli(LeRobotVideos))
