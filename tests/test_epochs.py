"""The order in which training draws episodes from shards."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from worldgym.epochs import EpochOrder

SHARDS = np.repeat(np.arange(12), [5, 3, 4, 1, 5, 5, 2, 5, 5, 6, 4, 5])
EPISODES = np.arange(len(SHARDS)) + 100
DRAWS = np.random.default_rng(0).integers(1, 5, len(SHARDS))


def order(window: int = 4) -> EpochOrder:
    return EpochOrder(EPISODES, SHARDS, DRAWS, window)


@pytest.mark.parametrize("window", [1, 4, 12, 50])
@pytest.mark.parametrize("size", [1, 7, 64, 500])
def test_an_epoch_has_every_draw_exactly_once(window, size):
    one = order(window)
    drawn = np.concatenate([one.batch(3, step, size) for step in range(-(-3 * one.length // size))])
    for epoch in range(3):
        found = Counter(drawn[epoch * one.length : (epoch + 1) * one.length].tolist())
        assert found == dict(zip(EPISODES.tolist(), DRAWS.tolist(), strict=True))


def test_a_batch_follows_from_seed_and_step_alone():
    walked = order()
    batches = [walked.batch(0, step, 8) for step in range(60)]
    for step in (59, 3, 31):
        assert np.array_equal(order().batch(0, step, 8), batches[step])
    assert not np.array_equal(order().batch(1, 3, 8), batches[3])


def test_epochs_differ():
    one = order()
    epochs = [one.batch(0, epoch, one.length) for epoch in range(2)]
    assert not np.array_equal(*epochs)


def test_a_draw_is_of_the_shards_in_the_window():
    one = order(4)
    shards = np.array([SHARDS[one.batch(0, draw, 1)[0] - 100] for draw in range(one.length)])
    _, ends = one._epoch(0, 0)
    slots = np.split(shards, ends[:-1])
    assert all(len(set(slot)) <= 4 for slot in slots)
    assert all(len(set(a) | set(b)) <= 5 for a, b in pairwise(slots))
    assert np.mean([len(set(slot)) for slot in slots]) > 3


def test_what_a_batch_needs_is_known_before():
    one = order(4)
    for draw in range(2 * one.length):
        shard = SHARDS[one.batch(0, draw, 1)[0] - 100]
        assert shard in one.needs(0, draw, 1, 0) and len(one.needs(0, draw, 1, 0)) == 4
        begins = draw % one.length < one._epoch(0, draw // one.length)[1][0]
        assert begins or shard in one.needs(0, draw - 1, 1, 1)  # an epoch begins with another window
