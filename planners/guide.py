"""CEM with an actor that proposes and a critic that says what follows the horizon (TD-MPC; arXiv 2203.04955).

    returns = GuidedReturns(world, instruction, agent)     # agent: of worldgym.agents.ActorCritic, say
    search = CEM(returns, low, high, horizon=16, samples=64, iterations=3)

A plan of a dozen steps ends before a fall that it causes; the value of its last state knows. And a search in many
dimensions finds a good gait rarely, but betters one that is proposed.
"""

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from worldgym.errors import UserError
from worldgym.world import WorldModel

from .mpc import DreamReturns

LOUD = 0.5
"""Share of the actor's own spread in proposals, of which the first has none."""


@runtime_checkable
class Guide(Protocol):
    """An agent that learned in the world's recurrent state, by one instruction."""

    instruction: str
    discount: float
    """Of rewards a step later."""

    def policy(self, states: Float[Tensor, "b s"]) -> tuple[Float[Tensor, "b a"], Float[Tensor, "b a"]]:
        """Mean and standard deviation of actions before `tanh` brings them into [-1, 1]."""

    def value(self, states: Float[Tensor, "b s"]) -> Float[Tensor, " b"]:
        """Discounted sum of the rewards that follow."""


class GuidedReturns(DreamReturns):
    """Tries action sequences in the recurrent state, with the value of where they end.

    Rewards count as far as the episode is likely to go on, discounted as the agent learned them.

    Raises:
        UserError: the guide learned another instruction.
    """

    def __init__(self, world: WorldModel, instruction: str, guide: Guide, seed: int = 0):
        super().__init__(world, instruction)
        if guide.instruction != instruction:
            raise UserError(f"the guide learned {guide.instruction!r}, and {instruction!r} is to be planned")
        self.guide = guide
        self._random = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def __call__(self, sequences: np.ndarray) -> np.ndarray:
        state, recurrent = self._here, self.world.recurrent
        assert recurrent is not None
        tried = torch.from_numpy(sequences).to(state.device)
        states = recurrent.imagine(state.expand(len(tried), -1), tried)
        said = recurrent.heads.each(states, self.read.expand(len(tried), -1))
        later = self.guide.value(states[:, -1])
        for reward, ends in zip(reversed(said.reward.unbind(1)), reversed(said.terminated.unbind(1)), strict=True):
            later = reward + self.guide.discount * (-ends).sigmoid() * later
        return later.cpu().numpy()

    @torch.no_grad()
    def propose(self, count: int, horizon: int) -> Float[np.ndarray, "n t a"]:
        """What the actor would do from here on: its likeliest actions, then some with chances."""
        states, actions, recurrent = self._here.expand(count, -1), [], self.world.recurrent
        assert recurrent is not None
        for _ in range(horizon):
            mean, spread = self.guide.policy(states)
            noise = torch.randn(mean.shape, generator=self._random).to(mean.device)
            noise[0] = 0
            action = torch.tanh(mean + LOUD * spread * noise)
            actions.append(action)
            states = recurrent.predict(states, action)
        return torch.stack(actions, 1).cpu().numpy()

    @property
    def _here(self) -> Float[Tensor, "1 s"]:
        state = self.state
        assert isinstance(state, Tensor)
        return state
