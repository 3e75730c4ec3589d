"""benchmarks/pan_backbone.py: what its toys are asked, and how predictions are judged."""

import numpy as np
import pytest
import torch


@pytest.fixture
def bench(load_benchmark):
    return load_benchmark("pan_backbone")


def test_a_toy_is_taught_and_then_frozen(bench, tmp_path):
    data = bench.converse(4, 2, 0)
    corpus = [bench.QUESTION, *(one for row in bench.captions(data) for one in row), *data.said[0]]
    bench.make_toy(tmp_path, 64, 1, corpus)
    config = bench.Backbones(pretraining=1, steps=1, batch=2)
    before = bench.load(str(tmp_path), config, 0)
    assert set(bench.pretrain(tmp_path, (bench.PICTURES, bench.STORIES), data, config)) == {"pictures", "stories"}
    after = bench.load(str(tmp_path), config, 0)
    assert not torch.equal(before.vlm.visual.patch_embed.proj.weight, after.vlm.visual.patch_embed.proj.weight)
    weights = {name: part.clone() for name, part in after.vlm.state_dict().items()}
    untrained = bench.Predictor(after, data.places[:, 1:])
    mean = torch.from_numpy(data.places[:, 1:].mean((0, 1)) / bench.BLOCK_WIDTH)
    torch.testing.assert_close(untrained(bench.see(after, data), data.said)[0, 0], mean)
    places = bench.predict(bench.train(after, data, config, 0), data)
    assert places.shape == (4, 2, 3, 2) and np.isfinite(places).all()
    assert all(torch.equal(part, weights[name]) for name, part in after.vlm.state_dict().items())


def test_fresh_weights_are_of_the_seed(bench, tmp_path):
    bench.make_toy(tmp_path, 64, 1, [bench.QUESTION])
    config, name = bench.Backbones(), f"random:{tmp_path}"
    one, same, other = (bench.load(name, config, seed).vlm.visual.patch_embed.proj.weight for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


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
