"""The page that a dream is played on, drawn by NiceGUI, and the local server behind it.

One session in a `Room`, any number of windows on it: whatever one of them does, all of them show.
"""

import asyncio
import socket
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np

try:
    from nicegui import app, background_tasks, ui
    from nicegui.events import KeyEventArguments
    from starlette.datastructures import Headers
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import PlainTextResponse
    from starlette.types import ASGIApp, Receive, Scope, Send
    from starlette.websockets import WebSocketClose
except ImportError as error:
    raise ImportError(f'playing in a browser needs {error.name}: pip install "worldgym[play]"') from None

from ..actions import ActionCodec
from .card import DREAM, Card, button, common_ranges, group, picture
from .session import Session, View

Result = TypeVar("Result")

ARROWS = {"ArrowLeft": (-1.0, 0.0), "ArrowRight": (1.0, 0.0), "ArrowUp": (0.0, 1.0), "ArrowDown": (0.0, -1.0)}
WAIT = "."
LETTERS = "asdghjklzxcvbmqertyuip"
"""Keys of categories, as far as they go; the others have uses already."""
# The page takes keys that browsers use for themselves. A button that was pressed gives the keyboard back. A key that is
# released in another window sends no event, so all keys count as released when the window loses the focus.
SCRIPT = """<script>
const typing = () => document.activeElement.matches("input, textarea");
addEventListener("keydown", (event) => { if (!typing() && /^(Arrow|[ /])/.test(event.key)) event.preventDefault(); });
addEventListener("click", () => { if (!typing()) document.activeElement.blur(); });
addEventListener("blur", () => emitEvent("away"));
</script>"""
STYLE = """
.future { border: 2px solid transparent; }
.future.active { border-color: #7b70f0; }
.house { grid-template-columns: minmax(0, 1fr) 20rem; align-items: start; }
.panels { flex-wrap: nowrap; }
.charts { min-width: 0; }
@media (max-width: 60rem) {
  .house { grid-template-columns: minmax(0, 1fr); }
  .panels { flex-wrap: wrap; }
  .charts { min-width: 16rem; }
}
.shown { image-rendering: pixelated; width: 15rem; height: 15rem; }
.two .shown { width: 12.5rem; height: 12.5rem; }
kbd { border: 1px solid #8888; border-radius: .25rem; padding: 0 .3rem; font-size: .75rem; }
"""


