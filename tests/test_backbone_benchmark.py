"""benchmarks/pan_backbone.py: what its toys are asked, and how predictions are judged."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    return importlib.import_module("pan_backbone")


def test_a_toy_learns_its_answers_and_not_the_questions(bench, tmp_path):
    data = bench.converse(2, 1, 0)
    told = bench.captions(data)
    bench.make_toy(tmp_path, 64, 1, [one for row in told for one in row] + [row[0] for row in data.said])
    backbone = bench.load(str(tmp_path), bench.Backbones(rounds=1), 0)
    ids, answer = bench.write(backbone, [data.said[0][0], "short"], [told[0][1], told[1][1]])
    assert backbone.text.decode(ids[0][answer[0]]) == told[0][1] + "<|im_end|>"
    assert backbone.text.decode(ids[1][answer[1]]) == told[1][1] + "<|im_end|>"
    model = bench.Predictor(backbone, data.places[:, 1:])
    mean = torch.from_numpy(data.places[:, 1:].mean((0, 1)) / bench.BLOCK_WIDTH)
    torch.testing.assert_close(model(bench.see(backbone, data), data.said)[0, 0], mean)  # before it learns


def test_the_truth_obeys_and_a_table_on_which_nothing_moves_does_not(bench):
    places = np.zeros((2, 2, 3, 2))
    places[:, 1, 1] = [0.34, 0.0]
    data = bench.Conversations(
        np.zeros((2, 2, 1, 1, 3), np.uint8), places, [["push it"]] * 2, np.ones((2, 1), int),
        np.broadcast_to([1.0, 0.0], (2, 1, 2)), ("pusher", "red", "blue"),
    )  # fmt: skip
    truth, still = bench.judge(places[:, 1:], data), bench.judge(places[:, :-1], data)
    assert truth["error"] == [0.0] and truth["obeyed"] == [1.0] and truth["cases"] == [2]
    assert still["error"] == [1.0] and still["obeyed"] == [0.0] and still["others_error"] == [0.0]
