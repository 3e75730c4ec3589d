"""LeRobot data sets: dreams written as one, and data sets read for training."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import imageio.v3 as imageio
import minari
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from worldgym.checkpoint import load_config
from worldgym.data import load_episodes
from worldgym.datasets import DreamedEpisode, dream_episodes
from worldgym.errors import UserError
from worldgym.lerobot import lerobot_to_minari, minari_to_lerobot, write_lerobot
from worldgym.listing import find_world

GOAL = "push the red block to the centre"


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


@pytest.fixture
def dreams(make_world, frames, actions):
    """Three dreams of five steps."""
    return dream_episodes(make_world(), frames[:, 0], actions[:, :5])


def demonstrations(folder, tasks=("open the drawer",), video=False, features=None, pictures=None):
    """Two foreign episodes of four rows, as LeRobot lays them out; returns their pictures unless they are given."""
    coded, pictures = (
        pictures,
        np.full((8, 32, 32, 3), 30, np.uint8) + np.arange(8, dtype=np.uint8)[:, None, None, None] * 20,
    )
    (folder / "data/chunk-000").mkdir(parents=True), (folder / "meta/episodes/chunk-000").mkdir(parents=True)
    columns = {"action": [[row - 4.0, 2.0] for row in range(8)], "episode_index": [0] * 4 + [1] * 4}
    columns |= features or {}
    kinds = {"action": "float32", "episode_index": "int64", "camera": "video" if video else "image"}
    if video:
        path = folder / "videos/camera/chunk-000/file-000.mp4"
        path.parent.mkdir(parents=True)
        imageio.imwrite(path, pictures, fps=10, macro_block_size=1)
    elif coded:
        columns["camera"] = coded
    else:
        columns["camera"] = [{"bytes": imageio.imwrite("<bytes>", p, extension=".png"), "path": None} for p in pictures]
    pq.write_table(pa.table(columns), folder / "data/chunk-000/file-000.parquet")
    episodes = {
        "episode_index": [0, 1], "tasks": [[tasks[0]], [tasks[-1]]], "length": [4, 4],
        "dataset_from_index": [0, 4], "dataset_to_index": [4, 8],
        "videos/camera/chunk_index": [0, 0], "videos/camera/file_index": [0, 0],
        "videos/camera/from_timestamp": [0.0, 0.4],
    }  # fmt: skip
    pq.write_table(pa.table(episodes), folder / "meta/episodes/chunk-000/file-000.parquet")
    info = {
        "codebase_version": "v3.0", "fps": 10,
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": {name: {"dtype": kinds.get(name, "float32")} for name in {**columns, "camera": None}},
    }  # fmt: skip
    (folder / "meta/info.json").write_text(json.dumps(info), encoding="utf-8")
    return pictures


def test_dreams_come_back_for_training(datasets, tmp_path, checkpoint, dreams, make_world):
    """All but each last frame, which no action follows; with what every instruction says."""
    write_lerobot(tmp_path / "dreams", str(checkpoint), dreams, GOAL)
    lerobot_to_minari(tmp_path / "dreams", "test/dreams-v0", size=64)
    data, config = load_episodes("test/dreams-v0"), make_world().config
    assert (data.instructions, data.phrase_list, data.frames_per_action) == (config.instructions, config.phrases, 3)
    assert data.starts.tolist() == [0, 5, 10, 15]
    for dream, begin in zip(dreams, (0, 5, 10), strict=True):
        assert np.array_equal(data.frames[begin : begin + 5], dream.frames[:-1])
        assert np.allclose(data.rewards[begin + 1 : begin + 5], dream.rewards[1:-1])
        assert np.array_equal(data.successes[begin + 1 : begin + 5], dream.successes[1:-1])
    scale = np.abs(np.concatenate([dream.actions for dream in dreams])).max(0)
    assert np.allclose(data.actions[:4] * scale, dreams[0].actions[:4], atol=1e-6)


def test_what_lerobot_reads(tmp_path, checkpoint, dreams):
    """The files, columns and figures that its own loader asks for."""
    folder = tmp_path / "dreams"
    write_lerobot(folder, str(checkpoint), dreams, GOAL)
    info, stats = (json.loads((folder / f"meta/{name}.json").read_text(encoding="utf-8")) for name in ("info", "stats"))
    assert (info["codebase_version"], info["total_episodes"], info["total_frames"], info["fps"]) == ("v3.0", 3, 15, 10)
    table = pq.read_table(folder / info["data_path"].format(chunk_index=0, file_index=0))
    assert set(table.column_names) == set(info["features"]) == set(stats)
    assert table["index"].to_pylist() == list(range(15)) and table["frame_index"].to_pylist() == [0, 1, 2, 3, 4] * 3
    assert table["next.done"].to_pylist() == [False, False, False, False, True] * 3
    assert np.allclose(table["next.reward"].to_pylist()[:5], dreams[0].rewards[1:, 1])
    assert np.allclose(table["timestamp"].to_pylist()[:5], np.arange(5) / 10)
    tasks = pq.read_table(folder / "meta/tasks.parquet")
    assert tasks.to_pylist() == [{"task_index": 0, "task": GOAL}]
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    shown = np.concatenate([dream.frames[:-1] for dream in dreams]) / 255
    assert np.allclose(np.ravel(stats["observation.image"]["mean"]), shown.mean((0, 1, 2)))
    assert np.allclose(stats["action"]["max"], np.concatenate([dream.actions for dream in dreams]).max(0))


@pytest.mark.parametrize("video", [False, True])
def test_demonstrations_are_read(datasets, tmp_path, video):
    """The step to the last frame is worth 1; actions are scaled; videos are cut at their episodes."""
    pictures = demonstrations(tmp_path / "demos", video=video)
    lerobot_to_minari(tmp_path / "demos", "test/demos-v0", size=32, reward="end")
    data = load_episodes("test/demos-v0")
    assert data.instructions == ("open the drawer",) and data.environment == "" and data.starts.tolist() == [0, 4, 8]
    assert np.abs(data.frames.astype(int) - pictures).max() <= (6 if video else 0)
    assert data.rewards[:, 0].tolist() == [0, 0, 0, 1] * 2 and data.terminations[:, 0].tolist() == [False] * 3 + [
        True, *[False] * 3, True
    ]  # fmt: skip
    assert data.actions[:3].tolist() == [[-1.0, 1.0], [-0.75, 1.0], [-0.5, 1.0]]


def test_recorded_rewards_belong_to_the_next_frame(datasets, tmp_path):
    told = {"next.reward": [0.0, 1.0, 2.0, 3.0] * 2, "next.success": [False, False, True, False] * 2}
    demonstrations(tmp_path / "demos", features=told)
    lerobot_to_minari(tmp_path / "demos", "test/demos-v0", size=16)
    data = load_episodes("test/demos-v0")
    assert data.frames.shape == (8, 16, 16, 3)
    assert data.rewards[:4, 0].tolist() == [0, 0, 1, 2] and data.successes[:4, 0].tolist() == [False] * 3 + [True]


@pytest.mark.parametrize("name", ["tabletop", "reacher", "hopper"])
def test_dreams_of_every_bundled_world_go_both_ways(datasets, tmp_path, name):
    """Those of one instruction, too, whose columns LeRobot has as numbers."""
    config, _ = load_config(find_world(name))
    rng, count, side = np.random.default_rng(0), len(config.instructions), config.tokenizer.resolution
    episode = DreamedEpisode(
        frames=rng.integers(0, 256, (4, side, side, 3), np.uint8),
        actions=rng.uniform(-1, 1, (3, config.action_size)).astype(np.float32),
        rewards=rng.normal(size=(4, count)).astype(np.float32),
        successes=rng.random((4, count)) < 0.5,
        terminations=rng.random((4, count)) < 0.5,
        uncertainty=np.zeros(4, np.float32),
        seed=0,
    )
    write_lerobot(tmp_path / "dreams", name, [episode])
    info = json.loads((tmp_path / "dreams/meta/info.json").read_text(encoding="utf-8"))
    (path,) = (tmp_path / "dreams/data").rglob("*.parquet")
    for column in pq.read_schema(path):
        shape = info["features"][column.name]["shape"]
        if column.name != "observation.image":
            assert getattr(column.type, "list_size", 1) == shape[0]
    lerobot_to_minari(tmp_path / "dreams", "test/dreams-v0", size=side)
    data = load_episodes("test/dreams-v0")
    assert data.instructions == config.instructions and np.array_equal(data.frames, episode.frames[:-1])
    assert np.array_equal(data.rewards[1:], episode.rewards[1:-1])
    assert np.array_equal(data.terminations[1:], episode.terminations[1:-1])
    assert np.allclose(data.actions[:2] * np.abs(episode.actions).max(0), episode.actions[:2])


def test_a_recording_goes_both_ways(dataset, tmp_path):
    """With where things were as its state."""
    minari_to_lerobot(dataset, tmp_path / "recorded", GOAL)
    data = load_episodes(dataset)
    (path,) = (tmp_path / "recorded/data").rglob("*.parquet")
    table = pq.read_table(path)
    positions = [episode.infos["positions"][:-1] for episode in minari.load_dataset(dataset).iterate_episodes()]
    assert np.array_equal(np.stack(table["observation.state"].to_numpy()), np.concatenate(positions).reshape(240, -1))
    steps = np.delete(np.arange(20 * 13), data.starts[1:] - 1)
    assert np.array_equal(np.stack(table["action"].to_numpy()), data.actions[steps])
    assert np.array_equal(table["next.reward"].to_numpy(), data.rewards[steps + 1, data.instructions.index(GOAL)])
    lerobot_to_minari(tmp_path / "recorded", "test/again-v0", size=64)
    again = load_episodes("test/again-v0")
    assert np.array_equal(again.frames, data.frames[steps]) and again.instructions == data.instructions
    shutil.rmtree(minari.storage.get_dataset_path("test/again-v0"))


def test_actions_of_one_number_are_read(datasets, tmp_path):
    demonstrations(tmp_path / "demos", features={"action": [-2.0, 1.0, 0.5, 0.0] * 2})
    lerobot_to_minari(tmp_path / "demos", "test/demos-v0", size=32, reward="end")
    assert load_episodes("test/demos-v0").actions[:3].tolist() == [[-1.0], [0.5], [0.25]]


def test_pictures_that_are_not_square_are_cut_and_said(datasets, tmp_path):
    wide = np.random.default_rng(0).integers(0, 256, (8, 32, 48, 3), np.uint8)
    coded = [{"bytes": imageio.imwrite("<bytes>", picture, extension=".png"), "path": None} for picture in wide]
    demonstrations(tmp_path / "demos", pictures=coded)
    with pytest.warns(UserWarning, match="of 32 x 48 pixels the square in the middle is kept"):
        lerobot_to_minari(tmp_path / "demos", "test/demos-v0", size=32, reward="end")
    assert np.array_equal(load_episodes("test/demos-v0").frames, wide[:, :, 8:40])


@pytest.mark.parametrize(
    ("features", "says"),
    [
        ({"action": [[np.nan if row == 5 else 0.0, 2.0] for row in range(8)]}, "episode 1: actions have nan at step 1"),
        ({"action": [[1.0, 2.0]] * 7 + [None]}, "has rows without action"),
        ({"next.reward": [0.0] * 6 + [np.inf, 0.0]}, "episode 1: rewards have inf at step 3"),
    ],
)
def test_numbers_that_are_none_are_refused(datasets, tmp_path, features, says):
    told = {"next.reward": [0.0] * 8, "next.success": [False] * 8}
    demonstrations(tmp_path / "demos", features=told | features)
    with pytest.raises(UserError, match=says):
        lerobot_to_minari(tmp_path / "demos", "test/demos-v0", size=16)
    assert not list((tmp_path / "minari").iterdir())


def test_a_write_that_fails_leaves_nothing(tmp_path, checkpoint, dreams, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
        with pytest.raises(OSError, match="the disk is full"):
            write_lerobot(tmp_path / "dreams", str(checkpoint), dreams)
    wrong = replace(dreams[2], rewards=np.full_like(dreams[2].rewards, np.nan))
    with pytest.raises(UserError, match="dreams of tiny, episode 2: rewards have nan at step 0"):
        write_lerobot(tmp_path / "dreams", str(checkpoint), [*dreams[:2], wrong])
    assert not list(tmp_path.iterdir())


def _spoil(folder, **changes):
    path = folder / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


@pytest.mark.parametrize(
    ("tasks", "changes", "arguments", "says"),
    [
        (("open",), {"codebase_version": "v2.1"}, {}, "layout v2.1.*convert_dataset"),
        (("open",), {}, {"camera": "wrist"}, "camera is 'wrist'.*camera"),
        (("open", "close"), {}, {"reward": "end"}, "2 tasks"),
        (("open",), {}, {}, "no next.reward.*reward='end'"),
    ],
)
def test_what_cannot_be_read_is_refused(datasets, tmp_path, tasks, changes, arguments, says):
    demonstrations(tmp_path / "demos", tasks)
    _spoil(tmp_path / "demos", **changes)
    with pytest.raises(ValueError, match=f"(?s){says}"):
        lerobot_to_minari(tmp_path / "demos", "test/demos-v0", size=32, **arguments)
    assert not (tmp_path / "minari").exists() or not list((tmp_path / "minari").rglob("*.hdf5"))


def test_nothing_is_overwritten_and_nothing_written_by_halves(tmp_path, checkpoint, dreams):
    folder = tmp_path / "dreams"
    for episodes, instruction, says in (([], None, "no episodes"), (dreams, "fly", "unknown instruction 'fly'")):
        with pytest.raises(ValueError, match=says):
            write_lerobot(folder, str(checkpoint), episodes, instruction)
    assert not folder.exists()
    write_lerobot(folder, str(checkpoint), dreams)
    with pytest.raises(FileExistsError, match="choose another"):
        write_lerobot(folder, str(checkpoint), dreams)
