"""How a training reports: a progress bar and TensorBoard's scalars, from the main process alone."""

import time
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

EVERY = 20
"""Steps between two points of a curve of losses."""


class Log:
    """Of a run that continues from step `first`.

    Args:
        folder: TensorBoard's.
        frames: that a step of all processes together learns from.
        shown: whether this is the main process.
    """

    def __init__(self, folder: Path, title: str, first: int, steps: int, frames: int, shown: bool):
        self.first, self.steps, self.frames, self.started = first, steps, frames, time.monotonic()
        self.writer = SummaryWriter(folder, purge_step=first) if shown else None
        self.progress = tqdm(total=steps, initial=first, desc=title, unit="step", disable=not shown)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.close()
        if self.writer is not None:
            self.writer.close()

    def step(self, step: int, losses: Mapping[str, float]) -> None:
        """Write down what a step lost, now and then and at the end."""
        self.progress.update()
        if self.writer is None or (step % EVERY and step + 1 < self.steps):
            return
        for name, value in losses.items():
            self.writer.add_scalar(f"loss/{name}", value, step)
        speed = (step + 1 - self.first) * self.frames / (time.monotonic() - self.started)
        self.writer.add_scalar("speed/frames_per_second", speed, step)
        self.progress.set_postfix(loss=f"{losses['loss']:.3f}")

    def say(self, line: str) -> None:
        """A line above the progress bar."""
        if self.writer is not None:
            self.progress.write(line)
