"""The Tabletop's side of PAN's evaluation: what is said, what comes of it, and what a picture must show."""

import numpy as np
import pytest

from worldgym.envs_real.tabletop.cases import sentence_cases
from worldgym.envs_real.tabletop.rounds import intact, replay, sentence_rounds
from worldgym.envs_real.tabletop.skills import phrases, skill_action
from worldgym.envs_real.tabletop.tasks import BLOCK_HALF

COLORS = ("red", "blue")


@pytest.fixture(scope="module")
def rounds():
    return sentence_rounds(3, seed=2)


def test_they_begin_as_the_sentence_cases_do(rounds):
    cases = sentence_cases(1, seed=2)
    np.testing.assert_array_equal(rounds.frames[:, 0], cases.frames[:3])
    assert [said[0] for said in rounds.sentences] == cases.sentences[:3]
    shift = (rounds.positions[:, rounds.length] - rounds.positions[:, 0])[np.arange(3), rounds.objects]
    np.testing.assert_allclose((shift * rounds.directions).sum(-1), cases.moves[:3], atol=1e-6)


def test_an_episode_is_the_same_among_fewer(rounds):
    alone = sentence_rounds(1, seed=2)
    assert alone.sentences == rounds.sentences[:1]
    np.testing.assert_array_equal(alone.frames, rounds.frames[:1])
    np.testing.assert_array_equal(alone.outcomes, rounds.outcomes[:1])


def test_the_first_outcome_is_what_happened_and_the_others_are_elsewhere(rounds):
    np.testing.assert_allclose(rounds.outcomes[:, 0], rounds.positions[:, rounds.length], atol=1e-6)
    away = np.linalg.norm(rounds.outcomes[:, 1:] - rounds.outcomes[:, :1], axis=-1).max(-1)
    assert away.shape == (3, 3) and away.min() > BLOCK_HALF


def test_the_controllers_own_actions_lead_where_it_went(rounds):
    known = phrases(COLORS)
    actions = np.array(
        [
            [skill_action(known[said[0]], places, COLORS) for places in way[: rounds.length]]
            for said, way in zip(rounds.sentences, rounds.positions, strict=True)
        ]
    )
    np.testing.assert_allclose(replay(rounds.seeds, actions), rounds.positions[:, rounds.length], atol=1e-5)


def test_a_true_video_stays_intact(rounds):
    for video in rounds.frames:
        assert all(held.all() for held in intact(video, video[0]).values())


def test_a_thing_that_shrinks_is_missing(rounds):
    first = rounds.frames[0, 0]
    blue = (first[..., 2] > 180) & (first[..., 0] < 100)
    smaller = first.copy()
    rows = np.flatnonzero(blue.any(1))
    smaller[rows[len(rows) // 3] :][blue[rows[len(rows) // 3] :]] = np.median(first, (0, 1))
    held = intact(np.stack([first, smaller]), first)
    assert held["all there"].tolist() == [True, False]
    assert held["background"].all()
