"""What client and server say to each other: dictionaries in MessagePack, with arrays as they lie in memory.

A request has "op" and what the operation takes; an answer has what it brought, or "error": [kind, message].
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from ..errors import UserError

try:
    import msgpack
except ImportError as error:
    raise ImportError(f'dreams over a network need {error.name}: pip install "worldgym[serve]"') from None

PORT = 8765
MAX_MESSAGE = 8 << 20
"""Bytes. A snapshot of the bundled worlds has half a million."""
DEEPEST = 16
"""Containers inside each other that are read."""
ARRAY, TUPLE = 1, 2

ERRORS: dict[str, type[Exception]] = {
    "ValueError": ValueError,
    "TypeError": TypeError,
    "UserError": UserError,
    "ResetNeeded": gym.error.ResetNeeded,
    "RuntimeError": RuntimeError,
}
"""What an answer can raise in the client, by name."""


def encode(message: Any) -> bytes:
    """As bytes; a TypeError or ValueError if it holds what has no such form."""
    try:
        return msgpack.packb(message, default=_extended, strict_types=True)
    except OverflowError:
        raise ValueError(f"an integer in {message!r:.80} has more than 64 bits") from None


def decode(blob: bytes | str) -> dict[str, Any]:
    """The dictionary in a message; a ValueError if it is none."""
    if isinstance(blob, str):
        raise ValueError("the message is text; messages are binary, MessagePack")
    try:
        message = _unpacked(blob, DEEPEST)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"the message of {len(blob)} bytes cannot be read: {error}") from None
    if not isinstance(message, dict) or not all(isinstance(key, str) for key in message):
        raise ValueError(f"the message is {type(message).__name__}; expected a dictionary")
    return message


def told(error: Exception) -> dict[str, Any]:
    """The answer that raises an error in the client."""
    kind = type(error).__name__
    if kind not in ERRORS:
        kind = "ValueError" if isinstance(error, ValueError) else "RuntimeError"
    return {"error": [kind, str(error)]}


def _extended(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf":
            raise TypeError(f"an array of {value.dtype} cannot be sent; numbers can")
        head = msgpack.packb([value.dtype.str, list(value.shape)])
        return msgpack.ExtType(ARRAY, head + np.ascontiguousarray(value).tobytes())
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, tuple):
        return msgpack.ExtType(TUPLE, encode(list(value)))
    raise TypeError(f"{type(value).__name__} {value!r:.80} cannot be sent to a server of dreams")


def _unpacked(blob: bytes, depth: int) -> Any:
    """Arrays are views of what was received, and read-only."""
    value = msgpack.unpackb(blob, ext_hook=_extension(depth), strict_map_key=True)
    _check_depth(value, depth)
    return value


def _extension(depth: int) -> Callable[[int, bytes], Any]:
    def read(code: int, data: bytes) -> Any:
        if depth == 0:
            raise ValueError(f"more than {DEEPEST} containers inside each other")
        if code == TUPLE:
            parts = _unpacked(data, depth - 1)
            if not isinstance(parts, list):
                raise ValueError("a tuple is no list of parts")
            return tuple(parts)
        if code == ARRAY:
            return _array(data)
        raise ValueError(f"the extension {code} is unknown")

    return read


def _array(data: bytes) -> np.ndarray:
    reader = msgpack.Unpacker(max_buffer_size=len(data) or 1)
    reader.feed(data)
    try:
        name, shape = reader.unpack()
    except msgpack.OutOfData:
        raise ValueError("an array is cut short") from None
    if not isinstance(name, str) or len(name) > 4 or name[1:2] not in ("b", "i", "u", "f"):
        raise ValueError(f"an array is of {name!r:.20}; expected numbers")
    if not isinstance(shape, list) or len(shape) > 8 or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"an array has shape {shape!r:.40}")
    return np.frombuffer(data, np.dtype(name), offset=reader.tell()).reshape(shape)


def _check_depth(value: Any, depth: int) -> None:
    if not isinstance(value, (list, tuple, dict)):
        return
    if depth == 0:
        raise ValueError(f"more than {DEEPEST} containers inside each other")
    for part in value.values() if isinstance(value, dict) else value:
        _check_depth(part, depth - 1)
