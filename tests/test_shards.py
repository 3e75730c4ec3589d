"""Data sets in shards, written and read."""

import json
from itertools import pairwise

import numpy as np
import pytest

from worldgym import shards as shards_module
from worldgym import streams as streams_module
from worldgym.data import load_episodes, segments_at
from worldgym.errors import UserError
from worldgym.shards import DTYPES, Shards, write_shards
from worldgym.streams import AHEAD, DRAWN

ABOUT = {"instructions": ["go", "stop"], "phrases": ["left"], "frames_per_action": 2, "action_space": None,
         "environment": "Some-v0", "twin_options": {"fit": "crop"}}  # fmt: skip
NAMES = ("frames", "actions", "sentences", "sentence_actions", "rewards", "successes", "terminations")


def episode(number: int) -> dict[str, np.ndarray]:
    random, count = np.random.default_rng(number), 15 + 4 * (number % 7)
    return {
        "frames": random.integers(0, 256, (count, 32, 32, 3), np.uint8),
        "actions": random.uniform(-1, 1, (count, 2)).astype(np.float32),
        "sentences": random.integers(-1, 1, (count, 1)).astype(np.int16),
        "sentence_actions": random.uniform(-1, 1, (count, 1, 2)).astype(np.float32),
        "rewards": random.normal(size=(count, 2)).astype(np.float32),
        "successes": random.random((count, 2)) < 0.5,
        "terminations": random.random((count, 2)) < 0.1,
    }


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Several episodes a shard, several shards a window."""
    monkeypatch.setattr(shards_module, "SHARD", 300_000)
    monkeypatch.setattr(streams_module, "WINDOW", 1_000_000)


@pytest.fixture
def url(tmp_path) -> str:
    """Of 45 episodes: of every 20, 18 train."""
    write_shards(f"file://{tmp_path}/set", "mine/set-v0", ABOUT, map(episode, range(45)))
    return f"file://{tmp_path}/set"


def in_order(count: int = 45) -> list[int]:
    """The episodes in the order in which they are read: by split, as the shards are, within a file as written."""
    return [
        one for split in ("train", "validation", "test") for one in range(count) if shards_module.split_of(one) == split
    ]


def test_what_is_read_is_what_was_written(url):
    data = load_episodes(url)
    told = data.instructions, data.phrase_list, data.frames_per_action, data.environment, data.twin_options
    assert told == (("go", "stop"), ("left",), 2, "Some-v0", {"fit": "crop"})
    found = {}
    for one in range(45):
        rows = slice(data.starts[one], data.starts[one + 1])
        found[data.frames[rows].tobytes()] = {name: getattr(data, name)[rows] for name in NAMES}
    for one in map(episode, range(45)):
        read = found.pop(one["frames"].tobytes())
        for name in NAMES:
            assert read[name].dtype == DTYPES[name] and np.array_equal(read[name], one[name]), name
    assert not found


def test_rows_are_indexed_as_an_array_is(url):
    data = load_episodes(url)
    for name in NAMES:
        rows = getattr(data, name)
        whole = rows[:]
        assert rows.shape == whole.shape and len(rows) == len(whole)
        some = np.random.default_rng(0).integers(-len(rows), len(rows), (5, 7))
        for key in (3, -1, slice(7, 400, 3), some, [2, 2, 0], np.empty(0, int)):
            assert np.array_equal(rows[key], whole[key]), (name, key)
        with pytest.raises(IndexError, match=f"of {len(rows)}"):
            rows[len(rows)]


def test_parts_may_have_no_width(tmp_path):
    """As sentences of a data set without phrases."""
    none = {"sentences": np.zeros((15, 0), np.int16), "sentence_actions": np.zeros((15, 0, 2), np.float32)}
    write_shards(f"file://{tmp_path}/bare", "mine/bare-v0", ABOUT, [episode(0) | none] * 2)
    data = load_episodes(f"file://{tmp_path}/bare")
    part = segments_at(data, data.starts[:-1], 5)
    assert part.sentences.shape == (2, 5, 0) and part.sentence_actions.shape == (2, 5, 0, 2)


def test_the_splits_are_those_of_a_recording(url):
    data = load_episodes(url)
    first = {episode(one)["frames"].tobytes()[:64]: one for one in range(45)}
    for split in ("train", "validation", "test"):
        members = [first[data.frames[data.starts[one]].tobytes()[:64]] for one in data.split(split)]
        assert sorted(members) == [one for one in range(45) if shards_module.split_of(one) == split]


def test_figures_of_the_rewards_are_those_of_all_episodes(url):
    rewards = np.concatenate([episode(one)["rewards"] for one in range(45)])
    assert np.isclose(load_episodes(url).reward_variance, rewards.var(0).mean())


def test_segments_are_cut_as_from_memory(url):
    data = load_episodes(url)
    rows = data.starts[[0, 20, 41]] + 3
    part = segments_at(data, rows, 5)
    assert part.frames.shape == (3, 6, 32, 32, 3)
    assert np.array_equal(part.frames[1], data.frames[rows[1] : rows[1] + 6])
    assert np.array_equal(part.rewards[1], data.rewards[rows[1] + 1 : rows[1] + 6])


def test_memory_holds_a_window(url):
    data = load_episodes(url)
    assert 2 < data.stream.window < len(data.stream.files) - AHEAD
    data.frames[:]
    assert len(data.stream._held) <= data.stream.window + AHEAD + 1


def test_training_reads_shards_of_its_split_once_in_a_window(url, monkeypatch):
    read, load = [], Shards.load

    def counted(self, number):
        read.append(self.files[number]["file"])
        return load(self, number)

    monkeypatch.setattr(Shards, "load", counted)
    data = load_episodes(url)
    choose = data.choice(data.split("train"), 8)
    draws = int((-(-data.stream.lengths[data.split("train")] // DRAWN)).sum())
    for step in range(draws // 8):
        data.frames[data.starts[choose(0, step, np.random.default_rng(0))]]
    train = [one["file"] for one in data.stream.files if one["split"] == "train"]
    assert set(read) == set(train)
    # Once round the circle, and again the window with which the epoch began.
    assert len(read) <= len(train) + data.stream.window + AHEAD


def test_further_episodes_are_added(url):
    write_shards(url, "mine/more-v0", ABOUT, map(episode, range(45, 60)))
    data = load_episodes(url)
    assert len(data.starts) == 61
    assert [len(data.split(split)) for split in ("train", "validation", "test")] == [54, 3, 3]
    rewards = np.concatenate([episode(one)["rewards"] for one in range(60)])
    assert np.isclose(data.reward_variance, rewards.var(0).mean())


def test_chunks_of_an_earlier_release_are_read_and_added_to(tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "CHUNK", shards_module.OLD_CHUNK)
    url, index = f"file://{tmp_path}/set", tmp_path / "set" / "index.json"
    write_shards(url, "mine/set-v0", ABOUT, map(episode, range(5)))
    monkeypatch.undo()
    told = index.read_text(encoding="utf-8").replace(f'"chunk": {shards_module.OLD_CHUNK}, ', "")
    index.write_text(told, encoding="utf-8")
    write_shards(url, "mine/more-v0", ABOUT, map(episode, range(5, 10)))
    data = load_episodes(url)
    found = {data.frames[begin:end].tobytes() for begin, end in pairwise(data.starts)}
    assert found == {episode(one)["frames"].tobytes() for one in range(10)}


def test_a_write_that_fails_changes_nothing(url):
    def broken():
        yield from map(episode, range(30))
        raise KeyboardInterrupt

    before = load_episodes(url).frames[:]
    with pytest.raises(KeyboardInterrupt):
        write_shards(url, "mine/more-v0", ABOUT, broken())
    assert np.array_equal(load_episodes(url).frames[:], before)
    write_shards(url, "mine/more-v0", ABOUT, map(episode, range(45, 60)))
    assert len(load_episodes(url).starts) == 61


def test_other_filesystems_will_do():
    write_shards("memory://shards/set", "mine/set-v0", ABOUT, map(episode, range(20)))
    assert len(load_episodes("memory://shards/set").starts) == 21


def test_what_cannot_be_added_is_refused(url):
    with pytest.raises(UserError, match="has the episodes of mine/set-v0 already"):
        write_shards(url, "mine/set-v0", ABOUT, map(episode, range(5)))
    with pytest.raises(UserError, match="other instructions than mine/more-v0"):
        write_shards(url, "mine/more-v0", ABOUT | {"instructions": ["go"]}, map(episode, range(5)))
    with pytest.raises(UserError, match="no episodes"):
        write_shards(url, "mine/more-v0", ABOUT, [])
    with pytest.raises(UserError, match="episode 0: it has no rewards"):
        write_shards(
            url, "mine/more-v0", ABOUT, [{name: part for name, part in episode(0).items() if name != "rewards"}]
        )
    with pytest.raises(UserError, match=r"episode 0: its parts have \[18, 19\] rows"):
        write_shards(url, "mine/more-v0", ABOUT, [episode(1) | {"actions": episode(1)["actions"][:-1]}])
    narrow = episode(1)
    narrow["actions"] = narrow["actions"][:, :1]
    with pytest.raises(UserError, match=r"mine/more-v0, episode 1: .*expected"):
        write_shards(url, "mine/more-v0", ABOUT, [episode(0), narrow])


def test_what_cannot_be_read_is_told(url, tmp_path):
    with pytest.raises(FileNotFoundError, match="no data set at memory://nothing"):
        load_episodes("memory://nothing")
    with pytest.raises(UserError, match="no://where cannot be opened"):
        load_episodes("no://where")
    with pytest.raises(UserError, match="'shards/mine' is no URL"):
        write_shards("shards/mine", "mine/set-v0", ABOUT, [])
    (tmp_path / "set" / "train-00001.safetensors").write_bytes(b"something else")
    with pytest.raises(UserError, match=r"train-00001\.safetensors is damaged"):
        load_episodes(url).frames[:]
    (tmp_path / "set" / "train-00001.safetensors").unlink()
    with pytest.raises(UserError, match=r"train-00001\.safetensors is missing"):
        load_episodes(url).frames[:]
    index = tmp_path / "set" / "index.json"
    index.write_text(json.dumps(json.loads(index.read_text(encoding="utf-8")) | {"version": 99}), encoding="utf-8")
    with pytest.raises(UserError, match="no index of shards of version 1"):
        load_episodes(url)
    index.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"index\.json is damaged"):
        load_episodes(url)
