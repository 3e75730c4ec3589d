"""Other people's Minari data sets, and the cache through which they are read."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple

import gymnasium as gym
import minari
import numpy as np
import pytest
from gymnasium.spaces import Discrete
from minari.data_collector import EpisodeBuffer

from worldgym.actions import ActionCodec, read_codec
from worldgym.data import load_episodes, segments_at
from worldgym.errors import UserError
from worldgym.storage import name_columns, new_dataset_folder

COLUMNS = {"worldgym_instructions": ["go"], "worldgym_phrases": [], "worldgym_frames_per_action": 1}


class Killed(BaseException):
    """What the operating system does, as far as a test can."""


def killed(*args, **kwargs):
    raise Killed


@pytest.fixture(autouse=True)
def shelf(tmp_path, monkeypatch):
    """An empty place for data sets."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def buffers(count: int, first: int = 0, **changes) -> list[EpisodeBuffer]:
    """Episodes of six steps in which the value of frames, the reward and ten actions are the episode's number."""
    return [_buffer(number, **changes) for number in range(first, first + count)]


def _buffer(number: int, frames=None, actions=None, **infos) -> EpisodeBuffer:
    no = np.zeros((7, 1), bool)
    said = {"rewards": np.full((7, 1), number, np.float32), "successes": no, "terminations": no, **infos}
    return EpisodeBuffer(
        id=number,
        observations=np.full((7, 32, 32, 3), number, np.uint8) if frames is None else frames,
        actions=np.full((6, 2), number / 10, np.float32) if actions is None else actions,
        rewards=np.zeros(6),
        terminations=np.zeros(6, bool),
        truncations=np.arange(6) == 5,
        infos=said,
    )


def make(name: str, episodes: list[EpisodeBuffer], columns=COLUMNS, highest: float = 255, jpeg: bool = False):
    """A data set as a user's own program writes one."""
    seen = episodes[0].observations
    dataset = minari.create_dataset_from_buffers(
        name, episodes, env="Reacher-v5", jpeg_encoding=jpeg, data_format="hdf5",
        observation_space=gym.spaces.Box(0, highest, seen.shape[1:], seen.dtype.type),
        action_space=gym.spaces.Box(-1, 1, (2,), np.float32), algorithm_name="x", author="x", author_email="x",
        code_permalink="x", description="x",
    )  # fmt: skip
    dataset.storage.update_metadata(columns)
    return dataset


# -- what is refused, what is converted ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"frames": np.zeros((6, 32, 32, 3), np.uint8)},
            "episode 0: it has 6 frames and 6 actions; expected one frame",
        ),
        ({"frames": np.full((7, 32, 32, 3), 0.7, np.float32)}, "episode 0: frames are float32 .* with fractions"),
        ({"actions": np.full((6, 2), 1e30, np.float32)}, r"episode 0: actions have 1.*e\+30 at step 0"),
        (
            {"rewards": np.zeros((7, 2), np.float32)},
            r"episode 0: rewards are float32 \[7, 2\]; expected floats \[7, 1\]",
        ),
    ],
)
def test_what_a_world_cannot_learn_from_is_refused(shelf, changes, says):
    """And leaves nothing behind, however often it is asked for."""
    make("mine/wrong-v0", buffers(2, **changes))
    for _ in range(2):
        with pytest.raises(UserError, match=f"data set mine/wrong-v0, {says}"):
            load_episodes("mine/wrong-v0")
    assert {path.name for path in (shelf / "mine/wrong-v0").iterdir()} == {"data", "worldgym_cache.lock"}


def test_the_episode_is_named(shelf):
    episodes = buffers(3)
    episodes[2].infos["rewards"][4] = np.nan
    make("mine/wrong-v0", episodes)
    with pytest.raises(UserError, match="mine/wrong-v0, episode 2: rewards have nan at step 4, column 0"):
        load_episodes("mine/wrong-v0")


def test_episodes_that_differ_are_refused():
    make("mine/wrong-v0", buffers(1) + buffers(1, first=1, frames=np.zeros((7, 16, 16, 3), np.uint8)))
    with pytest.raises(
        UserError, match=r"episode 1: frames are uint8 \[7, 16, 16, 3\]; expected uint8 \[any, 32, 32, 3\]"
    ):
        load_episodes("mine/wrong-v0")


def test_frames_in_another_layout_are_converted_and_said():
    grey = np.random.default_rng(0).integers(0, 256, (7, 32, 32), np.uint8)
    make("mine/grey-v0", buffers(2, frames=(grey / 255).astype(np.float32)), highest=1)
    with pytest.warns(UserWarning, match="float32 up to 1 becomes uint8 up to 255; grey is repeated"):
        data = load_episodes("mine/grey-v0")
    assert np.array_equal(data.frames[:7], grey[..., None].repeat(3, 3))


