"""PAN's simulative reasoning (arXiv 2511.09057, section 7.3), with and without a simulator.

One proposer says what could be said next; the ways differ in how one of it is chosen:

    dream     beam search in the dream, re-grounded on the real frame after each sentence
    mujoco    the same search on true physics: the upper bound
    nothing   uniformly at random, without simulation
"""

from collections.abc import Callable, Sequence

import gymnasium as gym
import numpy as np

from worldgym.evaluate.rollout import Policy
from worldgym.world import WorldModel

from .tree import BeamSearch, DreamFutures, Futures, Node, Phrases, Proposer, TextMPC, TwinFutures

MakePolicy = Callable[[str, np.random.Generator], Policy]
"""An instruction and the episode's random generator -> what chooses the next sentence."""


class Guess:
    """Says any of what is proposed.

    Args:
        random: draws it.
    """

    def __init__(self, instruction: str, propose: Proposer, random: np.random.Generator):
        self.instruction, self.propose, self.random = instruction, propose, random

    def __call__(self, observation: np.ndarray) -> str:
        node = Node(self.instruction, (), float("nan"), 0.0, lambda: observation, None)
        return str(self.random.choice(self.propose(self.instruction, node)))


def elementary(world: WorldModel, objects: Sequence[str] = ()) -> Phrases:
    """Proposes the world's sentences that are no instructions: those would be carried out by a controller that knows
    how, and there would be nothing to reason about. Of `objects`, only what the instruction names is spoken of."""
    return Phrases([p for p in world.config.phrases if p not in world.config.instructions], objects)


def ways(
    world: WorldModel, twin: gym.Env, propose: Proposer, depth: int = 2, breadth: int = 4
) -> dict[str, MakePolicy]:
    """The choosers by name.

    Args:
        twin: with `action_mode="text"`; sentences are tried on it as it stands.
        depth: sentences looked ahead.
        breadth: futures extended at each level.
    """

    def search(futures: Futures) -> TextMPC:
        return TextMPC(BeamSearch(futures, propose, depth=depth, breadth=breadth))

    return {
        "dream": lambda instruction, random: search(DreamFutures(world, instruction)),
        "mujoco": lambda instruction, random: search(TwinFutures(twin)),
        "nothing": lambda instruction, random: Guess(instruction, propose, random),
    }
