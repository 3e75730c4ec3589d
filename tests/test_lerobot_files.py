"""LeRobot data sets, streamed as they lie: the episodes that the converted copy has, without the copy."""

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from worldgym import lerobot_files as lerobot_files_module
from worldgym import streams as streams_module
from worldgym.cli.shard import Shard, shard
from worldgym.data import load_episodes, segments_at
from worldgym.errors import UserError
from worldgym.lerobot import lerobot_to_minari
from worldgym.shards import DTYPES

LENGTHS = [5 + number % 4 for number in range(22)]
SINGLE = 7
"""An episode of one row, which is left out."""
LENGTHS[SINGLE] = 1
TOP, WRIST = "observation.images.top", "observation.images.wrist"
SIDES = {TOP: (32, 48), WRIST: (32, 32)}
FPS = 10
GOP = 12
"""Frames from one key frame to the next: more than an episode has."""


def picture(camera: str, episode: int, step: int) -> np.ndarray:
    """Says by its grey which it is; uint8 [h, w, 3]."""
    grey = (40 if camera == TOP else 20) + 9 * episode + 3 * (step % 3)
    frame = np.full((*SIDES[camera], 3), grey, np.uint8)
    frame[:, : SIDES[camera][1] // 4] = 255 - grey
    return frame


def film(path: Path, frames: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as video:
        stream = video.add_stream("libx264", FPS, options={"g": str(GOP), "crf": "1"})
        stream.height, stream.width = frames[0].shape[:2]
        for frame in frames:
            video.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        video.mux(stream.encode())


def robot_set(folder: Path, tasks: tuple[str, ...] = ("open the drawer",)) -> Path:
    """As LeRobot lays it out: 22 episodes, two cameras, two files of everything, cut at different episodes."""
    random, begins = np.random.default_rng(0), np.cumsum([0, *LENGTHS])
    episodes: dict[str, list] = {
        "episode_index": list(range(22)), "tasks": [[tasks[number % len(tasks)]] for number in range(22)],
        "length": LENGTHS, "dataset_from_index": begins[:-1].tolist(), "dataset_to_index": begins[1:].tolist(),
        "stats/action/max": [[1.0]] * 22,
    }  # fmt: skip
    for camera, cut in ((TOP, 9), (WRIST, 15)):
        files = [number >= cut for number in range(22)]
        for file, members in ((0, range(cut)), (1, range(cut, 22))):
            frames = [picture(camera, one, step) for one in members for step in range(LENGTHS[one])]
            film(folder / f"videos/{camera}/chunk-00{file}/file-00{file}.mp4", frames)
        key, first = f"videos/{camera}", [0, begins[cut]]
        episodes |= {
            f"{key}/chunk_index": [int(one) for one in files],
            f"{key}/file_index": [int(one) for one in files],
        }
        episodes[f"{key}/from_timestamp"] = [
            float(begins[number] - first[file]) / FPS for number, file in enumerate(files)
        ]
    rows = {"action": random.uniform(-3, 3, (begins[-1], 2)).astype(np.float32).tolist(), "next.reward": None,
            "observation.state": [[0.0]] * begins[-1]}  # fmt: skip
    rows["next.reward"] = random.normal(size=begins[-1]).astype(np.float32).tolist()
    rows["next.success"] = (random.random(begins[-1]) < 0.3).tolist()
    for under, columns, cut in (("data", rows, int(begins[12])), ("meta/episodes", episodes, 12)):
        for file, part in ((0, slice(cut)), (1, slice(cut, None))):
            path = folder / under / "chunk-000" / f"file-00{file}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table({name: values[part] for name, values in columns.items()}), path)
    kinds = {"next.success": "bool", TOP: "video", WRIST: "video"}
    info = {
        "codebase_version": "v3.0", "fps": FPS,
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": {name: {"dtype": kinds.get(name, "float32")} for name in (*rows, TOP, WRIST)},
    }  # fmt: skip
    (folder / "meta/info.json").write_text(json.dumps(info), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def robot(tmp_path_factory) -> Path:
    return robot_set(tmp_path_factory.mktemp("robot") / "set")


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def streamed(name: str):
    with pytest.warns(UserWarning, match="episodes of one row"):
        return load_episodes(name)


@pytest.mark.parametrize(("camera", "reward"), [(TOP, "end"), (WRIST, "recorded")])
def test_the_episodes_are_those_of_the_copy(datasets, robot, camera, reward):
    with pytest.warns(UserWarning, match="episodes of one row"):
        lerobot_to_minari(robot, "test/copy-v0", 32, camera, reward)
    copy, data = load_episodes("test/copy-v0"), streamed(f"lerobot:{robot}?camera={camera}&size=32&reward={reward}")
    assert np.array_equal(data.starts, copy.starts) and len(data.starts) == 22
    for name in DTYPES:
        found, wanted = getattr(data, name)[:], getattr(copy, name)
        assert found.dtype == wanted.dtype and np.array_equal(found, wanted), name
    for split in ("train", "validation", "test"):
        assert np.array_equal(data.split(split), copy.split(split))
    assert np.isclose(data.reward_variance, copy.reward_variance)
    assert (data.instructions, data.frames_per_action, data.environment) == (("open the drawer",), 1, "")


@pytest.mark.parametrize("camera", [TOP, WRIST])
def test_each_episode_is_its_part_of_the_video(robot, camera):
    """In whatever order they are read, and whichever of the files they are in."""
    data = streamed(f"lerobot:{robot}?camera={camera}&size=32&reward=end")
    kept = [number for number in range(22) if number != SINGLE]
    for number in np.random.default_rng(0).permutation(len(kept)).tolist():
        frames = data.frames[data.starts[number] : data.starts[number + 1]].astype(int)
        wanted = np.stack([picture(camera, kept[number], step) for step in range(LENGTHS[kept[number]])])
        cut = (wanted.shape[2] - 32) // 2
        assert np.abs(frames - wanted[:, :, cut : cut + 32]).max() <= 8


def test_memory_holds_a_window_of_decoded_episodes(robot, monkeypatch):
    monkeypatch.setattr(lerobot_files_module, "DECODED", 5 * 6 * 32 * 32 * 3)
    data = streamed(f"lerobot:{robot}?camera={WRIST}&size=32&reward=end")
    assert 3 <= data.stream.window <= 5
    data.frames[:]
    assert len(data.stream._held) <= data.stream.window + streams_module.AHEAD + 1


def test_training_decodes_an_episode_once_in_a_window(robot, monkeypatch):
    read, load = [], lerobot_files_module.LeRobotStream.load

    def counted(self, number):
        read.append(number)
        return load(self, number)

    monkeypatch.setattr(lerobot_files_module.LeRobotStream, "load", counted)
    monkeypatch.setattr(lerobot_files_module, "DECODED", 5 * 6 * 32 * 32 * 3)
    data = streamed(f"lerobot:{robot}?camera={WRIST}&size=32&reward=end")
    choose, train = data.choice(data.split("train"), 4), data.split("train")
    draws = int((-(-data.stream.lengths[train] // streams_module.DRAWN)).sum())
    for step in range(draws // 4):
        segments_at(data, data.starts[choose(0, step, np.random.default_rng(0))], 4)
    assert set(read) == set(train.tolist())
    # Once round the circle, again the window with which the epoch began, and what comes next.
    assert len(read) <= len(train) + data.stream.window + streams_module.AHEAD + 2


def test_other_filesystems_will_do(robot, tmp_path):
    """Any that fsspec knows: here one within a zip file."""
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", robot)
    asked = f"?camera={TOP}&size=32&reward=end"
    here, there = streamed(f"lerobot:{robot}{asked}"), streamed(f"lerobot:zip://::file://{packed}{asked}")
    assert np.array_equal(there.frames[:], here.frames[:]) and np.array_equal(there.actions, here.actions)


def test_shards_are_made_of_them_without_a_copy(robot, tmp_path):
    name = f"lerobot:{robot}?camera={TOP}&size=32&reward=recorded"
    with pytest.warns(UserWarning, match="episodes of one row"):
        shard(Shard(name, f"file://{tmp_path}/shards"))
    data, shards = streamed(name), load_episodes(f"file://{tmp_path}/shards")
    order = np.concatenate([data.split(split) for split in ("train", "validation", "test")])
    rows = np.concatenate([np.arange(*data.starts[one : one + 2]) for one in order])
    assert shards.instructions == data.instructions
    for part in DTYPES:
        assert np.array_equal(getattr(shards, part)[:], getattr(data, part)[rows]), part


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("", f"camera is None; .* has {TOP}, {WRIST}"),
        ("?camera=front&size=32", f"camera is 'front'; .* has {TOP}, {WRIST}"),
        (f"?camera={TOP}&sise=32", r"asks for camera=.*&sise=32; expected lerobot:.*\?camera=NAME&size=64&reward=end"),
        (f"?camera={TOP}&size=big", "size is a whole number"),
        (f"?camera={TOP}&reward=start", "reward is recorded or end"),
        (f"?camera={TOP}&size=30", "resolution is 30"),
    ],
)
def test_what_cannot_be_asked_for_is_told(robot, asked, says):
    with pytest.raises(UserError, match=f"(?s){says}"):
        load_episodes(f"lerobot:{robot}{asked}")


def test_what_cannot_be_read_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="no LeRobot data set"):
        load_episodes(f"lerobot:{tmp_path}/nothing")
    robot_set(tmp_path / "two", ("open", "close"))
    with pytest.raises(UserError, match="2 tasks"):
        load_episodes(f"lerobot:{tmp_path}/two?camera={TOP}&reward=end")
    folder = robot_set(tmp_path / "set")
    name, later = f"lerobot:{folder}?camera={TOP}&reward=end", folder / f"videos/{TOP}/chunk-001/file-001.mp4"
    later.write_bytes(later.read_bytes()[:200])
    with pytest.raises(UserError, match=r"episode 9: .*file-001\.mp4 cannot be decoded"):
        streamed(name).frames[:]
    film(later, [picture(TOP, 9, step) for step in range(3)])
    with pytest.raises(UserError, match="episode 9: it has 6 rows and 3 frames"):
        streamed(name).frames[:]
    later.unlink()
    with pytest.raises(UserError, match=r"episode 9: .*file-001\.mp4 is missing"):
        streamed(name).frames[:]
    (folder / "meta/episodes/chunk-000/file-001.parquet").unlink()
    (folder / "meta/episodes/chunk-000/file-000.parquet").unlink()
    with pytest.raises(UserError, match=r"has no meta/episodes/chunk-000/file-000\.parquet"):
        load_episodes(name)
