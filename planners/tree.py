"""Tree search over sentences: PAN's simulative reasoning (arXiv 2511.09057), propose, simulate, judge, choose.

    futures = DreamFutures(world, "gather the blocks")
    search = BeamSearch(futures, Phrases(world.config.phrases), by_reward)
    control = TextMPC(search)
    sentence = control(observation)          # the next sentence; look again after it was carried out

The proposer and the judge are plain callables, so a chat model can be either. Given `ask(text, pictures) -> str`:

    def propose(instruction: str, node: Node) -> list[str]:
        return ask(f"To {instruction}, what could be said next? One sentence a line.", [node.look()]).splitlines()

    def judge(instruction: str, nodes: Sequence[Node]) -> np.ndarray:
        question = f"From 0 to 10, how close is this to: {instruction}? A number alone."
        return np.array([float(ask(question, [node.look()])) for node in nodes])

    BeamSearch(futures, propose, judge)
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
import torch

from worldgym.world import WorldModel, WorldState

SAME = 0.25
"""Two pictures are the same if they differ by less than this on average, of 255: a block that moves by a pixel is
twice as much."""


@dataclass(frozen=True, eq=False)
class Node:
    """A future: what has been said since the last real frame, and how things stand then."""

    instruction: str
    """What it is judged by."""
    said: tuple[str, ...]
    reward: float
    """For standing there."""
    success: float
    """Probability that the instruction is fulfilled."""
    look: Callable[[], np.ndarray]
    """Makes the picture, uint8 [h, w, 3]; nothing is rendered until it is called."""
    where: Any
    """What the simulator needs to continue from here."""

    @property
    def solved(self) -> bool:
        return self.success > 0.5


@runtime_checkable
class Proposer(Protocol):
    """What could be said next."""

    def __call__(self, instruction: str, node: Node) -> Sequence[str]: ...


@runtime_checkable
class Judge(Protocol):
    """How good futures are, [n]; the larger the better, comparable between futures of one search."""

    def __call__(self, instruction: str, nodes: Sequence[Node]) -> np.ndarray: ...


@runtime_checkable
class Futures(Protocol):
    """Where sentences are tried out."""

    def ground(self, observation: np.ndarray) -> Node:
        """Where reality stands now, as the root of a tree; `observation` is uint8 [h, w, 3]."""
        ...

    def extend(self, nodes: Sequence[Node], sentences: Sequence[str]) -> list[Node]:
        """Each node after its sentence was carried out, up to the frame where the instruction was fulfilled."""
        ...


# -- propose and judge --------------------------------------------------------------------------------------------


class Phrases:
    """Proposes from a list: all of it, or what is about the blocks that the instruction names.

    Args:
        phrases: such as `world.config.phrases`.
        objects: names of things, such as "red block": what names one that the instruction does not is left out. An
            instruction that names none is about all of them.
    """

    def __init__(self, phrases: Sequence[str], objects: Sequence[str] = ()):
        if not phrases:
            raise ValueError("there are no phrases to propose; the world was trained on no sentences")
        self.phrases, self.objects = tuple(phrases), tuple(objects)

    def __call__(self, instruction: str, node: Node) -> Sequence[str]:
        wanted = self._named(instruction)
        return [phrase for phrase in self.phrases if not wanted or self._named(phrase) <= wanted]

    def _named(self, sentence: str) -> set[str]:
        return {name for name in self.objects if re.search(rf"\b{re.escape(name)}\b", sentence)}


def by_reward(instruction: str, nodes: Sequence[Node]) -> np.ndarray:
    """The reward for standing there and the probability of success: the world's own heads, or the simulator."""
    if all(np.isnan(node.reward) for node in nodes):
        raise ValueError(f"the world has no reward for {instruction!r}; give the search a judge of your own")
    return np.array([node.reward + node.success for node in nodes])


# -- simulate -------------------------------------------------------------------------------------------------------