class Room:
    """A session and the windows that look at it. Time passes for all of them alike, from the first one's opening on.

    Whatever touches the session happens in its own `thread`: one thing at a time, with the server free to listen
    meanwhile, and always the same thread because MuJoCo's renderer belongs to the one that it was made in.

    Args:
        thread: of one worker, in which the session was made.
        recordings: the folder that GIFs and MP4s go to.
    """

    def __init__(self, session: Session, thread: Executor, recordings: Path, frames_per_second: int = 10):
        if frames_per_second < 1:
            raise ValueError(f"frames_per_second is {frames_per_second}; it must be positive")
        recordings.mkdir(parents=True, exist_ok=True)
        self.session, self.recordings, self.frames_per_second = session, recordings, frames_per_second
        self._thread = thread
        self._windows: list[Window] = []
        self._clock: asyncio.Task | None = None

    async def open(self) -> None:
        """A window's page; what NiceGUI calls its root."""
        shown = await self._run(picture, self.session)
        window = Window(self)
        window.draw(shown)
        self._windows.append(window)
        ui.context.client.on_delete(lambda: self._windows.remove(window))
        if self._clock is None:
            self._clock = background_tasks.create(self._pass_time())

    async def do(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Something to the session, which all windows then show."""
        await self._run(function, *arguments)
        await self._show()

    async def _pass_time(self) -> None:
        while True:
            began = time.monotonic()
            if await self._run(self.session.tick):
                await self._show()
            await asyncio.sleep(max(0.005, 1 / self.frames_per_second - (time.monotonic() - began)))

    async def _show(self) -> None:
        shown = await self._run(picture, self.session)
        for window in list(self._windows):
            window.draw(shown)

    async def _run(self, function: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(function, *arguments))


class Window:
    """What one browser window shows and takes."""

    def __init__(self, room: Room):
        self.room, self.session = room, room.session
        self.played = room.session.played
        self.beside = room.session.twin is not None
        self.look: View = "both" if self.beside else "dream"
        self.codec = self.played.codec
        self.arrows = self.codec is not None and self.codec.size == 2 and not self.codec.choices
        counts = [len(choice.codes) for choice in self.codec.choices] if self.codec else []
        categories = [(number, one) for number, count in enumerate(counts) for one in range(count)]
        self._letters = dict(zip(LETTERS, categories, strict=False))
        self._pressed: set[str] = set()
        self._shown: dict[str, Any] = {}
        self._sliders: list[ui.slider] = []
        self._toggles: list[ui.toggle] = []
        ui.page_title(f"{self.played.name} · WorldGym")
        ui.add_head_html(SCRIPT)
        ui.add_css(STYLE)
        ui.colors(primary=DREAM)
        ui.keyboard(self._key, ignore=["input", "textarea"])
        ui.on("away", lambda: self._release_all())
        with ui.column().classes("w-full max-w-6xl mx-auto gap-4"):
            self._make_head()
            with ui.grid().classes("house w-full gap-4"):
                with ui.column().classes("gap-4"):
                    self._cards = {
                        name: Card(name, partial(self._do, self.session.choose, name), partial(self._goto, name))
                        for name in ("A", "B")
                    }
                with ui.column().classes("gap-3"):
                    self._make_controls()

    # -- what there is ----------------------------------------------------------------------------------------------

    def _make_head(self) -> None:
        with ui.row().classes("w-full items-end gap-4"):
            with ui.row().classes("grow items-baseline gap-2"):
                ui.label(self.played.name).classes("text-xl font-bold")
                ui.label(f"a dream, next to {self.played.twin or 'the twin'}" if self.beside else "a dream").classes(
                    "opacity-60"
                )
            self._instruction = ui.select(
                list(self.played.instructions),
                value=self.session.instruction,
                label="Instruction",
                on_change=self._anew,
            ).props("dense options-dense")
            self._seed = ui.number("Seed", value=self.session.seed, min=0, precision=0, format="%d").classes("w-20")
            self._seed.props("dense").on("change", self._anew)
            ui.button("New episode", on_click=self._next).props("outline no-caps").tooltip("n")

    def _make_controls(self) -> None:
        if self.codec is not None:
            with group("Act"):
                if self.arrows:
                    self._make_pad()
                else:
                    self._make_sliders(self.codec)
                self._flow = ui.checkbox("time passes by itself", on_change=lambda: self._act()).props("dense")
        if self.played.phrases:
            with group("Say"):
                self._sentence = ui.input(placeholder=self.played.phrases[0], autocomplete=list(self.played.phrases))
                self._sentence.classes("w-full").props('dense aria-label="A sentence as the action"')
                self._sentence.on("keydown.enter", self._say).on("keydown.escape", js_handler="e => e.target.blur()")
                self._saying = ui.label().classes("text-xs opacity-70")
        with group("Time"), ui.row().classes("gap-2"):
            self._pause = button("Pause", "space", self._toggle_pause)
            button("Fork", "f", lambda: self._do(self.session.fork))
            if self.beside:
                button("Wake", "w", lambda: self._do(self.session.wake)).tooltip("Dream on from what the twin shows")
        if self.beside:
            with group("Look at"):
                views = {"dream": "Dream", "twin": "Twin", "both": "Both"}
                self._views = ui.toggle(views, value=self.look, on_change=lambda e: self._look_at(e.value))
                self._views.props("no-caps")
        with group("Record, from the start to here"):
            with ui.row().classes("gap-2"):
                ui.button("GIF", on_click=partial(self._save, "gif")).props("outline no-caps")
                ui.button("MP4", on_click=partial(self._save, "mp4")).props("outline no-caps")
                ui.button("Minari", on_click=self._record).props("outline no-caps")
            self._note = ui.column().classes("text-xs")
        keys = {"[": "", "]": "back and forth"}
        if self.arrows:
            keys = {"←": "", "↑": "", "↓": "", "→": "act", WAIT: "wait"} | keys
        if self._letters:
            *others, last = self._letters
            keys = {**dict.fromkeys(others, ""), last: "choose and act"} | keys
        if self.played.phrases:
            keys |= {"/": "say"}
        keys |= (
            {"o": "other future"} | ({"1": "", "2": "", "3": "look at"} if self.beside else {}) | {"n": "new episode"}
        )
        ui.html(" ".join(f"<kbd>{key}</kbd> {does}" + ("," if does else "") for key, does in keys.items()).strip(","))

    def _make_pad(self) -> None:
        rows = [
            None,
            ("↑", "ArrowUp"),
            None,
            ("←", "ArrowLeft"),
            ("·", WAIT),
            ("→", "ArrowRight"),
            None,
            ("↓", "ArrowDown"),
        ]
        with ui.grid(columns=3).classes("gap-1 mx-auto"):
            for cell in rows:
                if cell is None:
                    ui.space()
                else:
                    self._held(
                        ui.button(cell[0]).props(f'outline dense aria-label="{cell[1]}"').classes("w-12"), cell[1]
                    )

    def _make_sliders(self, codec: ActionCodec) -> None:
        letters = {place: letter for letter, place in self._letters.items()}
        for number, choice in enumerate(codec.choices):
            shown = {}
            for one in range(len(choice.codes)):
                key = f" ({letters[number, one]})" if (number, one) in letters else ""
                shown[one] = f"{choice.start + one}{key}"
            ui.label(choice.name).classes("text-xs opacity-70")
            self._toggles.append(ui.toggle(shown, value=0, on_change=lambda: self._act()).props("no-caps dense"))
        for number in codec.continuous.tolist():
            with ui.row().classes("w-full items-center no-wrap gap-3"):
                ui.label(str(number + 1))
                slider = ui.slider(min=-1, max=1, step=0.05, value=0, on_change=lambda: self._act()).classes("grow")
                slider.on("dblclick", lambda slider=slider: slider.set_value(0))
                ui.label().classes("w-10 text-right").bind_text_from(slider, "value", lambda value: f"{value:+.2f}")
            self._sliders.append(slider)
        self._held(ui.button("Act (hold)").props("outline no-caps").classes("w-full"), "act")

    def _held(self, pressed: ui.button, key: str) -> None:
        pressed.on("pointerdown", lambda: self._press(key))
        for end in ("pointerup", "pointerleave", "pointercancel"):
            pressed.on(end, lambda: self._release(key))

    # -- what is done -----------------------------------------------------------------------------------------------

    async def _do(self, function: Callable[..., Any], *arguments: Any) -> bool:
        """Do something to the session, which all windows then show. Shows a mistake; returns whether there was none."""
        try:
            await self.room.do(function, *arguments)
        except (ValueError, TypeError, OSError) as error:
            with self._note:
                ui.notify(str(error), type="negative")
            return False
        return True

    async def _act(self) -> None:
        """Hold what is pressed, or nothing."""
        vector: list[float] | None = None
        if self._pressed or self._flow.value:
            pushes = [ARROWS.get(key, (0.0, 0.0)) for key in self._pressed]
            vector = [sum(push[i] for push in pushes) for i in range(2)] if self.arrows else self._chosen()
        await self._do(self.session.hold, vector)

    def _chosen(self) -> list[float]:
        """The vector of what sliders and categories are at."""
        assert self.codec is not None, "there is nothing to press where there are no vectors"
        vector = np.zeros(self.codec.size, np.float32)
        vector[self.codec.continuous] = [slider.value for slider in self._sliders]
        for choice, toggle in zip(self.codec.choices, self._toggles, strict=True):
            vector[choice.place] = choice.codes[toggle.value]
        return vector.tolist()

    async def _press(self, key: str) -> None:
        if key not in self._pressed:
            self._pressed.add(key)
            await self._act()

    async def _release(self, key: str) -> None:
        if key in self._pressed:
            self._pressed.discard(key)
            await self._act()

    async def _release_all(self) -> None:
        if self._pressed:
            self._pressed.clear()
            await self._act()

    async def _key(self, event: KeyEventArguments) -> None:
        name, held = str(event.key.name), event.modifiers
        if event.action.keyup:
            await self._release(name)
            return
        if held.ctrl or held.meta or held.alt or (event.action.repeat and name not in ("[", "]")):
            return
        if self.arrows and (name in ARROWS or name == WAIT):
            await self._press(name)
            return
        if name in self._letters:
            number, one = self._letters[name]
            self._toggles[number].value = one
            await self._press(name)
            return
        match name:
            case " ":
                await self._toggle_pause()
            case "[" | "]":
                await self._step(-1 if name == "[" else 1)
            case "f":
                await self._do(self.session.fork)
            case "o":
                await self._other()
            case "n":
                await self._next()
            case "/" if self.played.phrases:
                self._sentence.run_method("focus")
            case "w" if self.beside:
                await self._do(self.session.wake)
            case "1" | "2" | "3" if self.beside:
                self._views.value = ("dream", "twin", "both")[int(name) - 1]

    async def _toggle_pause(self) -> None:
        def toggle() -> None:
            self.session.paused = not self.session.paused

        await self._do(toggle)

    async def _step(self, by: int) -> None:
        def step() -> None:
            future = self.session.futures[self.session.active]
            self.session.goto(min(max(future.at + by, future.kept_from), len(future.moments) - 1))

        await self._do(step)

    async def _other(self) -> None:
        def choose() -> None:
            for name in self.session.futures.keys() - {self.session.active}:
                self.session.choose(name)

        await self._do(choose)

    async def _goto(self, name: str, index: int) -> None:
        def goto() -> None:
            if name != self.session.active:
                self.session.choose(name)
            self.session.goto(index)

        await self._do(goto)

    async def _say(self) -> None:
        sentence = self._sentence.value
        self._sentence.value = ""
        self._sentence.run_method("blur")
        await self._do(self.session.say, sentence)

    async def _anew(self) -> None:
        wanted = int(self._seed.value or 0), self._instruction.value
        if wanted != (self._shown.get("seed"), self._shown.get("instruction")):
            self._seed.run_method("blur")  # give the keyboard back
            self._instruction.run_method("blur")
            await self._do(self.session.reset, *wanted)

    async def _next(self) -> None:
        await self._do(self.session.reset, int(self._shown["seed"]) + 1, self._instruction.value)

    async def _save(self, suffix: str) -> None:
        path = self.room.recordings / f"{self.played.name}-{time.strftime('%Y%m%d-%H%M%S')}.{suffix}"
        if await self._noted(self.session.save, path, self.look):
            with self._note:
                ui.link(f"recorded {path}", f"/recordings/{path.name}", new_tab=True).classes("recorded break-all")

    async def _record(self) -> None:
        name = f"play/{self.played.name}-{time.strftime('%Y%m%d-%H%M%S')}-v0"
        if await self._noted(self.session.record, name):
            with self._note:
                ui.label(f"recorded the Minari dataset {name}").classes("recorded break-all")

    async def _noted(self, function: Callable[..., Any], *arguments: Any) -> bool:
        """Do what takes a while; whether it could be done."""
        self._note.clear()
        with self._note:
            ui.label("recording …")
        done = await self._do(function, *arguments)
        self._note.clear()
        return done

    def _look_at(self, view: View) -> None:
        self.look = view
        self.draw(self._shown)

    # -- what is seen -----------------------------------------------------------------------------------------------

    def draw(self, shown: dict[str, Any]) -> None:
        self._shown = shown
        futures = shown["futures"]
        self._seed.value, self._instruction.value = shown["seed"], shown["instruction"]
        self._pause.text = "Go on" if shown["paused"] else "Pause"
        if self.played.phrases:
            self._saying.text = f"“{shown['sentence']}” …" if shown["sentence"] else ""
        ranges = common_ranges(list(futures.values()), self.look)
        for name, card in self._cards.items():
            card.set_visibility(name in futures)
            if name in futures:
                card.draw(futures[name], self.look, name == shown["active"], len(futures) > 1, ranges)


class OwnPageAlone:
    """Refuses what the page of another site asks for, sockets included; browsers say in `Origin` whose page it is."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp = self.app
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if origin is not None and urlsplit(origin).netloc != headers.get("host"):
                refusal = PlainTextResponse("this page talks to no other site", 403)
                answer = refusal if scope["type"] == "http" else WebSocketClose()
        await answer(scope, receive, send)


def serve(room: Room, port: int) -> None:
    """The page at `/` and what was recorded, on this machine alone, until Ctrl-C."""
    # Another site's page can send requests here, and with a name of its own for this machine could read the answers.
    app.add_middleware(OwnPageAlone)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    app.add_static_files("/recordings", room.recordings)
    ui.run(
        room.open, host="127.0.0.1", port=port, title="WorldGym", dark=None, show=False, reload=False,
        show_welcome_message=False, timeout_graceful_shutdown=1,
    )  # fmt: skip


def run(make_session: Callable[[], Session], recordings: Path, port: int, frames_per_second: int = 10) -> None:
    """Serve a session that is made in the thread that it will be used in."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise ValueError(f"something is served on port {port} already; choose another --port")
    with ThreadPoolExecutor(1) as thread:
        room = Room(thread.submit(make_session).result(), thread, recordings, frames_per_second)
        print(f"playing on http://127.0.0.1:{port} (Ctrl-C ends it); recordings go to {recordings}", flush=True)
        serve(room, port)
