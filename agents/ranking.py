"""Does a dream rank policies as reality does?

WorldGym's question (Quevedo et al., 2025, arXiv 2506.00613): many policies of every quality are valued in the model and
in reality, from the same first frames, and the values are correlated.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from worldgym.evaluate import Locate
from worldgym.evaluate.rollout import Episode, Policy, episode_statistics, play
from worldgym.metrics import bootstrap, correlation, rank_correlation

MakePolicy = Callable[[str, int], Policy]
"""(instruction, seed) -> a policy for one episode."""


class Start(NamedTuple):
    """Where an episode begins and what it is about."""

    instruction: str
    seed: int


class Nearness(NamedTuple):
    """When a dream has diverged from reality."""

    locate: Locate
    """Finds objects in frames."""
    near: float
    """An object may be this far off, and must be found in the dream."""


class Ranking(NamedTuple):
    """What `rank_policies` found."""

    metrics: dict[str, Any]
    shown: dict[str, tuple[Episode, Episode]]
    """By policy, the first episode in reality and in the dream."""


def draw_starts(instructions: Sequence[str], episodes: int, seed: int) -> list[Start]:
    """Episode i has the seed `seed + i`, and an instruction that is drawn."""
    random = np.random.default_rng(seed)
    return [Start(instructions[int(random.integers(len(instructions)))], seed + index) for index in range(episodes)]


class Mistaken:
    """An agent that does something at random now and then; an agent like any other.

    Args:
        share: of the actions, 0 to 1, that are drawn from the space instead.
        seed: of the mistakes, which are the same in a dream and in reality.
    """

    def __init__(self, agent: Any, share: float, space: gym.Space, seed: int):
        self.agent, self.share, self.space = agent, share, copy.deepcopy(space)
        self.space.seed(seed)
        self.random = np.random.default_rng(seed)

    def predict(self, observation: np.ndarray, deterministic: bool = True) -> tuple[np.ndarray, None]:
        action = self.agent.predict(observation, deterministic=deterministic)[0]
        errs, drawn = self.random.random() < self.share, np.asarray(self.space.sample())
        return (drawn.astype(action.dtype).reshape(action.shape) if errs else action), None


def rank_policies(
    dream: gym.Env,
    twin: gym.Env,
    policies: dict[str, MakePolicy],
    starts: list[Start],
    nearness: Nearness | None = None,
) -> Ranking:
    """Play every policy in both worlds from the same frames.

    Args:
        dream, twin: environments with the same limit of steps. The twin shows pixels; the dream may show its state to
            policies that can act on it.
        nearness: says when a dream whose observations are pixels has diverged; None says nothing about it.
    """
    found, shown, doubts = [], {}, []
    with tqdm(total=len(policies) * len(starts), desc="policies in both worlds", unit="episode") as progress:
        for name, make in policies.items():
            real, dreamed = [], []
            for instruction, seed in starts:
                asked: dict[str, Any] = {"instruction": instruction}
                real.append(play(twin, make(instruction, seed), seed, asked))
                asked["frames"] = real[-1].frames[:1]
                dreamed.append(play(dream, make(instruction, seed), seed, asked))
                progress.update()
            found.append({"policy": name, **_compare(real, dreamed, nearness)})
            shown[name] = real[0], dreamed[0]
            doubts += [(d.uncertainty, abs(d.total - r.total)) for r, d in zip(real, dreamed, strict=True)]
    metrics = {
        "episodes": len(starts),
        "policies": found,
        **_agreement(found, "return", "returns", {"pearson": correlation, "spearman": rank_correlation}),
        **_agreement(found, "success", "successes", {"pearson": correlation}),  # rates tie, and ties have no ranks
        "success_bias": float(np.mean([one["dream"]["success_rate"] - one["mujoco"]["success_rate"] for one in found])),
    }
    if np.isfinite([doubt for doubt, _ in doubts]).all():  # what is imagined in the state alone has no uncertainty
        metrics["uncertainty_against_return_gap"] = rank_correlation(*np.transpose(doubts))
    return Ranking(metrics, shown)


def divergence(real: np.ndarray, dreamed: np.ndarray, locate: Locate, near: float) -> int | None:
    """The first step at which dream and reality differ, counted from 1; None if they never do.

    Args:
        real, dreamed: uint8 [t + 1, h, w, 3], from the same first frame; the shorter one says how long they compare.
    """
    length = min(len(real), len(dreamed))
    apart = np.linalg.norm(locate(real[:length]) - locate(dreamed[:length]), axis=-1)
    lost = np.isnan(locate(dreamed[:length])).any(-1) & ~np.isnan(locate(real[:length])).any(-1)
    steps = np.flatnonzero(((apart > near) | lost).any(-1))
    return int(steps[0]) if len(steps) else None


def _compare(real: list[Episode], dreamed: list[Episode], nearness: Nearness | None) -> dict[str, Any]:
    found = {"mujoco": worth(real), "dream": worth(dreamed)}
    if nearness is None:
        return found
    when = [divergence(r.frames, d.frames, *nearness) for r, d in zip(real, dreamed, strict=True)]
    steps = np.array([np.inf if step is None else step for step in when])
    return found | {
        "diverged": float(np.isfinite(steps).mean()),
        "divergence_step": float(np.quantile(steps, 0.5, method="higher")),
    }


def worth(played: list[Episode]) -> dict[str, Any]:
    """What episodes are worth, together and one by one."""
    returns = [episode.total for episode in played]
    return {
        **episode_statistics(played),
        "return_interval": bootstrap(np.mean, np.array(returns)),
        "returns": returns,
        "successes": [bool(episode.success) for episode in played],
    }


def _agreement(
    found: list[dict[str, Any]], what: str, key: str, statistics: dict[str, Callable[..., float]]
) -> dict[str, Any]:
    """Correlations over policies of their means in the two worlds; 95% bootstrap intervals over episodes."""
    dreamed, real = (np.array([one[side][key] for one in found], float).T for side in ("dream", "mujoco"))
    agreement: dict[str, Any] = {}
    for name, statistic in statistics.items():

        def of_means(dreamed: np.ndarray, real: np.ndarray, statistic=statistic) -> float:
            return statistic(dreamed.mean(0), real.mean(0))

        agreement[f"{what}_{name}"] = of_means(dreamed, real)
        agreement[f"{what}_{name}_interval"] = bootstrap(of_means, dreamed, real)
    return agreement
