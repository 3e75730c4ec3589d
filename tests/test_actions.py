"""Every action space that RL uses, as a vector and back."""

import json

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, OneOf, Text, Tuple
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector.utils import concatenate, create_empty_array

from worldgym.actions import ActionCodec, bounded, read_codec
from worldgym.errors import UserError

NESTED = Dict(
    [("wheel", Discrete(3, start=-1)), ("arm", Tuple([MultiBinary(2), Box(-1.0, 2.0, (2,)), Dict(grip=Discrete(2))]))]
)
SPACES = [
    Box(-1.0, 1.0, (3,), np.float32),
    Box(np.float32([0.0, -30.0]), np.float32([1.0, 0.7])),
    Box(-1.0, 1.0, (2,), np.float64),
    Box(-3.0, 3.0, (2, 2), np.float32),
    Box(0.0, 5.0, (), np.float32),
    Box(0, 7, (2,), np.uint8),
    Discrete(2),
    Discrete(4, start=-3),
    Discrete(3, dtype=np.int32),
    MultiDiscrete([2, 3, 4], start=[1, -1, 0]),
    MultiDiscrete([[2, 3], [4, 1]]),
    MultiBinary(3),
    MultiBinary([2, 2]),
    Tuple([Discrete(2), Discrete(2)]),
    NESTED,
]


def samples(space: gym.Space, count: int = 50, seed: int = 0) -> list:
    space.seed(seed)
    return [space.sample() for _ in range(count)]


