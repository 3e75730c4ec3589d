"""Tree search over sentences in PAN: what a sentence leads to is a video, of which the last frame is judged.

futures = PanFutures(pan, "the cup is full", success_reward=0.5)
control = TextMPC(BeamSearch(futures, Phrases(["take the jug", "pour the water", "wait"])))
sentence = control(frame)
"""

from collections.abc import Sequence

import numpy as np

from worldgym.dreams.rewards import FrameReward
from worldgym.pan.rewards import make_reward
from worldgym.pan.state import PanState, Simulation
from worldgym.pan.world import PanWorld

from .tree import Node


class PanFutures:
    """Sentences are carried out in PAN, as many together as `world.at_once` says.

    Args:
        instruction: what proposer and judge are told.
        reward: what a future is worth, as `worldgym/Pan-v0` takes it; the instruction, as a goal in words, by default.
        success_reward: the reward at which the instruction is fulfilled, and the search ends; never without one.
        seed: of all the chances in PAN, which are the same for all futures.
    """

    def __init__(
        self,
        world: PanWorld,
        instruction: str,
        reward: str | np.ndarray | FrameReward | None = None,
        success_reward: float = float("inf"),
        seed: int = 0,
    ):
        self.world, self.instruction, self.success_reward, self.seed = world, instruction, success_reward, seed
        self.reward = make_reward(instruction if reward is None else reward, world)

    def ground(self, observation: np.ndarray) -> Node:
        state = self.world.start(observation[None, None], seeds=[self.seed])
        return self._node((), float("nan"), state.simulations[0])  # the root is never judged

    def extend(self, nodes: Sequence[Node], sentences: Sequence[str]) -> list[Node]:
        state, _ = self.world.step(PanState(tuple(node.where for node in nodes)), list(sentences))
        rewards = self.reward(state).tolist()
        tried = zip(nodes, sentences, rewards, state.simulations, strict=True)
        return [self._node((*node.said, sentence), reward, one) for node, sentence, reward, one in tried]

    def _node(self, said: tuple[str, ...], reward: float, where: Simulation) -> Node:
        def look() -> np.ndarray:
            return where.scene.frame.cpu().numpy()

        return Node(self.instruction, said, reward, float(reward >= self.success_reward), look, where)
