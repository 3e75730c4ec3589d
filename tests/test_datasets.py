"""Dreamed episodes as datasets."""

import gymnasium as gym
import minari
import numpy as np
import pytest

from worldgym.data import load_episodes, sample_segments
from worldgym.datasets import dream_episodes, write_minari


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))


@pytest.fixture
def tiny(make_world):
    return make_world()


def test_dreams_are_those_of_the_world(tiny, frames, actions):
    """Past the end of its window, too; each alone is as in the batch."""
    one, *_ = dream_episodes(tiny, frames[:, 0], actions[:, :6], seeds=[5, 6, 7])
    state = tiny.start(frames[:1, :1], seeds=[5], temperature=1.0)
    for count in range(7):
        difference = one.frames[count].astype(int) - tiny.render(state)[0].numpy()
        assert np.abs(difference).max() <= 1
        if count < 6:
            state, outcome = tiny.step(state, actions[:1, count])
            assert one.rewards[count + 1, 0] == pytest.approx(float(outcome.reward), abs=1e-5)
            assert one.successes[count + 1, 0] == bool(outcome.success > 0.5)
            assert one.terminations[count + 1, 0] == bool(outcome.terminated > 0.5)
            assert one.uncertainty[count + 1] == pytest.approx(float(outcome.uncertainty), abs=1e-5)


def test_every_instruction_judges(tiny, frames, actions):
    (episode,) = dream_episodes(tiny, frames[:1, 0], actions[:1, :2])
    state = tiny.start(frames[:1, :1], instruction=tiny.config.instructions[1], temperature=1.0)
    for count in range(2):
        state, outcome = tiny.step(state, actions[:1, count])
        assert episode.rewards[count + 1, 1] == pytest.approx(float(outcome.reward), abs=1e-5)
    assert not np.allclose(episode.rewards[:, 0], episode.rewards[:, 1])


def test_minari_gives_back_what_was_dreamed(datasets, checkpoint, tiny, frames, actions):
    episodes = dream_episodes(tiny, frames[:, 0], actions[:, :5])
    write_minari("test/dreams-v0", str(checkpoint), episodes, "push the red block to the centre")
    dataset = minari.load_dataset("test/dreams-v0")
    assert dataset.spec.observation_space == gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    assert dataset.env_spec.id == "worldgym/Dream-v0" and dataset.env_spec.kwargs["world"] == str(checkpoint)
    for found, episode in zip(dataset.iterate_episodes(), episodes, strict=True):
        assert np.array_equal(found.observations, episode.frames)
        assert np.array_equal(found.actions, episode.actions)
        assert np.array_equal(found.rewards, episode.rewards[1:, 1])
        assert np.array_equal(found.infos["uncertainty"], episode.uncertainty)
        assert not found.terminations.any() and found.truncations.tolist() == [False] * 4 + [True]


def test_they_read_as_recorded_episodes_do(datasets, checkpoint, tiny, frames, actions):
    """So a world can be trained on them."""
    episodes = dream_episodes(tiny, frames[:, 0], actions[:, :5])
    write_minari("test/dreams-v0", str(checkpoint), episodes)
    data = load_episodes("test/dreams-v0")
    assert data.instructions == tiny.config.instructions and data.phrase_list == tiny.config.phrases
    assert np.array_equal(data.frames, np.concatenate([episode.frames for episode in episodes]))
    segment = sample_segments(data, np.arange(3), 4, 3, np.random.default_rng(0))
    assert segment.frames.shape == (4, 4, 64, 64, 3) and segment.rewards.shape == (4, 3, 2)
    assert (segment.sentences == -1).all()


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (
            lambda checkpoint, tiny, dreams: write_minari("test/dreams-v0", str(checkpoint), []),
            ValueError,
            "no episodes",
        ),
        (
            lambda checkpoint, tiny, dreams: write_minari("test/dreams-v0", str(checkpoint), dreams, "fly"),
            ValueError,
            "unknown instruction",
        ),
        (
            lambda checkpoint, tiny, dreams: dream_episodes(tiny, dreams[0].frames, np.zeros((6, 2))),
            ValueError,
            r"\(b, t, a\)",
        ),
    ],
    ids=["nothing", "instruction", "actions"],
)
def test_what_cannot_be_written_is_refused(datasets, tmp_path, checkpoint, tiny, frames, actions, spoil, error, says):
    dreams = dream_episodes(tiny, frames[:1, 0], actions[:1, :5])
    with pytest.raises(error, match=says):
        spoil(checkpoint, tiny, dreams)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(datasets, checkpoint, tiny, frames, actions):
    dreams = dream_episodes(tiny, frames[:1, 0], actions[:1, :2])
    write_minari("test/dreams-v0", str(checkpoint), dreams)
    with pytest.raises(FileExistsError, match="minari delete test/dreams-v0"):
        write_minari("test/dreams-v0", str(checkpoint), dreams)
