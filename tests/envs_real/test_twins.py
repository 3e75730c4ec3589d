"""The checklist of docs/adding.md for a bundled world, followed with a toy one: a folder, an id, a twin and its row."""

import shutil
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

from worldgym.cli import main
from worldgym.config import WorldConfig
from worldgym.envs_real.twins import TWINS, TwinKind, twin_of

TOY = '''
import gymnasium as gym
import numpy as np


class Toy(gym.Env):
    """A light that goes where it is told."""

    def __init__(self, instruction=None, action_mode="vector", resolution=64):
        self.observation_space = gym.spaces.Box(0, 255, (resolution, resolution, 3), np.uint8)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.place = np.zeros(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-1, 1, 2)
        return self._frame(), {"success": False}

    def step(self, action):
        self.place = np.clip(self.place + 0.1 * action, -1, 1)
        return self._frame(), -float(np.abs(self.place).sum()), False, False, {"success": False}

    def _frame(self):
        frame = np.zeros(self.observation_space.shape, np.uint8)
        row, column = ((self.place + 1) * 28).astype(int)
        frame[row : row + 8, column : column + 8] = 255
        return frame

    def snapshot(self):
        return self.place.tobytes()

    def restore(self, blob):
        self.place = np.frombuffer(blob).copy()

    def evaluate(self, sequences):
        return -np.abs(self.place + 0.1 * sequences.sum(1)).sum(-1)


recorded = []


def record(config):
    recorded.append(config)
    return "a folder"
'''


@pytest.fixture
def toy(tmp_path, monkeypatch, checkpoint):
    """The four things of the checklist, in a temporary folder."""
    (tmp_path / "toy.py").write_text(TOY, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(checkpoint, tmp_path / "worlds" / "toy")
    monkeypatch.setattr("worldgym.listing._bundled", lambda: tmp_path / "worlds")
    monkeypatch.setitem(TWINS, "toy/Toy-v0", TwinKind("toy:record"))
    gym.register("toy/Toy-v0", "toy:Toy", max_episode_steps=10)
    gym.register("worldgym/Toy-v0", "worldgym.env:DreamEnv", max_episode_steps=10, kwargs={"world": "toy"})
    yield
    for id in ("toy/Toy-v0", "worldgym/Toy-v0"):
        del gym.registry[id]


def test_its_id_dreams(toy):
    dream = gym.make("worldgym/Toy-v0", device="cpu")
    dream.reset(seed=0)
    assert dream.step(np.zeros(2, np.float32))[0].shape == (64, 64, 3)


def test_the_command_records_by_its_row(toy, monkeypatch, capsys):
    import toy as module

    monkeypatch.setattr("sys.argv", ["worldgym", "record", "--env", "toy/Toy-v0", "--dataset", "test/toy-v0"])
    main()
    assert module.recorded[-1].env == "toy/Toy-v0" and "recorded a folder" in capsys.readouterr().out


def test_its_twin_is_made_by_its_row_and_can_be_tried_out(toy, make_world):
    config: WorldConfig = replace(make_world().config, twin="toy/Toy-v0")
    twin = twin_of(config)
    twin.reset(seed=0)
    before = twin.snapshot()
    far, near = twin.evaluate(np.stack([np.ones((5, 2)), np.zeros((5, 2))]))
    twin.step(np.ones(2, np.float32))
    twin.restore(before)
    assert np.array_equal(twin.evaluate(np.zeros((1, 5, 2))), [near]) and far != near
