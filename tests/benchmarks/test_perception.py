"""Networks that packages ship judge dreams: called as ours are, and asked for by name where they are missing."""

import numpy as np
import pytest
import torch
from torch import nn

from worldgym.errors import UserError
from worldgym.evaluate.perceptual import VideoFeatures


@pytest.fixture
def perception(load_benchmark):
    return load_benchmark("perception")


class Movement(nn.Module):
    """How much each place of a clip differs between frames."""

    def forward(self, clips):
        return (clips[:, :, 1:] - clips[:, :, :-1]).abs()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_features_of_films_are_means_over_time(perception, tmp_path):
    path = tmp_path / "film.pt"
    traced = torch.jit.trace(Movement(), torch.zeros(2, 3, 11, *perception.SIZE))
    torch.jit.script(perception.FilmFeatures(traced)).save(path)
    still = np.full((1, 11, 54, 96, 3), 100, np.uint8)
    blinking = still.copy()
    blinking[:, ::2] = 151
    found = VideoFeatures(path, torch.device("cpu"))(np.concatenate([still, blinking]))
    height, width = perception.SIZE
    assert found.shape == (2, 3 * height * width)
    np.testing.assert_allclose(found, np.stack([np.zeros_like(found[0]), np.full_like(found[0], 0.2)]), atol=1e-6)


def test_missing_networks_are_asked_for_by_name(perception, monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps stlpips-pytorch"):
        perception._networks(tmp_path, 17, 64)
