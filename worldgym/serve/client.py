"""A dream that a server dreams, as a Gymnasium environment; it needs neither torch nor the world."""

from contextlib import ExitStack
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from ..actions import read_codec
from ..spaces import action_space, on_host, read_action, read_seed
from .wire import ERRORS, MAX_MESSAGE, decode, encode

try:
    from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
    from websockets.sync.client import connect
except ImportError as error:
    raise ImportError(f'dreams over a network need {error.name}: pip install "worldgym[serve]"') from None

RESET_OPTIONS = ("frames", "actions", "instruction")


class RemoteEnv(gym.Env):
    """`gym.make("worldgym/Remote-v0", address="127.0.0.1:8765")`: a session of `worldgym serve`.

    It is what `gym.make("worldgym/Dream-v0", world=..., **options)` is to within rounding, with the options that the
    server was started with. The server counts the steps of an episode and truncates it; the next step needs a reset.

    Args:
        address: host:port, or ws://host:port; wss://host:port behind a proxy that speaks TLS.
        token: what the server was given, if it was given one.
        timeout: seconds to wait for any answer.

    Raises:
        ConnectionError: there is no server, it is full, or the connection was lost: close this environment and make
            another, and `restore` a snapshot to continue.
        PermissionError: the token is not the server's.
        ValueError, TypeError, ResetNeeded: as a local dream raises them; the session is then as it was.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        address: str = "127.0.0.1:8765",
        *,
        token: str | None = None,
        timeout: float = 60.0,
        render_mode: Literal["rgb_array"] | None = None,
    ):
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode {render_mode!r} must be None or 'rgb_array'")
        self.address, self.render_mode, self.timeout = address, render_mode, timeout
        self._open = ExitStack()
        url = address if "://" in address else f"ws://{address}"
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            self._socket = self._open.enter_context(connect(
                url, additional_headers=headers, compression=None, max_size=MAX_MESSAGE, open_timeout=timeout,
                proxy=None,
            ))  # fmt: skip
        except InvalidStatus as error:
            response = error.response
            said = (response.body or b"").decode(errors="replace").strip()
            kind = PermissionError if response.status_code == 401 else ConnectionRefusedError
            raise kind(f"{address} refused the session: {said or response.status_code}") from None
        except (OSError, WebSocketException) as error:
            raise ConnectionError(
                f"no server of dreams answers on {address} ({error}); `worldgym serve` starts one"
            ) from None
        told = self._ask(op="hello")
        self.world: str = told["world"]
        self.phrases: list[str] = told["phrases"]
        """The sentences behind `action_mode="discrete"`."""
        self.instructions: list[str] = told["instructions"]
        """Those that the world can judge."""
        self._mode, self._codec = told["action_mode"], read_codec(told["codec"], told["action_size"])
        self.action_space = action_space(self._mode, self._codec, self.phrases)
        boxes: dict[str, gym.Space] = {
            key: gym.spaces.Box(np.dtype(dtype).type(low), np.dtype(dtype).type(high), tuple(shape), np.dtype(dtype))
            for key, (low, high, shape, dtype) in told["observation"].items()
        }
        self.observation_space = boxes[""] if "" in boxes else gym.spaces.Dict(boxes)

    # -- Gymnasium ----------------------------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        options = dict(options or {})
        if unknown := set(options) - set(RESET_OPTIONS):
            raise ValueError(f"unknown reset options {sorted(unknown)}; known are {', '.join(RESET_OPTIONS)}")
        if (seed := read_seed(seed)) is not None:
            options["seed"] = seed
        answer = self._ask(op="reset", **on_host(options))
        super().reset(seed=seed)
        return answer["observation"], answer["info"]

    def step(self, action):
        read_action(action, self._mode, self._codec, self.phrases)  # its mistakes need no journey
        answer = self._ask(op="step", action=on_host(action))
        return tuple(answer[name] for name in ("observation", "reward", "terminated", "truncated", "info"))

    def render(self) -> np.ndarray:
        return self._ask(op="render")["frame"]

    def close(self) -> None:
        self._open.close()

    # -- going several ways ---------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """Everything that evolves, signed by the server: any of its sessions can `restore` it, until it is stopped."""
        return self._ask(op="snapshot")["snapshot"]

    def restore(self, blob: bytes) -> None:
        """Return to a `snapshot()` of this session or of another of the same server."""
        self._ask(op="restore", snapshot=blob)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _ask(self, **request: Any) -> dict[str, Any]:
        blob = encode(request)
        if len(blob) > MAX_MESSAGE:
            raise ValueError(f"the request has {len(blob)} bytes; a server of dreams takes {MAX_MESSAGE}")
        try:
            self._socket.send(blob)
            answer = decode(self._socket.recv(self.timeout))
        except TimeoutError:
            self._open.close()  # a late answer would be taken for the next one
            raise ConnectionError(f"{self.address} has not answered within {self.timeout:g} seconds") from None
        except ConnectionClosed as error:
            why = error.rcvd.reason if error.rcvd and error.rcvd.reason else "it went away"
            raise ConnectionError(f"the connection to {self.address} is closed: {why}") from None
        if "error" in answer:
            kind, message = answer["error"]
            raise ERRORS.get(kind, RuntimeError)(message)
        return {name: _owned(value) for name, value in answer.items()}


def _owned(value: Any) -> Any:
    """Arrays that may be written to, as those of any environment."""
    if isinstance(value, np.ndarray):
        return value.copy()
    return {key: _owned(part) for key, part in value.items()} if isinstance(value, dict) else value
