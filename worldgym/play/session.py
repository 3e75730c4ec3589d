"""What a player does to a dream: act, talk, pause, rewind, fork, compare with the twin, record. Knows no page.

session = Session(world, starts)
session.hold([0.0, 1.0])         # an arrow key goes down
session.tick()                   # a step of time
session.say("push the red block left")
session.goto(0)                  # back to the beginning
session.fork()                   # a second future, B
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..actions import ActionCodec
from ..evaluate.video import check_video, write_video
from ..listing import world_name
from ..reader import reader_of
from ..starts import InitialStates
from ..world import WorldModel, WorldState

if TYPE_CHECKING:
    from ..datasets import DreamedEpisode

View = Literal["dream", "twin", "both"]
KEPT = 256
"""Moments of a future that can be gone back to, 0.4 MB each; of older ones only the pictures are kept."""
PANEL, STRIP = 256, 32
"""Pixels of a picture in a recording and of the lines of text around it: multiples of 16, as video codecs want."""


@runtime_checkable
class Twin(Protocol):
    """A true environment that can be rewound, with the actions of the world's codec."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]: ...

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]: ...

    def snapshot(self) -> bytes: ...

    def restore(self, blob: bytes) -> None: ...


Controller = Callable[[str], np.ndarray]
"""How the twin carries out a sentence: its next vector from where it stands, float32 [a]."""


@dataclass(frozen=True)
class Played:
    """What a page has to know of a world."""

    name: str
    instructions: tuple[str, ...]
    phrases: tuple[str, ...]
    """Sentences that are suggested; none where none are understood."""
    twin: str = ""
    codec: ActionCodec | None = None
    """Between its actions and vectors; None where sentences are all it takes."""


@dataclass(frozen=True)
class Moment:
    """Where a future stands after a step; the twin's part is None if there is no twin."""

    dream: np.ndarray
    """uint8 [h, w, 3]."""
    twin: np.ndarray | None
    action: str = ""
    """What led here, in words."""
    twin_action: np.ndarray | None = None
    """What led the twin here, float32 [a]; None at the start."""
    dreamed_action: np.ndarray | None = None
    """What led the dream here: another vector where both carried out a sentence, each from what it shows."""
    reward: float = 0.0
    twin_reward: float | None = None
    success: bool = False
    twin_success: bool = False
    ended: bool = False
    """Whether the dream says that the episode is over; a player may continue nevertheless."""
    twin_ended: bool = False
    uncertainty: float = 0.0
    """Nats."""
    state: Any = None
    """From where the dream continues; None once it is too long ago."""
    blob: bytes | None = None
    """From where the twin continues."""


@dataclass
class Future:
    """A line of moments and the place in it that is looked at."""

    moments: list[Moment]
    at: int = 0

    @property
    def now(self) -> Moment:
        return self.moments[self.at]

    @property
    def kept_from(self) -> int:
        """The first moment that can be gone back to."""
        return next(index for index, moment in enumerate(self.moments) if moment.state is not None)


