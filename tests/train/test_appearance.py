import numpy as np
import pytest
import torch

from worldgym.train.appearance import SHARE, Looks, alter, draw_looks

GREY, RED, BLUE = (180, 180, 180), (220, 30, 30), (40, 70, 230)
MEAN = torch.full((3, 32, 32), 180 / 127.5 - 1)


@pytest.fixture
def frames():
    """Two frames of a grey scene with a red and a blue square; red moves."""
    made = np.full((2, 32, 32, 3), GREY, np.uint8)
    made[0, 4:12, 4:12], made[1, 4:12, 8:16] = RED, RED
    made[:, 20:28, 20:28] = BLUE
    return torch.from_numpy(made)


def plain(**changed) -> Looks:
    """One look that changes nothing but what is named."""
    looks = Looks(
        altered=torch.ones(1, dtype=torch.bool),
        gain=torch.ones(1, 3),
        view=torch.eye(2, 3)[None],
        recoloured=torch.zeros(1, dtype=torch.bool),
        which=torch.tensor([0.25]),
        colour=torch.zeros(1, 3),
        places=torch.zeros(1, 1, 2),
        sizes=torch.zeros(1, 1),
        square=torch.zeros(1, 1, dtype=torch.bool),
        colours=torch.zeros(1, 1, 3),
    )
    return looks._replace(**{name: torch.tensor(value) for name, value in changed.items()})


def altered(frames, looks):
    return alter(frames, torch.zeros(len(frames), dtype=torch.long), looks, MEAN)


def test_a_plain_look_changes_nothing(frames):
    assert (altered(frames, plain()).int() - frames.int()).abs().max() <= 1


def test_stretches_that_are_not_altered_stay_as_they_are(frames):
    assert torch.equal(altered(frames, plain(gain=[[0.5] * 3], altered=[False])), frames)


def test_light_scales_brightness(frames):
    assert torch.allclose(altered(frames, plain(gain=[[0.5] * 3])).float(), frames / 2, atol=1)


def test_one_object_takes_another_colour_in_all_frames_of_its_stretch(frames):
    seen = altered(frames, plain(recoloured=[True], colour=[[-1.0, 1.0, -1.0]])).int()
    for frame, corner in zip(seen, (4, 8), strict=True):  # a quarter of what stands out comes first, and it is red
        assert (frame[5:11, corner + 1 : corner + 7] - torch.tensor((0, 255, 0))).abs().max() <= 2
        assert (frame[21:27, 21:27] - torch.tensor(BLUE)).abs().max() <= 2
        assert (frame[:3] - torch.tensor(GREY)).abs().max() <= 2


def test_things_lie_behind_what_moves(frames):
    seen = altered(frames, plain(places=[[[-0.5, -0.5]]], sizes=[[0.4]], square=[[True]], colours=[[[1.0] * 3]]))
    white = (seen > 253).all(-1)
    assert white[:, 2:14, 2:14].float().mean() > 0.3  # the red square covers the rest
    assert (seen[0, 5:11, 5:11].int() - torch.tensor(RED)).abs().max() <= 1
    assert not white[:, 16:].any() and not white[:, :, 18:].any()


def test_a_view_moves_everything_alike(frames):
    shifted = torch.eye(2, 3)[None] + torch.tensor([[[0, 0, 4 / 16], [0, 0, 0]]])
    seen = altered(frames, plain(view=shifted.tolist()))
    assert torch.equal(seen[:, :, :-4], frames[:, :, 4:])


def test_looks_follow_the_random_numbers_alone_and_spare_half_of_the_stretches():
    one, again = (draw_looks(np.random.default_rng(3), 4000) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(one, again, strict=True))
    untouched = (
        (one.gain == 1).all(1)
        & (one.view == torch.eye(2, 3)).flatten(1).all(1)
        & ~one.recoloured
        & (one.sizes == 0).all(1)
    )
    assert untouched[~one.altered].all()
    half = 1 - SHARE + SHARE / 16  # and those of the altered that none of four ways fell to
    assert untouched.float().mean().item() == pytest.approx(half, abs=0.03)


def test_each_stretch_has_its_own_look(frames):
    looks = draw_looks(np.random.default_rng(0), 64)
    many = alter(frames[:1].expand(64, -1, -1, -1), torch.arange(64), looks, MEAN)
    pairs = alter(frames[:1].expand(128, -1, -1, -1), torch.arange(64).repeat_interleave(2), looks, MEAN)
    assert torch.equal(pairs[::2], many) and torch.equal(pairs[1::2], many)
    assert len(many.flatten(1).unique(dim=0)) > 20
    some = looks.of(slice(1, None, 2))
    assert torch.equal(alter(frames[:1].expand(32, -1, -1, -1), torch.arange(32), some, MEAN), many[1::2])