class DreamFutures:
    """Sentences are carried out in the dream, all of them in one batch.

    Args:
        instruction: one that the world judges, or any other: then its nodes have reward nan and success 0, and the
            search needs a judge that looks at them.
    """

    def __init__(self, world: WorldModel, instruction: str):
        self.world, self.instruction = world, instruction
        self.judged = instruction in world.config.instructions

    def ground(self, observation: np.ndarray) -> Node:
        state = self.world.start(observation[None, None], instruction=self.instruction if self.judged else None)
        # What the heads say of a frame comes with the step that leads to it; the root is never judged.
        return self._node((), float("nan"), 0.0, state, 0)

    @torch.no_grad()
    def extend(self, nodes: Sequence[Node], sentences: Sequence[str]) -> list[Node]:
        families: dict[int, list[int]] = {}
        for index, node in enumerate(nodes):
            families.setdefault(id(node.where[0]), []).append(index)
        children: dict[int, Node] = {}
        for family in families.values():  # siblings live in one batch, and a beam is one family
            state = nodes[family[0]].where[0].select(self._rows([nodes[index].where[1] for index in family]))
            said = [(*nodes[index].said, sentences[index]) for index in family]
            children |= dict(zip(family, self._carry_out(state, said), strict=True))
        return [children[index] for index in range(len(nodes))]

    def _carry_out(self, state: WorldState, said: Sequence[tuple[str, ...]]) -> list[Node]:
        """The last sentence of each in its dream; one that succeeds stops there."""
        read = self.world.read([sentences[-1] for sentences in said])
        made: list[Node | None] = [None] * len(said)
        going = np.arange(len(said))
        for when in range(self.world.config.frames_per_action):
            state, outcome = self.world.step(state, self.world.act(state, read[self._rows(going)]))
            reward, success = (figures.cpu().numpy() for figures in (outcome.reward, outcome.success))
            if not self.judged:
                reward, success = np.full_like(reward, np.nan), np.zeros_like(success)
            over = (success > 0.5) | (when == self.world.config.frames_per_action - 1)
            if over.any():
                stopped = state.select(self._rows(np.flatnonzero(over)))
                for row, now in enumerate(np.flatnonzero(over)):
                    index = going[now]
                    made[index] = self._node(said[index], float(reward[now]), float(success[now]), stopped, row)
                if over.all():
                    break
                state, going = state.select(self._rows(np.flatnonzero(~over))), going[~over]
        return [node for node in made if node is not None]

    def _node(self, said: tuple[str, ...], reward: float, success: float, batch: WorldState, row: int) -> Node:
        def look() -> np.ndarray:
            return self.world.render(batch.select(self._rows([row])))[0].cpu().numpy()

        return Node(self.instruction, said, reward, success, look, (batch, row))

    def _rows(self, rows: Sequence[int] | np.ndarray) -> torch.Tensor:
        return torch.as_tensor(rows, dtype=torch.long, device=self.world.device)


class TwinFutures:
    """Sentences are carried out on the twin's true physics and taken back: a search's upper bound.

    Args:
        env: the twin with `action_mode="text"`, as it stands and with the instruction it has.
    """

    def __init__(self, env: gym.Env):
        if not isinstance(env.action_space, gym.spaces.Text):
            raise ValueError(f"the twin's actions are {env.action_space}; make it with action_mode='text'")
        self.env = env

    @property
    def instruction(self) -> str:
        return self.env.get_wrapper_attr("instruction")

    def ground(self, observation: np.ndarray) -> Node:
        """The simulator knows where it stands; the observation is what it looks like."""
        return Node(self.instruction, (), float("nan"), 0.0, lambda: observation, self._snapshot())

    def extend(self, nodes: Sequence[Node], sentences: Sequence[str]) -> list[Node]:
        before, made = self._snapshot(), []
        for node, sentence in zip(nodes, sentences, strict=True):
            self.env.get_wrapper_attr("restore")(node.where)
            frame, _, _, _, info = self.env.unwrapped.step(sentence)  # past the wrappers: no time passes
            # A sentence's reward is a sum over its frames; what standing here is worth takes a step at rest.
            rest = 0.0 if info["success"] else self.env.get_wrapper_attr("evaluate")(np.zeros((1, 1, 2)))[0]
            made.append(self._node((*node.said, sentence), float(rest), float(info["success"]), frame))
        self.env.get_wrapper_attr("restore")(before)
        return made

    def _node(self, said: tuple[str, ...], reward: float, success: float, frame: np.ndarray) -> Node:
        return Node(self.instruction, said, reward, success, lambda: frame, self._snapshot())

    def _snapshot(self) -> bytes:
        return self.env.get_wrapper_attr("snapshot")()


# -- choose -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TextPlan:
    """What a search thinks best."""

    sentences: tuple[str, ...]
    value: float
    """The judge's."""
    success: float
    """Probability that the instruction is then fulfilled."""
    tried: int
    """Sentences simulated."""


