"""How one future looks in a window: its pictures, its charts and its slider, of NiceGUI's elements."""

import base64
import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from nicegui import ui
from PIL import Image

from .session import Future, Session, View

DREAM, TWIN, UNSURE = "#7b70f0", "#1fa37c", "#d9782f"


# -- what is drawn ----------------------------------------------------------------------------------------------------


def picture(session: Session) -> dict[str, Any]:
    """All that windows draw, taken at one moment."""
    return {
        "futures": {name: _seen(session.futures[name]) for name in sorted(session.futures)},
        "active": session.active,
        "paused": session.paused,
        "sentence": session.sentence,
        "seed": session.seed,
        "instruction": session.instruction,
    }


def _seen(future: Future) -> dict[str, Any]:
    now, moments = future.now, future.moments
    return {
        "at": future.at,
        "kept_from": future.kept_from,
        "action": now.action,
        "dream": _png(now.dream),
        "dream_verdict": _verdict(now.success, now.ended),
        "twin": None if now.twin is None else _png(now.twin),
        "twin_verdict": _verdict(now.twin_success, now.twin_ended),
        "reward": [round(moment.reward, 4) for moment in moments[1:]],
        "twin_reward": [round(moment.twin_reward or 0.0, 4) for moment in moments[1:]],
        "uncertainty": [round(moment.uncertainty, 4) for moment in moments[1:]],
    }


def _verdict(success: bool, ended: bool) -> str:
    return "✓ success" if success else "■ ended" if ended else ""


