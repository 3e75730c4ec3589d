"""Policies that a recorder acts by: a function of yours, or an agent in a file of Stable-Baselines3.

    worldgym record --env Pusher-v5 --dataset mine/pusher-v0 --policy experts:reach     # experts.py in this folder
    worldgym record --env Pusher-v5 --dataset mine/pusher-v0 --policy sac:pusher.zip

A policy takes what the environment itself observes and returns an action of the environment's own space.
"""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from worldgym.errors import UserError

Policy = Callable[[Any], Any]
"""An observation of the environment -> an action of its space."""
ALGORITHMS = ("a2c", "ddpg", "dqn", "ppo", "sac", "td3")
"""Of Stable-Baselines3."""


def load_policy(spec: str) -> Policy:
    """The policy that `spec` names.

    Args:
        spec: "module:function", of an installed module or one in the current folder; or "algorithm:file.zip", as
            Stable-Baselines3 saves its agents. Such a file holds pickles, which can run code: load your own only.

    Raises:
        UserError: there is no such policy.
    """
    kind, _, name = spec.partition(":")
    if not kind or not name:
        raise UserError(f'the policy is {spec!r}; expected "module:function" or "sac:agent.zip"')
    if name.endswith(".zip"):
        return _agent(kind, Path(name))
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last, so that it hides nothing installed
    try:
        policy = getattr(importlib.import_module(kind), name)
    except ModuleNotFoundError as error:
        raise UserError(f"the policy {spec!r} needs the module {error.name}, which is not there") from None
    except AttributeError:
        raise UserError(f"the policy is {spec!r}, and the module {kind} has no {name}") from None
    if not callable(policy):
        raise UserError(f"the policy {spec!r} is a {type(policy).__name__}; expected a function of an observation")
    return policy


def _agent(algorithm: str, path: Path) -> Policy:
    if algorithm not in ALGORITHMS:
        raise UserError(f"{path} is an agent of {algorithm!r}; agents are of {', '.join(ALGORITHMS)}, as sac:{path}")
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    import stable_baselines3

    try:
        agent = getattr(stable_baselines3, algorithm.upper()).load(path, device="cpu")
    except Exception as error:  # what it raises for a damaged or foreign file has no narrower type
        raise UserError(f"{path} is no agent that {algorithm.upper()} can load: {error}") from error
    return lambda observation: agent.predict(observation, deterministic=True)[0]
