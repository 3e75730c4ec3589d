"""The server around a table: who may come, who waits for whom, and what a session may cost.

Every session is a WebSocket. What clients ask for at about the same time is one batch: whoever waits when it begins is
in it. It waits for sessions that have not asked yet, for at most a quarter of the time that the last one took.
"""

import asyncio
import hmac
import ipaddress
import signal
import sys
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from ..errors import UserError
from .table import Table
from .wire import MAX_MESSAGE, PORT, decode, encode, told

try:
    from websockets.asyncio.server import ServerConnection, serve
    from websockets.exceptions import ConnectionClosed
    from websockets.http11 import Request, Response
except ImportError as error:
    raise ImportError(f'dreams over a network need {error.name}: pip install "worldgym[serve]"') from None

PATIENCE = 0.25
"""Share of the last batch's time that the next one waits for sessions that have not asked yet."""


@dataclass(frozen=True)
class Limits:
    """What the server grants, to whom."""

    host: str = "127.0.0.1"
    """Where it listens: this machine alone, or with a token any address."""
    port: int = PORT
    """0 takes a free one."""
    token: str | None = None
    """What clients have to know."""
    idle_seconds: float = 600.0
    """Without a request, after which a session ends."""
    errors: int = 100
    """In a row, after which a session ends."""

    def __post_init__(self):
        if not 0 <= self.port < 2**16:
            raise UserError(f"port is {self.port}; it must be between 0 and 65535")
        if self.token is not None and len(self.token) < 16:
            raise UserError("the token has less than 16 characters; `openssl rand -hex 16` makes a good one")
        if self.token is None and not _is_here(self.host):
            raise UserError(
                f"host is {self.host}, which other machines can reach; a server for them needs a token (--token-file)"
            )
        if self.idle_seconds <= 0 or self.errors < 1:
            raise UserError(f"idle seconds are {self.idle_seconds} and errors {self.errors}; both must be more than 0")


class Server:
    """Sessions over a table: `async with listening(table, limits) as server:`."""

    def __init__(self, table: Table, limits: Limits):
        self.table, self.limits, self.port = table, limits, limits.port
        self.sessions = 0
        """Now."""
        self.batches = 0
        """So far."""
        self._waiting: list[tuple[int, dict[str, Any], asyncio.Future[dict[str, Any]]]] = []
        self._asked = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "dreams")

    async def batch(self) -> None:
        """Answer whoever waits, again and again."""
        loop, took = asyncio.get_running_loop(), 0.0
        while True:
            await self._asked.wait()
            until = time.monotonic() + PATIENCE * took
            while len(self._waiting) < self.sessions and (left := until - time.monotonic()) > 0:
                self._asked.clear()
                try:
                    await asyncio.wait_for(self._asked.wait(), left)
                except TimeoutError:
                    break
            self._asked.clear()
            waiting, self._waiting = self._waiting, []
            requests = [(row, message) for row, message, _ in waiting]
            began = time.monotonic()
            try:
                answers = await loop.run_in_executor(self._thread, self.table.answer, requests)
            except Exception as error:  # requests were checked: a bug of ours, which ends no server
                answers = [told(RuntimeError(f"the batch failed: {type(error).__name__}: {error}"))] * len(requests)
            took, self.batches = time.monotonic() - began, self.batches + 1
            for (_, _, future), answer in zip(waiting, answers, strict=True):
                if not future.done():
                    future.set_result(answer)

    def refuse(self, connection: ServerConnection, request: Request) -> Response | None:
        """The answer to who may not come; None to who may."""
        given = request.headers.get("Authorization", "").encode()
        token = self.limits.token
        if token is not None and not hmac.compare_digest(given, f"Bearer {token}".encode()):
            return connection.respond(HTTPStatus.UNAUTHORIZED, "this server needs a token\n")
        if not self.table.seats:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, f"all {self.sessions} sessions are taken\n")
        return None

    async def session(self, connection: ServerConnection) -> None:
        """One client, from its first word to its last."""
        if not self.table.seats:  # taken while hands were shaken
            await connection.close(1013, "all sessions are taken")
            return
        row = self.table.seat()
        self.sessions += 1
        asked: asyncio.Future[dict[str, Any]] | None = None
        try:
            errors = 0
            while errors < self.limits.errors:
                try:
                    blob = await asyncio.wait_for(connection.recv(), self.limits.idle_seconds)
                except TimeoutError:
                    await connection.close(1008, f"no request for {self.limits.idle_seconds:g} seconds")
                    return
                try:
                    message = decode(blob)
                except ValueError as error:
                    answer = told(error)
                else:
                    asked = asyncio.get_running_loop().create_future()
                    self._waiting.append((row, message, asked))
                    self._asked.set()
                    answer = await asked
                errors = errors + 1 if "error" in answer else 0
                await connection.send(encode(answer))
            await connection.close(1008, f"{errors} errors in a row")
        except ConnectionClosed:
            pass
        finally:
            self.sessions -= 1
            self._asked.set()  # nobody waits for it any more
            self._waiting = [one for one in self._waiting if one[2] is not asked]
            # Behind the batch in progress, which may have a request of this row.
            await asyncio.get_running_loop().run_in_executor(self._thread, self.table.leave, row)


@asynccontextmanager
async def listening(table: Table, limits: Limits) -> AsyncIterator[Server]:
    """A server that takes sessions inside of the block."""
    server = Server(table, limits)
    batches = asyncio.create_task(server.batch())
    try:
        # Browsers name the origin of a page that opens a WebSocket: no page may, not even one on this machine.
        async with serve(
            server.session, limits.host, limits.port, process_request=server.refuse, origins=[None], compression=None,
            max_size=MAX_MESSAGE, max_queue=2, close_timeout=1,
        ) as sockets:  # fmt: skip
            server.port = next(iter(sockets.sockets)).getsockname()[1]
            yield server
    finally:  # once no session waits any more
        batches.cancel()
        server._thread.shutdown()


def run(table: Table, limits: Limits) -> None:
    """Serve until Ctrl-C or SIGTERM, by which `kill`, systemd and Kubernetes end a server."""

    async def forever() -> None:
        ended = asyncio.Event()
        if sys.platform != "win32":
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        async with listening(table, limits) as server:
            print(
                f"serving {len(table.dreams)} sessions of {table.dreams.world.config.name} on "
                f"{limits.host}:{server.port} (Ctrl-C ends it)",
                flush=True,
            )
            await ended.wait()

    asyncio.run(forever())


def _is_here(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
