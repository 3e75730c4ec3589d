"""A training that dies in its middle."""

import pytest

from worldgym.train import loop as loop_module
from worldgym.train.loop import schedule


class Killed(BaseException):
    """What the operating system does, as far as a test can."""


def killed_at(monkeypatch, train, config, when: int) -> None:
    """Train until just before the given step, then die."""

    def stop(step, steps, warm_up):
        if step == when:
            raise Killed
        return schedule(step, steps, warm_up)

    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "schedule", stop)
        with pytest.raises(Killed):
            train(config)
