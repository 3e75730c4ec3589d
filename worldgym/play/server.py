"""The page that a dream is played on, and the local server behind it: one session, any number of windows.

The page sends orders (`{"do": "say", "sentence": "..."}`), and after whatever changes it is sent all there is to draw.
"""

import asyncio
import base64
import io
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import HTMLResponse
    from starlette.routing import Mount, Route, WebSocketRoute
    from starlette.staticfiles import StaticFiles
    from starlette.websockets import WebSocket, WebSocketDisconnect
except ImportError as error:
    raise ImportError(f'playing in a browser needs {error.name}: pip install "worldgym[play]"') from None

from .session import Session

Result = TypeVar("Result")


class Room:
    """A session and the windows that look at it. Time passes for all of them alike.

    Whatever touches the session happens in its own `thread`: one thing at a time, with the server free to listen
    meanwhile, and always the same thread because MuJoCo's renderer belongs to the one that it was made in.
    """

    def __init__(self, session: Session, thread: Executor, recordings: Path, frames_per_second: int):
        self.session, self.recordings, self.frames_per_second = session, recordings, frames_per_second
        self._thread = thread
        self._windows: set[WebSocket] = set()

    async def pass_time(self) -> None:
        """Tick for ever."""
        while True:
            began = time.monotonic()
            if await self._do(self.session.tick):
                await self.show(list(self._windows))
            await asyncio.sleep(max(0.005, 1 / self.frames_per_second - (time.monotonic() - began)))

    async def show(self, windows: list[WebSocket]) -> None:
        message = await self._do(view, self.session)
        for window in windows:
            try:
                await window.send_json(message)
            except (WebSocketDisconnect, RuntimeError):  # it is being closed
                self._windows.discard(window)

    async def serve(self, window: WebSocket) -> None:
        """Listen to one window until it is closed."""
        if not _same_site(window):
            await window.close(1008, "pages of other sites may not play here")
            return
        await window.accept()
        await window.send_json({"about": about(self.session)})
        self._windows.add(window)
        await self.show([window])
        try:
            while True:
                await self._obey(window, await window.receive_json())
        except WebSocketDisconnect:
            pass
        finally:
            self._windows.discard(window)

    async def _obey(self, window: WebSocket, order: Any) -> None:
        try:
            saved = await self._do(obey, self.session, order, self.recordings)
        except (ValueError, TypeError) as error:
            await window.send_json({"error": str(error)})
            return
        if saved is not None:
            await window.send_json({"saved": f"recordings/{saved.name}", "path": str(saved)})
        await self.show(list(self._windows))

    async def _do(self, function: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


def make_app(session: Session, thread: Executor, recordings: Path, frames_per_second: int = 10) -> Starlette:
    """The page at `/`, its socket, and what was recorded.

    Args:
        thread: of one worker, in which the session was made.
    """
    if frames_per_second < 1:
        raise ValueError(f"frames_per_second is {frames_per_second}; it must be positive")
    recordings.mkdir(parents=True, exist_ok=True)
    room = Room(session, thread, recordings, frames_per_second)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        clock = asyncio.create_task(room.pass_time())
        clock.add_done_callback(lambda task: None if task.cancelled() else task.result())
        yield
        clock.cancel()

    async def page(request: Request) -> HTMLResponse:
        return HTMLResponse((files(__package__) / "page.html").read_text())

    routes = [
        Route("/", page),
        WebSocketRoute("/socket", room.serve),
        Mount("/recordings", StaticFiles(directory=recordings)),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def run(make_session: Callable[[], Session], recordings: Path, port: int, frames_per_second: int = 10) -> None:
    """Serve on this machine alone, until Ctrl-C."""
    with ThreadPoolExecutor(1) as thread:
        app = make_app(thread.submit(make_session).result(), thread, recordings, frames_per_second)
        print(f"playing on http://127.0.0.1:{port} (Ctrl-C ends it); recordings go to {recordings}", flush=True)
        uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=1)


def obey(session: Session, order: Any, recordings: Path) -> Path | None:
    """Do what a page asks for; the path of a recording if it asked for one.

    Raises:
        ValueError: what cannot be done, or is no order.
    """
    match order:
        case {"do": "hold", "vector": None | list() as vector}:
            session.hold(vector)
        case {"do": "say", "sentence": str() as sentence}:
            session.say(sentence)
        case {"do": "pause", "on": bool() as on}:
            session.paused = on
        case {"do": "goto", "index": int() as index}:
            session.goto(index)
        case {"do": "fork"}:
            session.fork()
        case {"do": "choose", "future": str() as name}:
            session.choose(name)
        case {"do": "wake"}:
            session.wake()
        case {"do": "reset", "seed": int() as seed, "instruction": str() as instruction}:
            session.reset(seed, instruction)
        case {"do": "save", "as": "gif" | "mp4" as suffix, "view": "dream" | "twin" | "both" as shown}:
            path = recordings / f"{session.world.config.name}-{time.strftime('%Y%m%d-%H%M%S')}.{suffix}"
            session.save(path, shown)
            return path
        case _:
            raise ValueError(f"{order!r} is no order that a session knows")
    return None


def about(session: Session) -> dict[str, Any]:
    """What does not change while a world is played."""
    config = session.world.config
    return {
        "world": config.name,
        "twin": None if session.twin is None else config.twin or "the twin",  # which may have no name
        "action_size": config.action_size,
        "instructions": config.instructions,
        "phrases": config.phrases,
    }


def view(session: Session) -> dict[str, Any]:
    """All that the page draws, for JSON."""
    futures = {}
    for name in sorted(session.futures):
        future = session.futures[name]
        now, moments = future.now, future.moments
        futures[name] = {
            "at": future.at,
            "dream": _png(now.dream),
            "twin": None if now.twin is None else _png(now.twin),
            "action": now.action,
            "success": now.success,
            "twin_success": now.twin_success,
            "ended": now.ended,
            "twin_ended": now.twin_ended,
            "return": round(session.returns(name), 3),
            "kept_from": next(i for i, moment in enumerate(moments) if moment.state is not None),
            "reward": [round(moment.reward, 4) for moment in moments[1:]],
            "twin_reward": [round(moment.twin_reward or 0.0, 4) for moment in moments[1:]],
            "uncertainty": [round(moment.uncertainty, 4) for moment in moments[1:]],
        }
    return {
        "futures": futures,
        "active": session.active,
        "paused": session.paused,
        "sentence": session.sentence,
        "known": session.sentence in ("", *session.world.config.phrases),
        "seed": session.seed,
        "instruction": session.instruction,
    }


def _png(picture: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "png", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _same_site(window: WebSocket) -> bool:
    """Browsers let any site open sockets to this machine, and say which site it was."""
    origin = window.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == window.headers.get("host")
