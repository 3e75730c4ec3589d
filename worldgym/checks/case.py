"""What the checks of a vector environment are called with: its maker in one autoreset mode, and runs of fresh ones."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, VectorEnv

from .player import Player, Transition

NUM_ENVS = 3
HORIZON = 3
"""Steps of an episode, for most checks."""
TWO_EPISODES = 2 * HORIZON + 2
LONG_HORIZON = 8
"""Where episodes should have the time to end at different steps."""
SEEDS = (21, 22, 23)


@dataclass(frozen=True)
class Case:
    """A maker in one mode."""

    make: Callable[..., VectorEnv]
    mode: AutoresetMode
    others: list["Case"]
    """Of all modes that the maker takes, this one included."""

    @contextmanager
    def env(self, num_envs: int = NUM_ENVS, horizon: int = HORIZON) -> Iterator[VectorEnv]:
        env = self.make(num_envs=num_envs, autoreset_mode=self.mode, max_episode_steps=horizon)
        try:
            yield env
        finally:
            with suppress(Exception):  # of an environment that a check has broken
                env.close()

    @contextmanager
    def player(self, horizon: int = HORIZON) -> Iterator[Player]:
        """Of a fresh environment, reset with seed 1."""
        with self.env(horizon=horizon) as env:
            player = Player(env)
            player.reset(1)
            yield player

    def run(self) -> list[Any]:
        """What a fresh environment with seed 1 returns: the reset, and two episodes."""
        with self.env() as env:
            player = Player(env)
            return [player.reset(1), *player.play(TWO_EPISODES)]

    @cached_property
    def expected(self) -> list[Any]:
        """The same run, once for all checks that compare with it."""
        return self.run()

    def live(self, seeds: Sequence[int], streams: Sequence[int]) -> list[list[Transition]]:
        """How fresh environments live, long enough for some to end before their time."""
        with self.env(len(seeds), LONG_HORIZON) as env:
            player = Player(env, streams)
            player.reset(list(seeds))
            player.play(LONG_HORIZON + HORIZON)
            return player.lives

    @cached_property
    def lives(self) -> list[list[Transition]]:
        return self.live(SEEDS, range(NUM_ENVS))


def check_same(found: Any, expected: Any, otherwise: str) -> None:
    assert data_equivalence(found, expected, exact=True), otherwise
