"""Random calls on dreams find nothing, and would find what is broken: benchmarks/fuzz.py makes many more of them."""

import pytest

from worldgym.dreams import Dreams


@pytest.fixture
def fuzz(load_benchmark, monkeypatch):
    module = load_benchmark("fuzz")
    monkeypatch.setattr(module, "SESSION", 60)
    return module


def test_random_calls_find_nothing(fuzz):
    found = fuzz.fuzz(fuzz.Config(calls=240))
    assert found["calls"] >= 240 and found["findings"] == [], found["findings"]
    assert {"step", "reset", "refused", "snapshot"} <= set(found["by_call"])


def forgets_clocks(monkeypatch):
    plain = Dreams.restore

    def restore(self, blob):
        plain(self, blob)
        self.elapsed[:] = 0

    monkeypatch.setattr(Dreams, "restore", restore)


def steps_on_after_an_error(monkeypatch):
    plain = Dreams.step

    def step(self, actions, which=None):
        self.elapsed += 1
        return plain(self, actions[: len(self)], which)

    monkeypatch.setattr(Dreams, "step", step)


def shares_its_forks(monkeypatch):
    monkeypatch.setattr(Dreams, "select", lambda self, rows: self)


@pytest.mark.parametrize("broken", [forgets_clocks, steps_on_after_an_error, shares_its_forks])
def test_random_calls_find_what_is_broken(fuzz, monkeypatch, broken):
    broken(monkeypatch)
    assert fuzz.fuzz(fuzz.Config(calls=240))["findings"]