def test_jpeg_is_said():
    make("mine/lossy-v0", buffers(1), jpeg=True)
    with pytest.warns(UserWarning, match="mine/lossy-v0 has its frames as JPEG"):
        load_episodes("mine/lossy-v0")


def test_a_damaged_file_is_refused(shelf):
    make("mine/damaged-v0", buffers(2))
    path = shelf / "mine/damaged-v0/data/main_data.hdf5"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match="data set mine/damaged-v0 is damaged"):
        load_episodes("mine/damaged-v0")


# -- what the columns mean -----------------------------------------------------------------------------------


def test_columns_of_a_hand_made_data_set_can_be_named():
    make("mine/foreign-v0", buffers(1), columns={})
    with pytest.raises(UserError, match=r'worldgym.storage.name_columns\("mine/foreign-v0", \["'):
        load_episodes("mine/foreign-v0")
    name_columns("mine/foreign-v0", ["open the drawer"], ["open it"], 4)
    with pytest.raises(UserError, match="expected also sentences, sentence_actions"):
        load_episodes("mine/foreign-v0")
    name_columns("mine/foreign-v0", ["open the drawer"])
    data = load_episodes("mine/foreign-v0")
    assert (data.instructions, data.phrase_list, data.frames_per_action) == (("open the drawer",), (), 1)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"worldgym_instructions": "go"}, "say 'go' of its instructions"),
        ({"worldgym_phrases": None}, "None of its phrases"),
        ({"worldgym_frames_per_action": "1"}, "'1' frames per action"),
        ({"worldgym_instructions": ["go", "go"]}, "all differ"),
    ],
)
def test_columns_that_mean_nothing_are_refused(columns, says):
    make("mine/wrong-v0", buffers(1), columns=COLUMNS | columns)
    with pytest.raises(UserError, match=says):
        load_episodes("mine/wrong-v0")


def chosen(count: int) -> list[EpisodeBuffer]:
    """`buffers` of which each action is the vector of a key, 0 or 1."""
    vectors = np.array([ActionCodec(Discrete(2)).encode(step % 2) for step in range(6)])
    return buffers(count, actions=vectors)


def test_a_program_may_say_what_its_vectors_stand_for(shelf):
    make("mine/keys-v0", chosen(2))
    assert load_episodes("mine/keys-v0").action_space is None
    name_columns("mine/keys-v0", ["go"], space=Discrete(2))
    data = load_episodes("mine/keys-v0")
    codec = read_codec(data.action_space, 2)
    assert codec.space == Discrete(2) and [codec.decode(vector) for vector in data.actions[:6]] == [0, 1] * 3
    make("mine/half-v0", buffers(2))
    name_columns("mine/half-v0", ["go"], space=Discrete(2))
    with pytest.raises(UserError, match=r"episode 0: actions have 0.0 at step 0, column 0; expected 1 or -1"):
        load_episodes("mine/half-v0")
    name_columns("mine/keys-v0", ["go"], space=Discrete(3))
    with pytest.raises(UserError, match="vectors of 3 numbers; here they have 2"):
        load_episodes("mine/keys-v0")


@pytest.mark.filterwarnings("ignore:data set mine/both-v0 has its frames as JPEG")
def test_combined_data_sets_keep_their_action_space(shelf):
    parts = [make(f"mine/{name}-v0", chosen(2)) for name in ("left", "right")]
    for part in parts:
        name_columns(part.spec.dataset_id, ["go"], space=Discrete(2))
    minari.combine_datasets([minari.load_dataset(part.spec.dataset_id) for part in parts], "mine/both-v0")
    assert load_episodes("mine/both-v0").action_space == ActionCodec(Discrete(2)).describe()
    name_columns("mine/right-v0", ["go"])
    with pytest.raises(UserError, match="or actions differ"):
        load_episodes("mine/both-v0")


