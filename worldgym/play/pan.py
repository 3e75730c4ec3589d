"""Playing with PAN: a session whose actions are sentences, and whose steps are chunks of video."""

from pathlib import Path

import numpy as np

from ..pan.dreams import PanDreams, PanOptions
from .session import Future, Moment, Played, Session


class PanSession(Session):
    """`Session`, of PAN. A sentence is one step, and the last frame of its video is shown.

    Args:
        options: what `worldgym/Pan-v0` takes; the reward is shown, and needs a goal in words.
    """

    def __init__(self, options: PanOptions, seed: int = 0):
        self.dreams, self.twin = PanDreams(1, options), None
        goal = self.dreams.instructions[0]
        if goal is None:
            raise ValueError("playing with PAN needs a goal in words, reward='what the picture should show'")
        self.seed, self.instruction, self._chosen = seed, goal, True
        self.futures: dict[str, Future] = {}
        self.active, self.paused = "A", False
        self.reset()

    @property
    def played(self) -> Played:
        return Played("PAN", (self.instruction,), tuple(self.dreams.phrases))

    def reset(self, seed: int | None = None, instruction: str | None = None) -> None:
        seed, instruction = self.seed if seed is None else seed, instruction or self.instruction
        self.dreams.reset(seeds=[seed], instructions=[instruction])
        self.seed, self.instruction = seed, instruction
        self.futures, self.active = {"A": Future([Moment(self._shown(), None, state=self.dreams.state)])}, "A"
        self._let_go()

    def hold(self, vector: object) -> None:
        if vector is not None:
            raise ValueError("PAN takes sentences alone; say what is to be done")

    def say(self, sentence: str) -> None:
        if not sentence.strip():
            raise ValueError("the sentence is empty")
        self._asked, self._left = (sentence.strip(),), 1

    @property
    def sentence(self) -> str:
        return self._asked[0] if self._left else ""

    def step(self, action: np.ndarray | str) -> None:
        self.dreams.state = self.now.state
        step = self.dreams.step([action])
        moment = Moment(
            self._shown(), None, str(action), reward=float(step.reward[0]), success=bool(step.info["success"][0]),
            ended=bool(step.terminated[0]), state=self.dreams.state,
        )  # fmt: skip
        self._append(moment)

    def record(self, dataset_id: str) -> Path:
        raise ValueError("a data set holds vectors, and PAN takes sentences; save a GIF or an MP4")

    def _shown(self) -> np.ndarray:
        return self.dreams.render()[0].cpu().numpy()
