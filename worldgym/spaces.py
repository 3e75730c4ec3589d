"""Action spaces shared by dreams and their real twins."""

import string

import gymnasium as gym
import numpy as np


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


def check_vector_action(action, space: gym.spaces.Space) -> np.ndarray:
    """The action as float32, clipped into the space; a ValueError or TypeError if it can't be one."""
    assert isinstance(space, gym.spaces.Box)
    array = np.asarray(action)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"action has dtype {array.dtype}; this world takes float32 {space.shape}")
    if array.shape != space.shape:
        raise ValueError(f"action has shape {array.shape}; this world takes {space.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"action {array.tolist()} is not finite")
    return np.clip(array.astype(np.float32), space.low, space.high)


def chosen_phrase(action, space: gym.spaces.Space, phrases: list[str]) -> str:
    """The sentence behind an action: an index into `phrases` where the space is Discrete, else the action itself."""
    if isinstance(space, gym.spaces.Discrete):
        if not space.contains(action):
            raise ValueError(f"action {action!r} is not an index below {len(phrases)}, the number of phrases")
        return phrases[int(action)]
    if not isinstance(action, str):
        raise TypeError(f"action_mode='text' takes a sentence; got {type(action).__name__} {action!r}")
    return action