def close(one, other) -> bool:
    if isinstance(one, dict):
        return all(close(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return all(map(close, one, other))
    one, other = np.asarray(one), np.asarray(other)
    exact = one.dtype.kind in "iu"
    return one.dtype == other.dtype and np.allclose(one, other, rtol=0, atol=0 if exact else 1e-5)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_an_action_comes_back(space):
    codec = ActionCodec(space)
    for action in samples(space):
        vector = codec.encode(action)
        assert vector.shape == (codec.size,) and vector.dtype == np.float32 and np.abs(vector).max() <= 1
        back = codec.decode(vector)
        assert space.contains(back) and close(action, back)
        assert np.array_equal(codec.snap(vector), vector)
        assert np.allclose(codec.encode(back), vector, atol=1e-6)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_any_vector_can_be_read(space):
    codec, random = ActionCodec(space), np.random.default_rng(0)
    for vector in random.normal(scale=2.0, size=(50, codec.size)).astype(np.float32):
        action = codec.decode(vector)
        assert space.contains(action), action
        assert np.allclose(codec.encode(action), codec.snap(vector), atol=0.01 if space.dtype != np.uint8 else 0.3)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_batch_is_as_its_actions(space):
    codec, actions = ActionCodec(space), samples(space, 4)
    batched = concatenate(space, actions, create_empty_array(space, 4))
    assert np.array_equal(codec.encode_batch(batched, 4), [codec.encode(action) for action in actions])
    with pytest.raises(ValueError, match="this world takes"):
        codec.encode_batch(batched, 3)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_its_description_is_json(space):
    codec = ActionCodec(space)
    described = json.loads(json.dumps(codec.describe()))
    again = read_codec(described, codec.size)
    assert again == codec and again.space == space
    assert (described is None) == (space == SPACES[0])
    assert list(again.space) == list(space) if isinstance(space, Dict) else True
    actions = samples(space, 3)
    assert np.array_equal([again.encode(a) for a in actions], [codec.encode(a) for a in actions])


def test_vectors_by_hand():
    codec = ActionCodec(NESTED)
    action = {"wheel": 1, "arm": ([0, 1], [-1.0, 0.5], {"grip": 0})}
    assert codec.encode(action).tolist() == [-1, -1, 1, -1, 1, -1, 0, 1, -1]
    assert [(choice.first, choice.codes.shape) for choice in codec.choices] == [
        (0, (3, 3)), (3, (2, 1)), (4, (2, 1)), (7, (2, 2)),
    ]  # fmt: skip


def test_a_plain_action_is_its_vector_to_the_last_bit():
    codec, action = ActionCodec(SPACES[0]), np.float32([0.1, -1e-9, 1.0])
    assert codec.plain and np.array_equal(codec.encode(action), action) and np.array_equal(codec.decode(action), action)
    assert codec.encode([2.0, -3.0, 0.0]).tolist() == [1.0, -1.0, 0.0]
    assert read_codec(None, 3) == codec and codec.describe() is None


def test_the_likeliest_category_is_read():
    assert ActionCodec(Discrete(3)).decode(np.float32([-0.2, 0.1, -0.9])) == 1
    assert ActionCodec(MultiBinary(2)).decode(np.float32([-0.2, 0.1])).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("space", "action", "says"),
    [
        (Discrete(3), 3, r"action is 3, which is not in Discrete\(3\)"),
        (Discrete(3, start=1), 0, "not in"),
        (Discrete(3), 0.5, "dtype float64"),
        (Discrete(3), None, "dtype object"),
        (Discrete(3), [1], r"shape \(1,\)"),
        (Discrete(3), True, "dtype bool"),
        (MultiDiscrete([2, 3]), [1, 3], "not in"),
        (MultiBinary(2), [0, 2], "not in"),
        (Box(-2.0, 1.0, (2,)), [np.nan, 0.0], "not finite"),
        (Box(-2.0, 1.0, (2,)), [[0.0], [1.0, 2.0]], "takes Box"),
        (Box(-2.0, 1.0, (2,)), "forward", "dtype <U7"),
        (Box(-2.0, 1.0, (2,)), [0.0], r"shape \(1,\); this world takes \(2,\)"),
        (NESTED, {"wheel": 0}, "has keys .'wheel'.; this world takes a dict with wheel, arm"),
        (NESTED, 3, "takes a dict"),
        (NESTED, {"wheel": 0, "arm": ([0, 0], [0.0, 0.0])}, r"action\['arm'\] is .* tuple of 3 parts"),
        (NESTED, {"wheel": 0, "arm": ([0, 0], [0.0, 0.0], {"grip": 2})}, r"action\['arm'\]\[2\]\['grip'\] is 2"),
    ],
)
def test_what_is_no_action_is_refused(space, action, says):
    with pytest.raises((ValueError, TypeError), match=says):
        ActionCodec(space).encode(action)


@pytest.mark.parametrize(
    ("space", "says"),
    [
        (Text(5), "cannot be a vector; a dream takes Box, Discrete"),
        (OneOf([Discrete(2), Discrete(3)]), "cannot be a vector"),
        (Box(-np.inf, np.inf, (2,)), "has no bounds"),
        (Box(-1.0, np.float32(3e38), (2,)), "has no bounds"),
        (Box(1.0, 1.0, (2,)), "low is not below high"),
        (Discrete(1001), "at most 1000"),
        (Tuple([]), "nothing to choose"),
    ],
)
def test_what_cannot_be_a_vector_is_refused(space, says):
    with pytest.raises(UserError, match=says):
        ActionCodec(space)


def test_limits_stand_for_missing_bounds_alone():
    half = Box(np.float32([-np.inf, 0.0]), np.float32([np.inf, 1.0]))
    with pytest.raises(UserError, match="--limits LOW HIGH"):
        bounded(half, None)
    found = bounded(Dict(a=half, b=Discrete(2)), (-3.0, 3.0))
    assert found == Dict(a=Box(np.float32([-3.0, 0.0]), np.float32([3.0, 1.0])), b=Discrete(2))
    assert bounded(Discrete(2), None) == Discrete(2)
    with pytest.raises(UserError, match="leave out --limits"):
        bounded(Discrete(2), (-1.0, 1.0))
    with pytest.raises(UserError, match="first must be below"):
        bounded(half, (3.0, -3.0))


@pytest.mark.parametrize(
    "description",
    [{}, {"type": "Sphere"}, {"type": "Discrete"}, {"type": "Discrete", "n": -1, "start": 0, "dtype": "int64"}],
)
def test_a_damaged_description_is_refused(description):
    with pytest.raises(UserError, match="describes no action space"):
        read_codec(description, 2)


def test_a_description_of_another_size_is_refused():
    with pytest.raises(UserError, match="vectors of 3 numbers; here they have 2"):
        read_codec(ActionCodec(Discrete(3)).describe(), 2)


def test_spaces_have_random_numbers_of_their_own():
    codec = ActionCodec(NESTED)
    one, other = codec.space, codec.space
    one.seed(3), other.seed(3)
    first = one.sample()
    assert data_equivalence(first, other.sample(), exact=True)
