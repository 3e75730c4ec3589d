"""benchmarks/unknown_words.py: what it puts in the place of unknown words, and how it chooses."""

import json

import numpy as np
import pytest

from worldgym.reader import Reader

PHRASES = ("push the red block left", "reach the red block", "stay still")


@pytest.fixture
def bench(load_benchmark):
    return load_benchmark("unknown_words")


class Hasty:
    """Takes sentences for alike that have as many letters."""

    def embed(self, sentences):
        lengths = np.array([len(one) for one in sentences])
        return np.stack([np.cos(lengths / 200), np.sin(lengths / 200)], 1)


def test_readings_differ_in_unknown_words_alone(bench):
    found = bench.readings(Reader(PHRASES), "trundle the red block left")
    assert found["push the red block left"] == ("push the red block left",)
    assert all(sentence.endswith(" the red block left") for sentence in found)
    assert bench.readings(Reader(PHRASES), "do not trundle the red block left") == {}
    assert bench.readings(Reader(PHRASES), "push the red block left") == {"push the red block left": (PHRASES[0],)}


def test_what_has_no_unknown_word_is_not_scored(bench):
    assert bench.scored(Hasty(), Reader(PHRASES), "push the red block") is None
    meant, (like, lead, _) = bench.scored(Hasty(), Reader(PHRASES), "bump the red lump left")
    assert meant == ("push the red block left",) and like <= 1.0 and lead >= 0.0


def test_the_sets_of_wordings_share_nothing(bench):
    judged, development = (
        json.loads(bench.FILE.with_name(name).read_text(encoding="utf-8"))
        for name in ("wordings.json", "wordings_development.json")
    )
    for kind in ("paraphrases", "two_steps", "negations", "impossible", "nonsense"):
        assert not set(judged[kind]) & set(development[kind])