class Session:
    """One player, one world, one or two futures that share their beginning.

    Args:
        world: whose dream is played with.
        starts: real frames to begin from where there is no twin to show one.
        twin: the true environment, stepped along with the same actions.
        controller: how the twin carries out sentences; needed if there is a twin and the world knows sentences.
        instruction: what rewards are for; the world's first by default. One that was asked for, here or at a reset,
            cuts a sentence short when it succeeds; the default one lets it finish.
    """

    _asked: tuple[str, ...]
    """What a sentence asks for, one phrase after the other."""
    _left: int
    """Frames of it that are still to come."""

    def __init__(
        self,
        world: WorldModel,
        starts: InitialStates | None,
        twin: Twin | None = None,
        controller: Controller | None = None,
        seed: int = 0,
        instruction: str | None = None,
    ):
        if twin is None and starts is None:
            raise ValueError(f"the world {world.config.name!r} has no starting frames; play it next to its twin")
        if twin is not None and world.config.phrases and controller is None:
            raise ValueError("a world that knows sentences needs a controller to carry them out in its twin")
        if not world.config.instructions:
            raise ValueError(f"the world {world.config.name!r} was trained on no instruction: it has no reward to show")
        self.world, self.starts, self.twin, self.controller = world, starts, twin, controller
        self.seed, self.instruction = seed, instruction or world.config.instructions[0]
        self._chosen = instruction is not None
        self.futures: dict[str, Future] = {}
        self.active = "A"
        self.paused = False
        self.reset()

    # -- what a player does -----------------------------------------------------------------------------------------

    def reset(self, seed: int | None = None, instruction: str | None = None) -> None:
        """Restart with one future; from the same start if no `seed` is given."""
        seed, instruction = self.seed if seed is None else seed, instruction or self.instruction
        chosen = self._chosen or instruction != self.instruction
        if seed < 0:
            raise ValueError(f"seed is {seed}; it must be 0 or more")
        [instruction] = self.world.known_instructions([instruction])
        blob = None
        if self.twin is not None:
            frame, _ = self.twin.reset(seed=seed, options={"instruction": instruction})
            frames, actions = frame[None], np.zeros((0, self.world.config.action_size), np.float32)
            blob = self.twin.snapshot()
        else:
            assert self.starts is not None
            frames, actions = self.starts.draw(instruction, np.random.default_rng(seed))
        self.seed, self.instruction, self._chosen = seed, instruction, chosen
        state = self._start(frames, actions)
        seen = None if self.twin is None else frame
        self.futures = {"A": Future([Moment(self._picture(state), seen, state=state, blob=blob)])}
        self.active = "A"
        self._held: np.ndarray | None = None
        self._tapped: np.ndarray | None = None
        self._let_go()

    def hold(self, vector: Sequence[int | float] | np.ndarray | None) -> None:
        """Act by this vector, [a] in [-1, 1] (`codec.encode(action)`), at every tick until another comes; None lets go.

        A key that is let go before the next tick still counts once. Acting breaks off a sentence.
        """
        if vector is None:
            self._held = None
            return
        size = self.world.config.action_size
        action = np.asarray(vector, np.float32)
        if action.shape != (size,) or not np.isfinite(action).all():
            raise ValueError(f"action {vector} must be {size} finite numbers in [-1, 1]")
        self._held = self._tapped = self.codec.snap(action)
        self._asked, self._left = (), 0

    def say(self, sentence: str) -> None:
        """Have a sentence carried out, one frame a tick, and what else it asks for after that.

        Raises:
            ValueError: it is empty or not understood, or the world knows no sentences.
        """
        if not self.world.config.phrases:
            raise ValueError(f"the world {self.world.config.name!r} was trained on no sentences; use the vector")
        if not sentence.strip():
            raise ValueError("the sentence is empty")
        reading = reader_of(self.world.config.phrases).read(sentence)
        if not reading.phrases:
            raise ValueError(f"{sentence.strip()!r} is not understood: {reading.reason}")
        self._let_go()
        self._asked, self._left = reading.phrases, self.world.config.frames_per_action * len(reading.phrases)

    def tick(self) -> bool:
        """Let a step of time pass if there is something to do; says whether anything happened."""
        if self.paused:
            return False
        if self._left:
            phrase = self.sentence
            self._left -= 1
            self.step(phrase)
            if self.now.ended and self._chosen:  # as in the environments: a sentence ends where the episode does
                self._left = 0
            return True
        action = self._tapped if self._held is None else self._held
        self._tapped = None
        if action is None:
            return False
        self.step(action)
        return True

    def step(self, action: np.ndarray | str) -> None:
        """Dream one frame on, and the twin with it. What came after the moment looked at is forgotten."""
        future = self.futures[self.active]
        now = future.now
        assert now.state is not None
        before = now.state.fork(1)  # a step spends the state it comes from, and this moment may be gone back to
        if isinstance(action, str):
            vector, said = self.world.act(before, self.world.read([action]))[0].cpu().numpy(), action
        else:
            vector, said = action, self._said(action)
        state, outcome = self.world.step(before, vector[None])
        moment = Moment(
            self._picture(state),
            None,
            said,
            dreamed_action=vector,
            reward=float(outcome.reward[0]),
            success=bool(outcome.success[0] > 0.5),
            ended=bool(outcome.terminated[0] > 0.5),
            uncertainty=float(outcome.uncertainty[0]),
            state=state,
        )
        if self.twin is not None:
            assert now.blob is not None
            self.twin.restore(now.blob)
            if isinstance(action, str):
                assert self.controller is not None
                action = self.controller(action)
            taken = np.asarray(action, np.float32)
            own = taken if self.codec.plain else self.codec.decode(taken)
            frame, reward, ended, _, info = self.twin.step(own)
            moment = replace(
                moment, twin=frame, twin_action=taken, twin_reward=float(reward), twin_success=bool(info["success"]),
                twin_ended=ended, blob=self.twin.snapshot(),
            )  # fmt: skip
        self._append(moment)

    def goto(self, index: int) -> None:
        """Look at another moment of the active future; the next action continues from there."""
        future = self.futures[self.active]
        if not 0 <= index < len(future.moments):
            raise ValueError(f"moment {index} is not among the {len(future.moments)} of this future")
        if future.moments[index].state is None:
            raise ValueError(f"moment {index} is too long ago: the newest {KEPT} can be gone back to")
        future.at = index
        self._let_go()

    def fork(self) -> None:
        """A second future that has the active one's past; it takes the place of the other, and is then active."""
        here = self.futures[self.active]
        self.active = "B" if self.active == "A" else "A"
        self.futures[self.active] = Future(here.moments[: here.at + 1], here.at)
        self._let_go()

    def choose(self, name: str) -> None:
        """Act in this future from now on."""
        if name not in self.futures:
            raise ValueError(f"there is no future {name!r}; there is {' and '.join(sorted(self.futures))}")
        self.active = name
        self._let_go()

    def wake(self) -> None:
        """Dream on from what the twin shows, and lately showed: the dream's errors so far are gone."""
        if self.twin is None:
            raise ValueError("there is no twin from whose picture the dream could continue")
        future = self.futures[self.active]
        seen = future.moments[: future.at + 1][-self.world.config.dynamics.observed :]
        frames = [moment.twin for moment in seen if moment.twin is not None]
        actions = [moment.twin_action for moment in seen[1:] if moment.twin_action is not None]
        state = self._start(np.stack(frames), np.stack(actions) if actions else None)
        future.moments = [*future.moments[: future.at], replace(future.now, dream=self._picture(state), state=state)]

    # -- what a player sees -----------------------------------------------------------------------------------------

    @property
    def played(self) -> Played:
        config = self.world.config
        return Played(config.name, config.instructions, config.phrases, config.twin, config.codec)

    @property
    def codec(self) -> ActionCodec:
        """Between vectors and the actions of the world."""
        return self.world.config.codec

    @property
    def now(self) -> Moment:
        """What the active future looks at."""
        return self.futures[self.active].now

    @property
    def sentence(self) -> str:
        """What is being carried out, in the world's words; empty if nothing is."""
        return self._asked[-1 - (self._left - 1) // self.world.config.frames_per_action] if self._left else ""

    def returns(self, name: str) -> float:
        """Sum of the dreamed rewards of a future, up to the moment looked at."""
        future = self.futures[name]
        return sum(moment.reward for moment in future.moments[: future.at + 1])

    def video(self, view: View) -> np.ndarray:
        """The futures up to the moments looked at, with captions, uint8 [t, h, w, 3]; the shorter waits at its end."""
        names = sorted(self.futures)
        longest = max(self.futures[name].at for name in names)
        return np.stack([self._compose(names, when, view) for when in range(longest + 1)])

    def save(self, path: Path, view: View) -> None:
        """Write `video` as .gif or .mp4."""
        check_video(path)
        write_video(path, self.video(view), frames_per_second=5)

    def episodes(self) -> "list[DreamedEpisode]":
        """The futures up to the moments looked at, for `datasets.write_minari` or `lerobot.write_lerobot`."""
        return [self._episode(self.futures[name]) for name in sorted(self.futures)]

    def record(self, dataset_id: str) -> Path:
        """Write `episodes` as a Minari dataset, and return its folder."""
        from ..datasets import write_minari

        if self.world.folder is None:
            raise ValueError(
                "a dataset names the folder of the world that dreamed it; save this world to a folder first"
            )
        return write_minari(dataset_id, world_name(self.world.folder), self.episodes(), self.instruction)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _append(self, moment: Moment) -> None:
        """To the active future, in place of what came after the moment looked at."""
        future = self.futures[self.active]
        future.moments = [*future.moments[: future.at + 1], moment]
        future.at += 1
        if (old := future.at - KEPT) >= 0:
            future.moments[old] = replace(future.moments[old], state=None, blob=None)

    def _let_go(self) -> None:
        self._held = self._tapped = None
        self._asked, self._left = (), 0

    def _said(self, vector: np.ndarray) -> str:
        """An action in words: its numbers, or the categories that it chooses."""
        said = [f"{choice.name} {choice.start + int(choice.read(vector))}" for choice in self.codec.choices]
        numbers = [f"{number:+.2g}" for number in vector[self.codec.continuous]]
        return " ".join([*said, *([f"({', '.join(numbers)})"] if numbers else [])])

    def _start(self, frames: np.ndarray, actions: np.ndarray | None = None) -> WorldState:
        done = None if actions is None else actions[None]
        return self.world.start(frames[None], done, seeds=[self.seed], instruction=self.instruction)

    def _picture(self, state: WorldState) -> np.ndarray:
        return self.world.render(state)[0].cpu().numpy()

    def _episode(self, future: Future) -> "DreamedEpisode":
        from ..datasets import DreamedEpisode, judge

        if future.kept_from:
            raise ValueError(f"this future began too long ago: up to {KEPT} moments can be recorded as data")
        moments = future.moments[: future.at + 1]
        actions = [moment.dreamed_action for moment in moments if moment.dreamed_action is not None]
        if not actions:
            raise ValueError("nothing has been done yet; act first, then record")
        judged = [judge(self.world, moment.state) for moment in moments if moment.state is not None]
        reward, success, terminated = (torch.cat(part).numpy() for part in zip(*judged, strict=True))
        return DreamedEpisode(
            frames=np.stack([moment.dream for moment in moments]),
            actions=self.codec.snap(np.stack(actions)),
            rewards=reward,
            successes=success > 0,
            terminations=terminated > 0,
            uncertainty=np.array([moment.uncertainty for moment in moments], np.float32),
            seed=self.seed,
        )

    def _compose(self, names: list[str], when: int, view: View) -> np.ndarray:
        columns = [column for column in ("dream", "twin") if view in (column, "both")]
        if self.twin is None and "twin" in columns:
            raise ValueError("there is no twin to show")
        width = len(columns) * PANEL + (len(columns) - 1) * (STRIP // 2)
        canvas = Image.new("RGB", (width, len(names) * (PANEL + 2 * STRIP)), "white")
        draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(15)
        for row, name in enumerate(names):
            future, top = self.futures[name], row * (PANEL + 2 * STRIP)
            moment = future.moments[min(when, future.at)]
            for place, column in enumerate(columns):
                left, (picture, title) = place * (PANEL + STRIP // 2), self._panel(moment, column)
                large = ImageOps.pad(Image.fromarray(picture), (PANEL, PANEL), Image.Resampling.NEAREST, "white")
                canvas.paste(large, (left, top + STRIP))
                draw.text((left + 4, top + 8), f"{name}  {title}" if len(names) > 1 else title, "black", font)
            said = f"step {min(when, future.at)}   {moment.action}"
            draw.text((4, top + STRIP + PANEL + 6), said, "black", font)
        return np.asarray(canvas)

    def _panel(self, moment: Moment, column: str) -> tuple[np.ndarray, str]:
        if column == "dream":
            return moment.dream, f"dream   reward {moment.reward:+.2f}" + _verdict(moment.success, moment.ended)
        assert moment.twin is not None
        said = "" if moment.twin_reward is None else f"   reward {moment.twin_reward:+.2f}"
        return moment.twin, f"twin{said}" + _verdict(moment.twin_success, moment.twin_ended)


def _verdict(success: bool, ended: bool) -> str:
    return "   success" if success else "   ended" if ended else ""