class TreeSearch:
    """What both searches share; a subclass says in which order nodes are extended.

    A value that is not finite is never chosen.

    Args:
        futures: where sentences are tried.
        propose: what could be said next.
        judge: how good a future is.
        depth: sentences looked ahead.
    """

    def __init__(self, futures: Futures, propose: Proposer, judge: Judge = by_reward, depth: int = 2):
        if depth < 1:
            raise ValueError(f"depth is {depth}; it must be at least 1")
        self.futures, self.propose, self.judge, self.depth = futures, propose, judge, depth
        self.tried = 0

    def plan(self, root: Node, refuted: Collection[str] = ()) -> TextPlan:
        """The best sentences found; the fewest, where some fulfil the instruction.

        Args:
            refuted: what is not to be said first, unless nothing else is proposed.

        Raises:
            ValueError: nothing was proposed at the root.
            FloatingPointError: no value is finite.
        """
        raise NotImplementedError

    def _extend(self, nodes: Sequence[Node], refuted: Collection[str]) -> list[tuple[float, Node]]:
        """All proposed children of these nodes, simulated in one batch: those of finite value, best first."""
        pairs: list[tuple[Node, str]] = []
        for node in nodes:
            proposed = self.propose(node.instruction, node)
            if not node.said:
                proposed = [sentence for sentence in proposed if sentence not in refuted] or proposed
            pairs += [(node, sentence) for sentence in proposed]
        if not pairs:
            return []
        self.tried += len(pairs)
        children = self.futures.extend(*(list(part) for part in zip(*pairs, strict=True)))
        values = np.asarray(self.judge(children[0].instruction, children), np.float64)
        if values.shape != (len(children),):
            raise ValueError(f"the judge returned shape {values.shape} for {len(children)} futures")
        order = [index for index in np.argsort(-values, kind="stable") if np.isfinite(values[index])]
        return [(float(values[index]), children[index]) for index in order]

    def _made(self, best: tuple[float, Node] | None) -> TextPlan:
        if not self.tried:
            raise ValueError("the proposer proposed nothing to say")
        if best is None:
            raise FloatingPointError("the judge gave no future a finite value")
        value, node = best
        return TextPlan(node.said, value, node.success, self.tried)


class BeamSearch(TreeSearch):
    """Level by level, the best few of each level are extended; ends at the first level with a success.

    Args:
        breadth: futures extended at each level.
    """

    def __init__(self, futures: Futures, propose: Proposer, judge: Judge = by_reward, depth: int = 2, breadth: int = 4):
        super().__init__(futures, propose, judge, depth)
        if breadth < 1:
            raise ValueError(f"breadth is {breadth}; it must be at least 1")
        self.breadth = breadth

    def plan(self, root: Node, refuted: Collection[str] = ()) -> TextPlan:
        best: tuple[float, Node] | None = None
        level, self.tried = [root], 0
        for _ in range(self.depth):
            ranked = self._extend(level, refuted)
            if solved := [found for found in ranked if found[1].solved]:
                return self._made(solved[0])
            if ranked and (best is None or ranked[0][0] > best[0]):
                best = ranked[0]
            level = [node for _, node in ranked[: self.breadth]]
            if not level:
                break
        return self._made(best)


class BestFirstSearch(TreeSearch):
    """Always extends the most valuable future there is, wherever it stands; ends at the first success.

    Args:
        breadth: futures extended in all, the root included.
    """

    def __init__(self, futures: Futures, propose: Proposer, judge: Judge = by_reward, depth: int = 2, breadth: int = 5):
        super().__init__(futures, propose, judge, depth)
        if breadth < 1:
            raise ValueError(f"breadth is {breadth}; it must be at least 1")
        self.breadth = breadth

    def plan(self, root: Node, refuted: Collection[str] = ()) -> TextPlan:
        best: tuple[float, Node] | None = None
        self.tried, order = 0, count(1)
        frontier: list[tuple[float, int, Node]] = [(-np.inf, 0, root)]
        for _ in range(self.breadth):
            if not frontier:
                break
            ranked = self._extend([heappop(frontier)[2]], refuted)
            if solved := [found for found in ranked if found[1].solved]:
                return self._made(solved[0])
            if ranked and (best is None or ranked[0][0] > best[0]):
                best = ranked[0]
            for value, node in ranked:
                if len(node.said) < self.depth:
                    heappush(frontier, (-value, next(order), node))  # nodes have no order: the first comes first
        return self._made(best)


class TextMPC:
    """Model-predictive control in sentences: searches, says the first sentence of its plan, looks again.

    Where a picture comes back, what was said there before is not said again: it led nowhere, or back here, whatever
    the dream promised.
    """

    def __init__(self, search: TreeSearch):
        self.search = search
        self.plan: TextPlan | None = None
        self._said: list[tuple[np.ndarray, str]] = []

    def reset(self) -> None:
        """Forget the last episode."""
        self.plan, self._said = None, []

    def __call__(self, observation: np.ndarray) -> str:
        """The next sentence, for the real frame uint8 [h, w, 3]."""
        seen = observation.astype(np.float32)
        refuted = {sentence for frame, sentence in self._said if np.abs(frame - seen).mean() < SAME}
        self.plan = self.search.plan(self.search.futures.ground(observation), refuted)
        self._said.append((seen, self.plan.sentences[0]))
        return self.plan.sentences[0]
