"""How well a dream stands in for reality: does it rank policies alike, and where do its plans still work?

The first question is WorldGym's (Quevedo et al., 2025, arXiv 2506.00613): many policies are valued in the model and in
reality, from the same first frames, and the values are correlated.
"""

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


class Cell(NamedTuple):
    """A table of the zero-shot grid."""

    factor: str
    value: str
    trained: bool
    """Inside the training's range; the first cell of a grid is the nominal one."""
    twin: gym.Env
    starts: list[Start]


class Ranking(NamedTuple):
    """What `rank_policies` found."""

    metrics: dict[str, Any]
    shown: dict[str, tuple[Episode, Episode]]
    """By policy, the first episode in reality and in the dream."""


def draw_starts(instructions: Sequence[str], episodes: int, seed: int) -> list[Start]:
    """Episode i has the seed `seed + i`, and an instruction that is drawn."""
    random = np.random.default_rng(seed)
    return [Start(instructions[int(random.integers(len(instructions)))], seed + index) for index in range(episodes)]


def rank_policies(
    dream: gym.Env, twin: gym.Env, policies: dict[str, MakePolicy], starts: list[Start], locate: Locate, near: float
) -> Ranking:
    """Play every policy in both worlds from the same frames.

    Args:
        dream, twin: environments with pixels for observations, and with the same limit of steps.
        locate: finds objects in frames.
        near: dream and reality have diverged once an object is further apart than this, or is lost in the dream.
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
            found.append({"policy": name, **_compare(real, dreamed, locate, near)})
            shown[name] = real[0], dreamed[0]
            doubts += [(d.uncertainty, abs(d.total - r.total)) for r, d in zip(real, dreamed, strict=True)]
    metrics = {
        "episodes": len(starts),
        "policies": found,
        **_agreement(found, "return", "returns", {"pearson": correlation, "spearman": rank_correlation}),
        **_agreement(found, "success", "successes", {"pearson": correlation}),  # rates tie, and ties have no ranks
        "success_bias": float(np.mean([one["dream"]["success_rate"] - one["mujoco"]["success_rate"] for one in found])),
        "uncertainty_against_return_gap": rank_correlation(*np.transpose(doubts)),
    }
    return Ranking(metrics, shown)


def zero_shot(cells: list[Cell], policies: dict[str, MakePolicy]) -> list[dict[str, Any]]:
    """Success of each policy on each table; `cost` is what a table takes off its nominal success rate, in points."""
    rows: list[dict[str, Any]] = []
    total = len(policies) * sum(len(cell.starts) for cell in cells)
    with tqdm(total=total, desc="zero shot", unit="episode") as progress:
        for name, make in policies.items():
            nominal = None
            for cell in cells:
                played = []
                for instruction, seed in cell.starts:
                    played.append(play(cell.twin, make(instruction, seed), seed, {"instruction": instruction}))
                    progress.update()
                found = _listed(played)
                nominal = found["success_rate"] if nominal is None else nominal
                table = {"policy": name, "factor": cell.factor, "value": cell.value, "trained": cell.trained}
                rows.append(table | found | {"cost": 100 * (nominal - found["success_rate"])})
    for cell in cells:
        cell.twin.close()
    return rows


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


def _compare(real: list[Episode], dreamed: list[Episode], locate: Locate, near: float) -> dict[str, Any]:
    when = [divergence(r.frames, d.frames, locate, near) for r, d in zip(real, dreamed, strict=True)]
    steps = np.array([np.inf if step is None else step for step in when])
    return {
        "mujoco": _listed(real),
        "dream": _listed(dreamed),
        "diverged": float(np.isfinite(steps).mean()),
        "divergence_step": float(np.quantile(steps, 0.5, method="higher")),
    }


def _listed(played: list[Episode]) -> dict[str, Any]:
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
