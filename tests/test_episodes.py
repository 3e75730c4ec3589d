"""The one check that all data pass, and pictures in other layouts."""

from dataclasses import replace

import numpy as np
import pytest

from worldgym.episodes import EpisodeFormat, as_frames, check_resolution
from worldgym.errors import UserError

LAYOUT = EpisodeFormat(16, 2, ("go", "stop"), ("go on", "stand still"), 3)


def episode(steps: int = 5) -> dict[str, np.ndarray]:
    rng, rows = np.random.default_rng(0), steps + 1
    return {
        "frames": rng.integers(0, 256, (rows, 16, 16, 3), np.uint8),
        "actions": rng.uniform(-1, 1, (steps, 2)),
        "rewards": rng.normal(size=(rows, 2)),
        "successes": np.zeros((rows, 2), bool),
        "terminations": np.zeros((rows, 2), np.float32),
        "sentences": np.array([[-1], [0], [1], [0], [-1], [1]][:rows]),
        "sentence_actions": np.zeros((rows, 1, 2), np.float32),
    }


def check(changes, layout: EpisodeFormat = LAYOUT) -> dict[str, np.ndarray]:
    parts = {name: part for name, part in (episode() | changes).items() if part is not None}
    return layout.check("data set mine, episode 7", parts["frames"], parts["actions"], parts)


def at(name: str, place: tuple[int, ...], value: float) -> dict[str, np.ndarray]:
    """That part of an episode, with one number changed."""
    part = episode()[name].copy()
    part[place] = value
    return {name: part}


def test_what_is_right_is_read_in_the_types_of_training():
    found, given = check({}), episode()
    kinds = {name: part.dtype for name, part in found.items()}
    assert kinds == {
        "frames": np.uint8, "actions": np.float32, "rewards": np.float32, "successes": bool, "terminations": bool,
        "sentences": np.int16, "sentence_actions": np.float32,
    }  # fmt: skip
    for name, part in found.items():
        assert np.allclose(part, given[name])


def test_without_phrases_nothing_need_be_said():
    found = check({"sentences": None, "sentence_actions": None}, replace(LAYOUT, phrases=()))
    assert found["sentences"].shape == (6, 0) and found["sentence_actions"].shape == (6, 0, 2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"frames": episode()["frames"][:-1]}, "it has 5 frames and 5 actions; expected one frame more"),
        ({"frames": episode()["frames"] / 255}, r"frames are float64 \[6, 16, 16, 3\]; expected uint8"),
        ({"frames": episode()["frames"].astype(np.uint16)}, "frames are uint16; expected uint8"),
        ({"frames": episode()["frames"][:, :8]}, r"frames are uint8 \[6, 8, 16, 3\]; .* \[any, 16, 16, 3\]"),
        ({"actions": np.zeros((5, 3))}, r"actions are float64 \[5, 3\]; expected floats \[any, 2\]"),
        ({"actions": np.zeros(5, int)}, r"actions are int64 \[5\]; expected floats \[any, 2\]"),
        (at("actions", (3, 1), np.nan), "actions have nan at step 3, column 1; expected finite numbers from -1 to 1"),
        (at("actions", (2, 0), 1.1), "actions have 1.1 at step 2, column 0; expected finite numbers from -1 to 1"),
        ({"rewards": episode()["rewards"][:-1]}, r"rewards are float64 \[5, 2\]; expected floats \[6, 2\]"),
        ({"rewards": episode()["rewards"][:, :1]}, r"rewards are float64 \[6, 1\]; expected floats \[6, 2\]"),
        ({"rewards": np.full((6, 2), None)}, r"rewards are object \[6, 2\]; expected floats"),
        (at("rewards", (4, 0), -np.inf), "rewards have -inf at step 4, column 0; expected finite numbers"),
        (
            at("rewards", (4, 0), 1e39),
            r"rewards have 1e\+39 at step 4, column 0; expected numbers that float32 can hold",
        ),
        (at("terminations", (1, 1), np.nan), "terminations have nan at step 1, column 1; expected True or False"),
        ({"successes": None}, "its infos have .*terminations.*; expected also successes"),
        ({"sentence_actions": None}, "its infos have .*; expected also sentence_actions"),
        (at("sentences", (5, 0), 2), "sentences have 2 at step 5, column 0; expected an index of the 2 phrases, or -1"),
        (
            {"sentence_actions": np.full((6, 1, 2), np.inf)},
            "sentence_actions have inf at step 0, column 0; expected finite",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(changes, says):
    with pytest.raises(UserError, match=f"data set mine, episode 7: {says}"):
        check(changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"instructions": ()}, "there is no instruction"),
        ({"instructions": ("go", "go")}, "expected texts that are not empty and all differ"),
        ({"phrases": ("",)}, "expected texts that are not empty"),
        ({"frames_per_action": 0}, "must be at least 1"),
    ],
)
def test_columns_without_a_meaning_are_refused(changes, says):
    with pytest.raises(UserError, match=says):
        replace(LAYOUT, **changes)


