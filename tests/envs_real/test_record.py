"""Recording real episodes, and the arrays that training cuts its segments from."""

import json
from dataclasses import replace

import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer
from minari.storage import get_dataset_path

from worldgym import storage
from worldgym.data import Episodes, load_episodes, sample_segments, segments_at
from worldgym.envs_real import recording
from worldgym.envs_real.settings import RecordConfig
from worldgym.envs_real.tabletop import TabletopEnv
from worldgym.envs_real.tabletop.record import play_episode, record
from worldgym.envs_real.tabletop.skills import phrases, skill_action
from worldgym.envs_real.tabletop.tasks import evaluate_task, tasks


class Killed(BaseException):
    """What the operating system does, as far as a test can."""


def killed(*args, **kwargs):
    raise Killed


SMALL = RecordConfig("test/small-v0", episodes=5, steps=20, seed=3, workers=1)
COLORS = ("red", "blue")


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """An empty place for datasets."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    return tmp_path / "datasets"


@pytest.fixture(scope="module")
def small():
    """What SMALL must turn out as, whatever happens on the way."""
    return [play_episode(SMALL, index) for index in range(SMALL.episodes)]


def assert_complete(dataset_id: str, expected) -> None:
    dataset = minari.load_dataset(dataset_id)
    assert dataset.total_episodes == len(expected)
    for found, episode in zip(dataset.iterate_episodes(), expected, strict=True):
        assert np.array_equal(found.observations, episode["frames"])
        assert np.array_equal(found.actions, episode["actions"])
        for name in ("positions", "rewards", "successes", "sentences", "sentence_actions"):
            assert np.array_equal(found.infos[name], episode[name])
        assert not found.terminations.any() and found.truncations.tolist() == [False] * 19 + [True]


# -- recording -----------------------------------------------------------------------------------------------


def test_a_recording_is_exact_and_says_what_it_is(shelf, small):
    folder = record(SMALL)
    assert folder == shelf / "test" / "small-v0"
    assert_complete(SMALL.dataset, small)
    dataset = minari.load_dataset(SMALL.dataset)
    assert dataset.env_spec.id == "worldgym/TabletopMuJoCo-v0"
    assert dataset.observation_space == TabletopEnv().observation_space
    metadata = dataset.storage.metadata
    assert list(metadata["worldgym_instructions"]) == list(tasks(COLORS))
    assert list(metadata["worldgym_phrases"]) == list(phrases(COLORS))
    assert sorted(path.name for path in folder.iterdir()) == ["data"]


def test_the_twin_replays_it_pixel_by_pixel(small):
    env = TabletopEnv()
    for index, episode in enumerate(small):
        # The first number an episode draws is the seed of its table.
        frame, info = env.reset(seed=int(np.random.default_rng([SMALL.seed, index]).integers(2**31)))
        frames, positions = [frame], [info["positions"]]
        for action in episode["actions"]:
            frame, _, _, _, info = env.step(action)
            frames.append(frame), positions.append(info["positions"])
        assert np.array_equal(frames, episode["frames"]), f"episode {index}"
        assert np.array_equal(positions, episode["positions"]), f"episode {index}"
    env.close()


def test_an_episode_follows_from_the_seed_and_its_number(small):
    again, other = play_episode(SMALL, 4), play_episode(replace(SMALL, seed=4), 4)
    assert all(np.array_equal(again[name], small[4][name]) for name in again)
    assert not np.array_equal(again["frames"][0], other["frames"][0])
    assert not np.array_equal(small[0]["frames"][0], small[1]["frames"][0])


def test_tables_vary_if_asked_to():
    varied = replace(SMALL, steps=1, variation="train")
    walls = {tuple(play_episode(varied, index)["frames"][0, 0, 0]) for index in range(8)}
    assert len(walls) > 1  # lit differently


def test_a_killed_recording_goes_on_where_it_stood(shelf, small, monkeypatch):
    partial = shelf / "test" / "small-v0.partial"
    files = [partial / f"episode_00000{index}.npz" for index in range(5)]
    with monkeypatch.context() as patch:
        patch.setattr(recording, "write_dataset", killed)
        with pytest.raises(Killed):
            record(SMALL)
        assert all(file.exists() for file in files)
        # As if it had died earlier, while the fourth episode was being written.
        files[3].with_suffix(".1.tmp").write_bytes(files[3].read_bytes()[:1000])
        files[3].unlink(), files[4].unlink()
        before = files[0].stat().st_mtime_ns
        with pytest.raises(Killed):
            record(replace(SMALL, workers=2))
        assert files[0].stat().st_mtime_ns == before
    record(SMALL)
    assert_complete(SMALL.dataset, small)
    assert not partial.exists()


def test_ctrl_c_keeps_what_is_finished_and_says_so(shelf, small, monkeypatch):
    def press(task, indices, workers):
        task(indices[0])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(recording, "in_workers", press)
        with pytest.raises(KeyboardInterrupt, match="1 of 5 episodes are kept; the same command records the rest"):
            record(SMALL)
    assert (shelf / "test" / "small-v0.partial" / "episode_000000.npz").exists()
    record(SMALL)
    assert_complete(SMALL.dataset, small)


def test_a_dataset_is_there_whole_or_not_at_all(shelf, small, monkeypatch):
    """Whenever it is killed: in the middle of writing it, or when only its own files are left to be removed."""
    with monkeypatch.context() as patch:
        patch.setattr(storage, "create_namespace", killed)
        with pytest.raises(Killed):
            record(SMALL)
    assert [path.name for path in (shelf / "test").iterdir()] == ["small-v0.partial"]
    assert not list((shelf / "test" / "small-v0.partial").rglob("*.hdf5"))
    with monkeypatch.context() as patch:
        patch.setattr(recording.shutil, "rmtree", killed)
        with pytest.raises(Killed):
            record(SMALL)
    assert_complete(SMALL.dataset, small)
    monkeypatch.setattr(recording, "in_workers", killed)
    record(SMALL)
    assert_complete(SMALL.dataset, small)
    assert {path.name for path in (shelf / "test").iterdir()} == {"small-v0", "namespace_metadata.json"}


def test_two_recordings_are_not_mixed(shelf, monkeypatch):
    config = replace(SMALL, episodes=1)
    with monkeypatch.context() as patch:
        patch.setattr(recording, "write_dataset", killed)
        with pytest.raises(Killed):
            record(config)
    for other in (replace(config, seed=9), replace(config, steps=21), replace(config, variation="train")):
        with pytest.raises(ValueError, match=r"holds a recording with the settings .*; these are"):
            record(other)
    record(replace(config, workers=2))
    assert minari.load_dataset(config.dataset).total_episodes == 1


def test_a_dataset_is_not_overwritten(shelf):
    record(replace(SMALL, episodes=1))
    before = {path: path.stat().st_mtime_ns for path in shelf.rglob("*") if path.is_file()}
    for config in (replace(SMALL, episodes=1), SMALL):
        with pytest.raises(FileExistsError, match=r"delete it .minari delete test/small-v0. or"):
            record(config)
    assert {path: path.stat().st_mtime_ns for path in shelf.rglob("*") if path.is_file()} == before


# -- episodes as arrays --------------------------------------------------------------------------------------


def test_arrays_are_aligned_in_time(dataset):
    """Row t of everything is about frame t; the reward of step t, which leads to the next, is row t + 1."""
    data, recorded = load_episodes(dataset), list(minari.load_dataset(dataset).iterate_episodes())
    assert len(data.starts) == 1 + len(recorded) == 21
    for episode, first, end in zip(recorded, data.starts, data.starts[1:], strict=False):
        rows = slice(first, end)
        assert end - first == len(episode.observations) == 1 + len(episode.actions)
        assert np.array_equal(data.frames[rows], episode.observations)
        assert np.array_equal(data.actions[rows][:-1], episode.actions)
        assert np.array_equal(data.sentences[rows], episode.infos["sentences"])
        for row in (first, end - 1):  # what a sentence means at a frame is what the controller would do there
            task = list(phrases(COLORS).values())[data.sentences[row, 0]]
            wanted = skill_action(task, episode.infos["positions"][row - first], COLORS)
            assert np.array_equal(data.sentence_actions[row, 0], wanted)
        for column, task in enumerate(tasks(COLORS).values()):
            rewards, successes = evaluate_task(task, episode.infos["positions"], COLORS)
            np.testing.assert_allclose(data.rewards[rows, column], rewards, atol=1e-6)
            assert np.array_equal(data.successes[rows, column], successes)
            assert np.array_equal(data.terminations[rows, column], successes)
    assert data.instructions == tuple(tasks(COLORS)) and data.phrase_list == tuple(phrases(COLORS))
    assert data.frames_per_action == 16 and data.environment == "worldgym/TabletopMuJoCo-v0"
    assert (data.frames.dtype, data.actions.dtype, data.rewards.dtype) == (np.uint8, np.float32, np.float32)


def test_a_segment_pairs_an_action_with_what_it_leads_to(dataset):
    data = load_episodes(dataset)
    rows = data.starts[[0, 3]] + 2
    segment = segments_at(data, rows, 4)
    for found, row in enumerate(rows):
        assert np.array_equal(segment.frames[found], data.frames[row : row + 5])
        assert np.array_equal(segment.actions[found], data.actions[row : row + 4])
        assert np.array_equal(segment.sentences[found], data.sentences[row : row + 4])
        assert np.array_equal(segment.sentence_actions[found], data.sentence_actions[row : row + 4])
        for name in ("rewards", "successes", "terminations"):
            assert np.array_equal(getattr(segment, name)[found], getattr(data, name)[row + 1 : row + 5])


def test_splits_share_no_episode(dataset):
    data = load_episodes(dataset)
    parts = [data.split(name).tolist() for name in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [18, 1, 1]
    assert sorted(episode for part in parts for episode in part) == list(range(20))


def test_splits_that_would_be_empty_are_refused(uneven):
    assert uneven.split("train").tolist() == list(range(6))
    for name in ("validation", "test"):
        with pytest.raises(ValueError, match=f"6 episodes leave none for the {name} split.*at least 20"):
            uneven.split(name)


@pytest.fixture
def uneven() -> Episodes:
    """Episodes of 3 to 9 frames; the first number of an action is its episode, the second its time."""
    lengths = np.array([9, 3, 6, 4, 9, 5])
    episode = np.repeat(np.arange(6), lengths)
    when = np.concatenate([np.arange(length) for length in lengths])
    nothing = np.zeros((len(when), 1), bool)
    return Episodes(
        frames=np.broadcast_to(when.astype(np.uint8)[:, None, None, None], (len(when), 2, 2, 3)),
        actions=np.stack([episode, when], 1).astype(np.float32),
        sentences=np.zeros((len(when), 1), np.int16),
        sentence_actions=np.zeros((len(when), 1, 2), np.float32),
        rewards=when[:, None].astype(np.float32),
        successes=nothing,
        terminations=nothing,
        starts=np.concatenate([[0], lengths.cumsum()]),
        instructions=("one",),
        phrase_list=("one",),
        frames_per_action=1,
        environment="",
    )


def test_segments_never_cross_episodes(uneven):
    segment = sample_segments(uneven, np.arange(6), 2000, 4, np.random.default_rng(0))
    episode, when = segment.actions[..., 0], segment.actions[..., 1]
    assert (episode == episode[:, :1]).all()
    assert (np.diff(when, axis=1) == 1).all()
    assert np.array_equal(segment.frames[..., 0, 0, 0], np.concatenate([when, when[:, -1:] + 1], 1))
    assert np.array_equal(segment.rewards[..., 0], when + 1)
    # Every stretch of five frames that there is, and no other.
    found = {(int(e), int(t)) for e, t in segment.actions[:, 0]}
    assert found == {(0, t) for t in range(5)} | {(2, 0), (2, 1)} | {(4, t) for t in range(5)} | {(5, 0)}


def test_segments_come_from_the_given_episodes(uneven):
    segment = sample_segments(uneven, np.array([2, 3]), 200, 3, np.random.default_rng(0))
    assert set(segment.actions[:, 0, 0]) == {2, 3}


def test_ends_are_drawn_more_often_than_by_chance(uneven):
    """Of episodes that end, however long they are recorded on, and of no others. By chance three of the five stretches
    would have the end, and of the rest half are drawn around it."""
    over = np.zeros((36, 1), bool)
    over[3:9] = True  # episode 0 ends, episode 4 does not
    uneven = replace(uneven, terminations=over)
    segment = sample_segments(uneven, np.array([0, 4]), 4000, 4, np.random.default_rng(0), ends=0.5)
    episode, when = segment.actions[:, 0].T
    assert np.mean(when[episode == 0] <= 2) == pytest.approx(0.8, abs=0.04)
    assert np.mean(when[episode == 4] <= 2) == pytest.approx(0.6, abs=0.04)
    now = when[:, None] + np.arange(1, 5)
    assert np.array_equal(segment.terminations[..., 0], (episode[:, None] == 0) & (now >= 3))


@pytest.mark.parametrize(
    ("episodes", "says"), [([1, 3], "none of these 2 episodes has 5 steps.*--window"), ([], "no episodes")]
)
def test_segments_that_do_not_exist_are_refused(uneven, episodes, says):
    """None at all is what a recording of fewer than 20 episodes leaves to test on."""
    with pytest.raises(ValueError, match=says):
        sample_segments(uneven, np.array(episodes, int), 4, 5, np.random.default_rng(0))


# -- the cache -----------------------------------------------------------------------------------------------


@pytest.fixture
def recorded(tmp_path, monkeypatch, dataset):
    """A copy of the recording without a cache: its id and the folder where the cache will be."""
    source = get_dataset_path(dataset)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    folder = get_dataset_path(dataset)
    folder.parent.mkdir(parents=True)
    for path in source.rglob("*"):
        target = folder / path.relative_to(source)
        if path.is_file() and "worldgym_cache" not in path.parts:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return dataset, folder


def test_the_cache_is_written_once(recorded):
    dataset, folder = recorded
    first = load_episodes(dataset)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert len(before) > 7
    second = load_episodes(dataset)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before
    assert np.array_equal(first.frames, second.frames) and np.array_equal(first.rewards, second.rewards)


def test_a_cache_of_another_version_is_rewritten(recorded):
    dataset, folder = recorded
    expected = load_episodes(dataset)
    (meta,) = folder.glob("*/meta.json")
    meta.write_text(json.dumps({"version": 0}), encoding="utf-8")
    found = load_episodes(dataset)
    assert np.array_equal(found.frames, expected.frames) and found.instructions == expected.instructions


def test_a_cache_is_there_whole_or_not_at_all(recorded, monkeypatch):
    dataset, _ = recorded
    with monkeypatch.context() as patch:
        patch.setattr(np, "save", killed)
        with pytest.raises(Killed):
            load_episodes(dataset)
    data = load_episodes(dataset)
    assert len(data.frames) == len(data.rewards) == len(data.actions) == 20 * 13
    assert np.array_equal(data.starts, 13 * np.arange(21))


def test_a_foreign_dataset_is_refused_and_left_alone(shelf):
    """Also when asked for again, after a first refusal."""
    env = TabletopEnv()
    frames = np.zeros((3, 64, 64, 3), np.uint8)
    episode = EpisodeBuffer(
        id=0, observations=frames, actions=np.zeros((2, 2), np.float32), rewards=np.zeros(2),
        terminations=np.zeros(2, bool), truncations=np.array([False, True]),
    )  # fmt: skip
    minari.create_dataset_from_buffers(
        "test/foreign-v0", [episode], env="worldgym/TabletopMuJoCo-v0",
        observation_space=env.observation_space, action_space=env.action_space, algorithm_name="none",
        author="nobody", author_email="", code_permalink="", description="no rewards by instruction",
    )  # fmt: skip
    for _ in range(2):
        with pytest.raises(ValueError, match="test/foreign-v0 has no rewards by instruction"):
            load_episodes("test/foreign-v0")
    assert [path.name for path in (shelf / "test" / "foreign-v0").iterdir()] == ["data"]


def test_an_unknown_dataset_is_refused(shelf):
    with pytest.raises(FileNotFoundError, match="test/atlantis-v0"):
        load_episodes("test/atlantis-v0")
