"""Action spaces shared by dreams and their real twins, and what an action in them means: a vector or a sentence."""

import operator
import string
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from .actions import ActionCodec

ActionMode = Literal["vector", "text", "discrete", "both"]
ACTION_MODES = ("vector", "text", "discrete", "both")


class PhraseText(gym.spaces.Text):
    """Sentences: contains any printable ASCII text up to `max_length`, samples from a list that makes sense."""

    def __init__(self, phrases: list[str], max_length: int = 128):
        super().__init__(max_length, min_length=0, charset=string.printable)
        self.phrases = list(phrases)

    def sample(self, mask=None, probability=None) -> str:
        if mask is not None or probability is not None:
            raise ValueError("PhraseText draws whole phrases; masks over characters have no meaning here")
        return self.phrases[int(self.np_random.integers(len(self.phrases)))]

    def __repr__(self) -> str:
        return f"PhraseText({len(self.phrases)} phrases, max_length={self.max_length})"

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other) and isinstance(other, PhraseText) and self.phrases == other.phrases


def action_space(mode: str, codec: ActionCodec | None, phrases: list[str]) -> gym.Space:
    """The space of one action.

    Args:
        mode: "vector": the world's own space, float32 [a] in [-1, 1] where it describes no other; "text": any sentence;
            "discrete": an index into `phrases`; "both": `(0, own action)` or `(1, sentence)`, as `gym.spaces.OneOf`
            has it.
        codec: None where actions are sentences alone.
    """
    match mode:
        case "text":
            return PhraseText(phrases)
        case "discrete":
            return gym.spaces.Discrete(len(phrases))
    if codec is None:
        raise ValueError(f"action_mode {mode!r} must be 'text' or 'discrete': this world takes sentences alone")
    match mode:
        case "vector":
            return codec.space
        case "both":
            return gym.spaces.OneOf((codec.space, PhraseText(phrases)))
    raise ValueError(f"action_mode {mode!r} must be 'vector', 'text', 'discrete' or 'both'")


def read_seed(seed: Any) -> int | None:
    """A seed of any integer type as Python's own, which Gymnasium asks for; a ValueError if it can't be one."""
    if seed is not None and not (hasattr(seed, "__index__") and operator.index(seed) >= 0):
        raise ValueError(f"seed is {seed!r}; it must be an integer of 0 or more, or None")
    return None if seed is None else operator.index(seed)


def seed_of(random: np.random.Generator) -> int:
    """The seed that a generator was made from; -1 where no single number is known, as Gymnasium has it."""
    sequence = random.bit_generator.seed_seq
    if not isinstance(sequence, np.random.SeedSequence) or sequence.spawn_key:
        return -1
    return sequence.entropy if isinstance(sequence.entropy, int) else -1


def on_host(value: Any) -> Any:
    """Tensors, also of a policy that learns and inside a list, tuple or dict, as numpy arrays; all else as it is."""
    if isinstance(value, (list, tuple)):
        return type(value)(on_host(item) for item in value)
    if isinstance(value, dict):
        return {key: on_host(item) for key, item in value.items()}
    if not hasattr(value, "detach"):
        return value
    tensor = value.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()  # NumPy has no bfloat16


def read_action(action: Any, mode: str, codec: ActionCodec | None, phrases: list[str]) -> np.ndarray | str:
    """What an action of `action_space(mode, codec, phrases)` asks for: a vector, float32 [a], or a sentence.

    Any sentence will do, of any length and alphabet. Where both are taken, a bare action or sentence is as good as the
    pair that the space samples; a pair is a tuple whose first part is 0 or 1 and whose second can be such an action.

    Raises:
        TypeError, ValueError: it can't be an action of this space.
    """
    action = on_host(action)
    match mode:
        case "both":
            if isinstance(action, tuple):
                if len(action) != 2 or action[0] not in (0, 1):
                    raise ValueError(f"action {action!r} is neither (0, vector) nor (1, sentence)")
                return read_action(action[1], ("vector", "text")[int(action[0])], codec, phrases)
            return read_action(action, "text" if isinstance(action, str) else "vector", codec, phrases)
        case "discrete":
            if not gym.spaces.Discrete(len(phrases)).contains(action):
                raise ValueError(f"action {action!r} is not an index below {len(phrases)}, the number of phrases")
            return phrases[int(action)]
        case "text":
            if not isinstance(action, str):
                raise TypeError(f"action_mode='text' takes a sentence; got {type(action).__name__} {action!r}")
            return str(action)
    assert codec is not None, "action_space makes no space of vectors without one"
    return codec.encode(action)