@pytest.mark.parametrize("resolution", [0, -8, 8, 65])
def test_what_the_tokenizer_cannot_halve_is_refused(resolution):
    check_resolution(64), check_resolution(16)
    with pytest.raises(UserError, match=f"resolution is {resolution}; .*multiples of 8 from 16"):
        check_resolution(resolution)


# -- pictures in other layouts -------------------------------------------------------------------------------

COLOUR = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
GREY = COLOUR[..., :1]
WIDE = np.pad(COLOUR, ((0, 0), (0, 0), (3, 4), (0, 0)))


@pytest.mark.parametrize(
    ("pictures", "highest", "expected", "says"),
    [
        (COLOUR, 255, COLOUR, []),
        (COLOUR / 255, 1, COLOUR, ["float64 up to 1 becomes uint8 up to 255"]),
        (COLOUR.astype(np.float32), 255, COLOUR, ["float32 up to 255 becomes"]),
        (COLOUR.astype(int), 255, COLOUR, ["int64 up to 255 becomes"]),
        (GREY, 255, GREY.repeat(3, 3), ["grey is repeated"]),
        (GREY[..., 0], 255, GREY.repeat(3, 3), ["grey is repeated"]),
        (np.pad(COLOUR, ((0, 0),) * 3 + ((0, 1),), constant_values=255), 255, COLOUR, ["alpha channel, opaque"]),
        (COLOUR.transpose(0, 3, 1, 2), 255, COLOUR, ["channels are moved"]),
        (COLOUR.transpose(0, 3, 1, 2) / 255, 1, COLOUR, ["channels are moved", "float64 up to 1"]),
        (WIDE, 255, COLOUR, ["of 16 x 23 pixels the square in the middle is kept"]),
    ],
)
def test_what_can_only_mean_one_picture_is_converted_and_said(pictures, highest, expected, says):
    found, done = as_frames("mine", pictures, float(highest))
    assert found.dtype == np.uint8 and np.array_equal(found, expected)
    assert len(done) == len(says) and all(part in sentence for part, sentence in zip(says, done, strict=True))


@pytest.mark.parametrize(
    ("pictures", "highest", "says"),
    [
        (COLOUR / 255, 255, "float64.* with fractions, from 0 to 1; by the observation space white is 255"),
        (COLOUR / 127.5 - 1, 1, "values from -1 to 1; by the observation space they are from 0 to 1"),
        (COLOUR * 257.0, 255, "values from .*; by the observation space they are from 0 to 255"),
        (np.full_like(COLOUR, np.nan, float), 1, "values from nan"),
        (COLOUR / 255, np.inf, "float64.* up to inf; expected numbers from 0 to 1 or from 0 to 255"),
        (np.concatenate([COLOUR] * 3, 3), 255, r"uint8 \[4, 16, 16, 9\]; expected uint8 \[n, height, width, 3\]"),
        (COLOUR[:, :3], 255, ".*channels may be first or last"),
        (np.pad(COLOUR, ((0, 0),) * 3 + ((0, 1),)), 255, ".*not opaque"),
        (np.zeros((4, 2)), 255, r"float64 \[4, 2\]; expected"),
    ],
)
def test_what_could_mean_two_pictures_is_refused(pictures, highest, says):
    with pytest.raises(UserError, match=f"mine: frames (are|have) {says}" if "values" not in says else says):
        as_frames("mine", pictures, float(highest))
