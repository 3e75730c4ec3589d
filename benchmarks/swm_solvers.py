"""Solvers of stable-worldmodel plan in our dream and act in MuJoCo. A core takes about ten minutes.

    python -m venv runs/swm && runs/swm/bin/pip install -c constraints.txt -e . "stable-worldmodel==0.1.1"
    runs/swm/bin/python benchmarks/swm_solvers.py tabletop

Its `CEMSolver` under its `WorldModelPolicy`, as its own examples use them. The same solver with the same budget on true
physics is the upper bound, random actions are the floor. Nothing of it is a dependency of WorldGym, so it has an
environment of its own.
"""

import io
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from section import BY_A_DRAFT, Results, Section, estimate, made_by, markdown
from torch import Tensor, nn
from tqdm import tqdm

from worldgym.envs_real.settings import HELD_OUT
from worldgym.evaluate.rollout import Episode, episode_statistics
from worldgym.metrics import bootstrap
from worldgym.planners.interop import DreamCost
from worldgym.results import current_commit, write_results
from worldgym.world import WorldModel


@dataclass(frozen=True)
class Benchmark:
    """Let stable-worldmodel's CEM plan in a dream."""

    world: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WORLD")] = "tabletop"
    """A bundled world with a twin, or a checkpoint folder."""
    instruction: str = "reach the centre"
    """What is asked for."""
    episodes: int = 20
    """In MuJoCo, of each way to plan."""
    horizon: int = 4
    """Blocks of actions looked ahead."""
    block: int = 3
    """Actions in each, free of each other."""
    samples: int = 32
    """Candidates of each round."""
    rounds: int = 2
    """Of each decision, after each of which one block is carried out."""
    seed: int = 0
    json: Path = Path("benchmarks/results/tabletop_stable_worldmodel.json")


class TwinCost(nn.Module):
    """What `DreamCost` is, on true physics of the one environment that is acted in."""

    def __init__(self, env: gym.Env):
        super().__init__()
        self.env = env

    def get_cost(self, info_dict: dict[str, Any], action_candidates: Tensor) -> Tensor:
        sequences = action_candidates[0].flatten(1).unflatten(1, (-1, 2)).clamp(-1, 1)
        returns = self.env.get_wrapper_attr("evaluate")(sequences.numpy())
        return -torch.from_numpy(returns)[None].to(action_candidates)

    criterion = get_cost


def play(config: Benchmark, envs: gym.vector.SyncVectorEnv, cost: nn.Module | None) -> list[Episode]:
    """Episodes of the solver on `cost`, or of random actions."""
    # Here, so that the page of all results can be written without it.
    from stable_worldmodel import PlanConfig
    from stable_worldmodel.policy import WorldModelPolicy
    from stable_worldmodel.solver import CEMSolver

    random = np.random.default_rng(config.seed)
    policy = None
    if cost is not None:
        elites = max(2, config.samples // 6)
        solver = CEMSolver(cost, num_samples=config.samples, n_steps=config.rounds, topk=elites, seed=config.seed)
        policy = WorldModelPolicy(solver, PlanConfig(config.horizon, receding_horizon=1, action_block=config.block))
        policy.set_env(envs)
    played = []
    for index in tqdm(range(config.episodes), desc="random" if cost is None else type(cost).__name__, unit="episode"):
        pixels, _ = envs.reset(seed=(HELD_OUT + config.seed + index) % 2**31)
        frames, rewards, done, success = [pixels[0]], [], False, False
        while not done:
            if policy is None:
                action = random.uniform(-1, 1, envs.action_space.shape).astype(np.float32)
            else:  # the first time, what is left of the last episode's plan is dropped
                info = {"pixels": pixels[:, None], "_needs_flush": np.array([not rewards])}
                with redirect_stdout(io.StringIO()):  # the solver prints the seconds of every decision
                    action = np.clip(policy.get_action(info), -1, 1)
            pixels, reward, terminated, truncated, infos = envs.step(action)
            frames.append(pixels[0])
            rewards.append(float(reward[0]))
            success, done = bool(infos["success"][0]), bool(terminated[0] or truncated[0])
        played.append(Episode(np.stack(frames), np.array(rewards), success, float("nan")))
    return played


def main() -> None:
    config = tyro.cli(Benchmark, description=__doc__)
    commit = current_commit()
    world = WorldModel.load(config.world)
    envs = gym.vector.SyncVectorEnv([lambda: gym.make(world.config.twin, instruction=config.instruction)])
    ways = {
        "the dream": DreamCost(world, config.instruction),
        "true physics": TwinCost(envs.envs[0]),
        "nothing: random actions": None,
    }
    found = {}
    for name, cost in ways.items():
        played = play(config, envs, cost)
        totals = np.array([episode.total for episode in played])
        found[name] = {
            **episode_statistics(played),
            "return_interval": bootstrap(np.mean, totals),
            "returns": totals.tolist(),
        }
        low, high = found[name]["success_interval"]
        rate, mean = found[name]["success_rate"], found[name]["mean_return"]
        print(f"{name}: success {rate:.0%} ({low:.0%} to {high:.0%}), mean return {mean:.2f}")
    envs.close()
    budget = {name: getattr(config, name) for name in ("horizon", "block", "samples", "rounds")}
    about = {"instruction": config.instruction, "episodes": config.episodes, "solver": "CEMSolver", "budget": budget}
    write_results(config.json, config.seed, about | {"plans_on": found}, commit)


# -- the section of docs/results.md -----------------------------------------------------------------------------------


def section(results: Results) -> list[str]:
    m = results["metrics"]
    budget, rows = m["budget"], []
    for name, found in m["plans_on"].items():
        success = estimate(found["success_rate"], found["success_interval"], ".0%")
        rows.append([name, success, estimate(found["mean_return"], found["return_interval"], ".2f")])
    return [
        f"stable-worldmodel's `{m['solver']}` under its `WorldModelPolicy`, through `worldgym.planners.interop`, acts "
        f'in MuJoCo on "{m["instruction"]}": {m["episodes"]} seeded episodes, {budget["samples"]} candidates, '
        f"{budget['rounds']} rounds, {budget['horizon']} blocks of {budget['block']} actions.",
        "",
        *markdown(["it plans on", "success", "return"], rows),
        "",
        BY_A_DRAFT,
        "",
        made_by(results),
    ]


SECTION = Section(
    "Do other people's solvers plan in it?",
    ("tabletop_stable_worldmodel",),
    "python benchmarks/swm_solvers.py tabletop",
    section,
)


if __name__ == "__main__":
    main()
