"""Videos beside each other and as files."""

import imageio.v3 as iio
import numpy as np
import pytest

from worldgym.evaluate.video import enlarged, gif, side_by_side, stacked, write_video


def noise(steps: int) -> np.ndarray:
    return np.random.default_rng(steps).integers(0, 256, (steps, 16, 16, 3), np.uint8)


@pytest.mark.parametrize(("join", "axis"), [(side_by_side, 2), (stacked, 1)])
def test_what_is_over_stands_still_and_gaps_are_white(join, axis):
    long, short = noise(5), noise(3)
    shown, gap, second = np.split(join([long, short], gap=2), [16, 18], axis)
    assert np.array_equal(shown, long) and (gap == 255).all()
    assert np.array_equal(second[:3], short) and (second[3:] == short[-1]).all()


def test_enlarged_pixels_are_squares():
    video = noise(2)
    large = enlarged(video, 3)
    assert large.shape == (2, 48, 48, 3)
    assert all(np.array_equal(large[:, row::3, column::3], video) for row in range(3) for column in range(3))


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_a_file_has_all_frames(tmp_path, suffix):
    path = tmp_path / "new" / f"video.{suffix}"
    write_video(path, noise(4))
    assert iio.imread(path).shape == (4, 16, 16, 3)


def test_a_gif_is_the_file_it_would_be(tmp_path):
    write_video(tmp_path / "video.gif", noise(4), 2)
    assert (tmp_path / "video.gif").read_bytes() == gif(noise(4), 2)