@pytest.mark.filterwarnings("ignore:data set mine/both-v0 has its frames as JPEG")
def test_combined_data_sets_keep_their_instructions(shelf):
    parts = [
        make("mine/one-v0", buffers(2)),
        make("mine/two-v0", buffers(1, frames=np.zeros((7, 32, 32, 3), np.uint8))),
    ]
    minari.combine_datasets(parts, "mine/both-v0")
    data = load_episodes("mine/both-v0")
    assert data.instructions == ("go",) and len(data.starts) == 4
    name_columns("mine/two-v0", ["stop"])
    with pytest.raises(
        UserError, match=r"combined of mine/one-v0, mine/two-v0, whose instructions.* differ.*name_columns"
    ):
        load_episodes("mine/both-v0")
    shutil.rmtree(shelf / "mine/two-v0")
    with pytest.raises(UserError, match=r"not all here.*name_columns"):
        load_episodes("mine/both-v0")
    name_columns("mine/both-v0", ["go"])
    assert load_episodes("mine/both-v0").instructions == ("go",)


@pytest.mark.parametrize(
    "wrong", ["mine/robot", "robot", "mine/robot-v", "../robot-v0", "mine/ro bot-v0", "a/robot-v0", ""]
)
def test_ids_that_minari_does_not_know_are_refused(wrong):
    assert new_dataset_folder("mine/robot-v0").name == "robot-v0"
    with pytest.raises(UserError, match="cannot name a Minari data set"):
        new_dataset_folder(wrong)


# -- the cache -----------------------------------------------------------------------------------------------


def test_episodes_that_are_added_are_seen():
    make("mine/growing-v0", buffers(2))
    assert len(load_episodes("mine/growing-v0").starts) == 3
    minari.load_dataset("mine/growing-v0").update_dataset_from_buffer(buffers(2, first=2))
    data = load_episodes("mine/growing-v0")
    part = segments_at(data, data.starts[:4], 4)
    assert part.frames[:, -1, 0, 0, 0].tolist() == part.rewards[:, -1, 0].tolist() == [0, 1, 2, 3]
    assert np.allclose(part.actions[:, -1, 0], [0.0, 0.1, 0.2, 0.3])


def test_the_cache_of_another_data_set_is_not_read(shelf):
    """Though it has the same id, episodes and size."""
    make("mine/again-v0", buffers(2))
    load_episodes("mine/again-v0")
    shutil.move(shelf / "mine/again-v0/worldgym_cache", shelf / "kept")
    shutil.rmtree(shelf / "mine/again-v0")
    make("mine/again-v0", buffers(2, frames=np.full((7, 32, 32, 3), 9, np.uint8)))
    shutil.move(shelf / "kept", shelf / "mine/again-v0/worldgym_cache")
    assert (load_episodes("mine/again-v0").frames == 9).all()


@pytest.mark.parametrize("name", ["frames.npy", "rewards.npy", "meta.json"])
def test_a_damaged_cache_is_written_again(shelf, name):
    make("mine/damaged-v0", buffers(3))
    load_episodes("mine/damaged-v0")
    path = shelf / "mine/damaged-v0/worldgym_cache" / name
    path.write_bytes(path.read_bytes()[:-10])
    data = load_episodes("mine/damaged-v0")
    assert data.frames[-1, 0, 0, 0] == 2 and len(data.rewards) == 21


def full_disk(folder):
    return namedtuple("usage", "total used free")(10**9, 10**9, 1000)


def test_a_full_disk_leaves_nothing_and_says_how_much_is_wanted(shelf, monkeypatch):
    make("mine/big-v0", buffers(3))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", full_disk)
        with pytest.raises(OSError, match=r"the disk is full: 0.1 MB are to be written.*mine/big-v0") as refusal:
            load_episodes("mine/big-v0")
    assert refusal.value.errno == errno.ENOSPC
    assert {path.name for path in (shelf / "mine/big-v0").iterdir()} == {"data", "worldgym_cache.lock"}
    assert len(load_episodes("mine/big-v0").frames) == 21


def test_what_a_killed_process_left_is_removed(shelf, monkeypatch):
    make("mine/big-v0", buffers(3))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)  # as if it could not even clean up
        patch.setattr(json, "dumps", killed)
        with pytest.raises(Killed):
            load_episodes("mine/big-v0")
    assert len(list((shelf / "mine/big-v0").glob(".worldgym_cache.*.tmp"))) == 1
    load_episodes("mine/big-v0")
    assert {path.name for path in (shelf / "mine/big-v0").iterdir()} == {
        "data",
        "worldgym_cache.lock",
        "worldgym_cache",
    }


def test_processes_that_find_no_cache_write_it_once(shelf):
    make("mine/shared-v0", buffers(3))
    code = "from worldgym.data import load_episodes; print(load_episodes('mine/shared-v0').frames.sum())"
    both = [
        subprocess.Popen([sys.executable, "-c", code], env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    told = [process.communicate() for process in both]
    assert told[0][0] == told[1][0] != b""
    assert sorted(b"caching" in error for _, error in told) == [False, True]