def _png(frame: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "png", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


# -- cards -----------------------------------------------------------------------------------------------------------


class Card(ui.card):
    """One future in a window.

    Args:
        choose: called when its button is pressed.
        goto: called with the moment that the slider was moved to.
    """

    def __init__(self, name: str, choose: Callable[[], Any], goto: Callable[[int], Any]):
        super().__init__()
        self.name = name
        self.classes("future w-full")
        with self:
            with ui.row().classes("w-full items-baseline gap-3"):
                self._title = ui.label().classes("title font-bold")
                self._said = ui.label().classes("said grow opacity-60")
                self._choose = ui.button("act here", on_click=choose)
                self._choose.props("flat dense no-caps")
            with ui.row().classes("panels w-full gap-4") as self._panels:
                self._figures = {"dream": Figure("dream", DREAM), "twin": Figure("twin", TWIN)}
                with ui.column().classes("charts grow gap-1"):
                    self._reward_says, self._reward = chart("reward", {"dream": DREAM, "twin": TWIN})
                    self._unsure_says, self._unsure = chart("uncertainty", {"uncertainty": UNSURE})
            with ui.row().classes("w-full items-center no-wrap gap-4"):
                self._time = ui.slider(min=0, max=1, value=0).classes("grow").props('aria-label="moment"')
                self._time.on("update:model-value", lambda event: goto(int(event.args)), throttle=0.05)
                self._step = ui.label().classes("step w-28 text-right")

    def draw(self, future: dict[str, Any], look: View, active: bool, several: bool, ranges: dict[str, Any]) -> None:
        now = future["at"]
        rewards = future["twin_reward" if look == "twin" else "reward"]
        self.classes(add="active" if active and several else "", remove="" if active and several else "active")
        self._panels.classes(add="two" if look == "both" else "", remove="" if look == "both" else "two")
        self._title.text = f"Future {self.name}" if several else "Now"
        self._said.text = future["action"]
        self._choose.set_visibility(several and not active)
        for side, figure in self._figures.items():
            figure.set_visibility(look in (side, "both"))
            if future[side] is not None:
                figure.draw(future[side], future[f"{side}_verdict"])
        plot(self._reward, _rewards(future, look), ranges["steps"], ranges["reward"], now)
        plot(self._unsure, {"uncertainty": future["uncertainty"]}, ranges["steps"], ranges["uncertainty"], now)
        self._reward_says.text = f"{rewards[now - 1]:.2f}, together {sum(rewards[:now]):.2f}" if now else ""
        self._unsure_says.text = f"{future['uncertainty'][now - 1]:.2f} nats" if now else ""
        self._time.props["min"], self._time.props["max"] = future["kept_from"], max(1, len(rewards))
        self._time.value = now
        self._time.update()
        self._step.text = f"step {now} of {len(rewards)}"


class Figure(ui.column):
    """A picture of 64 pixels or so, enlarged, with what is to be said of it above."""

    def __init__(self, name: str, colour: str):
        super().__init__()
        self.classes(f"{name} gap-1")
        with self:
            with ui.row().classes("w-full justify-between text-sm font-bold").style(f"color: {colour}"):
                ui.label(name)
                self._verdict = ui.label().classes("verdict")
            self._image = ui.interactive_image().classes("shown rounded")

    def draw(self, source: str, verdict: str) -> None:
        self._image.set_source(source)
        self._verdict.text = verdict


def _rewards(future: dict[str, Any], look: View) -> dict[str, list[float]]:
    """What a window draws of the rewards."""
    return {
        "dream": future["reward"] if look != "twin" else [],
        "twin": future["twin_reward"] if look != "dream" else [],
    }


def common_ranges(futures: list[dict[str, Any]], look: View) -> dict[str, Any]:
    """Of the charts, alike for all futures so that they can be compared."""
    rewards = [0.0, *(value for future in futures for line in _rewards(future, look).values() for value in line)]
    doubts = [1.0, *(value for future in futures for value in future["uncertainty"])]
    low, high = math.floor(10 * min(rewards)) / 10, math.ceil(10 * max(rewards)) / 10
    return {
        "steps": max(10, *(len(future["reward"]) for future in futures)),
        "reward": (low, high if high > low else low + 1.0),
        "uncertainty": (0.0, float(math.ceil(max(doubts)))),
    }


# -- NiceGUI's elements, dressed --------------------------------------------------------------------------------------


def group(title: str) -> ui.card:
    card = ui.card().classes("w-full gap-2").props("flat bordered")
    with card:
        ui.label(title).classes("text-xs font-bold opacity-60")
    return card


def button(text: str, key: str, on_click: Callable[[], Any]) -> ui.button:
    made = ui.button(text, on_click=on_click).props("outline no-caps")
    with made:
        ui.html(f"<kbd>{key}</kbd>").classes("ml-2")
    return made


def chart(title: str, lines: dict[str, str]) -> tuple[ui.label, ui.echart]:
    """A small chart of lines, by name and colour, and the label next to its title."""
    with ui.row().classes("w-full justify-between text-xs opacity-70"):
        ui.label(title)
        says = ui.label()
    options = {
        "animation": False,
        "grid": {"left": 40, "right": 8, "top": 8, "bottom": 8},
        "tooltip": {"trigger": "axis"},
        "xAxis": {"type": "value", "min": 0, "max": 10, "show": False},
        "yAxis": {"type": "value", "axisLabel": {"color": "#888"}, "splitLine": {"lineStyle": {"color": "#8883"}}},
        "series": [
            {"name": name, "type": "line", "showSymbol": False, "data": [], "lineStyle": {"width": 2, "color": colour},
             "itemStyle": {"color": colour}} for name, colour in lines.items()
        ],
    }  # fmt: skip
    return says, ui.echart(options).classes("w-full h-24")


def plot(drawn: ui.echart, lines: dict[str, list[float]], steps: int, span: tuple[float, float], now: int) -> None:
    low, high = span
    drawn.options["xAxis"]["max"] = steps
    drawn.options["yAxis"] |= {"min": low, "max": high, "interval": (high - low) / 2}
    for series in drawn.options["series"]:
        series["data"] = [[step + 1, value] for step, value in enumerate(lines[series["name"]])]
    drawn.options["series"][0]["markLine"] = {
        "data": [{"xAxis": now}], "lineStyle": {"color": "#888"}, "label": {"show": False}, "symbol": "none",
        "silent": True,
    }  # fmt: skip
    drawn.update()
