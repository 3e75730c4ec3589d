"""Model-predictive control: observation in, action out; re-grounded on each real frame."""

from collections import deque
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from worldgym.actions import ActionCodec
from worldgym.world import WorldModel, WorldState

from .search import Plan, Search


@runtime_checkable
class Returns(Protocol):
    """Judges action sequences from where reality stands now."""

    def ground(self, frames: np.ndarray, actions: np.ndarray | None = None) -> None:
        """Args:
        frames: uint8 [t, h, w, 3], the last ones seen, oldest first; in a dream that shows it, the recurrent
            state itself, float32 [t, s].
        actions: float32 [t - 1, a], taken in between; may be left out for a single frame.
        """

    def __call__(self, sequences: np.ndarray) -> np.ndarray: ...


class DreamReturns:
    """Tries action sequences in the dream, from the last frames really seen.

    In a world with a recurrent state that is all it needs: no dream is begun that draws frames, unless `drawn` asks
    for dreams that draw every one.
    """

    def __init__(self, world: WorldModel, instruction: str, drawn: bool = False):
        self.world, self.instruction = world, instruction
        self.drawn = drawn or world.recurrent is None
        self.read = world.read_instructions([instruction])
        self._state: WorldState | Tensor | None = None

    def ground(self, frames: np.ndarray, actions: np.ndarray | None = None) -> None:
        done = None if actions is None else actions[None]
        if frames.ndim == 2:
            self._state = torch.from_numpy(frames[-1:]).to(self.world.device)
        elif self.drawn:
            self._state = self.world.start(frames[None], done, instruction=self.instruction)
        else:
            self._state = self.world.observe(frames[None], done)

    @property
    def state(self) -> WorldState | Float[Tensor, "1 s"]:
        """Where the dream stands, on the last frame really seen: the recurrent state, in a world that has one."""
        if self._state is None:
            raise RuntimeError("ground() the dream on an observation first")
        return self._state

    def __call__(self, sequences: np.ndarray) -> np.ndarray:
        state = self.state
        if isinstance(state, Tensor):
            return self.world.imagine(state, sequences[None], self.read, expected=True)[0].cpu().numpy()
        return self.world.evaluate(state, sequences[None], drawn=True)[0].cpu().numpy()


class TwinReturns:
    """Tries action sequences on the twin's true physics: a planner's upper bound."""

    def __init__(self, env: gym.Env):
        self.env = env

    def ground(self, frames: np.ndarray, actions: np.ndarray | None = None) -> None:
        """The simulator knows where it stands."""

    def __call__(self, sequences: np.ndarray) -> np.ndarray:
        return self.env.get_wrapper_attr("evaluate")(sequences)


class MPC:
    """Plans, takes the first actions of the plan, and plans again from what it observes.

    Args:
        returns: judges action sequences; the planner's `evaluate` must be the same object.
        planner: how to search.
        replan_every: actions taken of each plan.
        memory: frames that each decision is grounded on. One is enough where a frame shows all there is to know;
            where things keep moving by themselves, several frames show how fast.
        codec: of what is acted on, whose actions the plan's vectors stand for; the vectors themselves by default.
    """

    def __init__(
        self,
        returns: Returns,
        planner: Search,
        replan_every: int = 2,
        memory: int = 1,
        codec: ActionCodec | None = None,
    ):
        if not 0 < replan_every <= planner.horizon:
            raise ValueError(f"replan_every is {replan_every}; the planner looks {planner.horizon} steps ahead")
        if memory < 1:
            raise ValueError(f"memory is {memory}; a decision needs at least the newest frame")
        self.returns, self.planner, self.replan_every, self.codec = returns, planner, replan_every, codec
        self.plan: Plan | None = None
        self._taken = 0
        self._frames: deque[np.ndarray] = deque(maxlen=memory)
        self._actions: deque[np.ndarray] = deque(maxlen=memory - 1)

    def reset(self) -> None:
        """Forget the last episode."""
        self.plan = None
        self._frames.clear()
        self._actions.clear()

    def __call__(self, observation: np.ndarray) -> Any:
        """The next action: float32 [a], or what the codec reads from that."""
        self._frames.append(observation)
        if self.plan is None or self._taken == self.replan_every:
            warm_start = None if self.plan is None else self.plan.shifted(self.replan_every)
            self.returns.ground(np.stack(self._frames), np.stack(self._actions) if self._actions else None)
            self.plan, self._taken = self.planner.plan(warm_start), 0
        action = self.plan.actions[self._taken]
        self._taken += 1
        self._actions.append(action)
        return self._native(action)

    def instead(self, vector: np.ndarray) -> Any:
        """The action of another vector, float32 [a], which is done in place of the newest one; a new plan follows."""
        self._actions[-1], self._taken = vector, self.replan_every
        return self._native(vector)

    def _native(self, action: np.ndarray) -> Any:
        return action if self.codec is None or self.codec.plain else self.codec.decode(action)
