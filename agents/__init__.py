"""Agents that learn inside a dream or on its twin: one runnable file each, most of them around Stable-Baselines3's.

An agent is its file and one row of `AGENTS`, by which `worldgym learn --agent NAME` finds it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class AgentKind:
    """One row. It names functions by path, which are imported when they are used: all of them import torch."""

    about: str
    """A line for the help of the command line."""
    make: str
    """(Learning, environments, world) -> a new agent; of one that acts in no environment, (Learning, world)."""
    load: str
    """Its class, whose `load` reads what it has saved."""
    environments: int
    """Next to each other; 0 of an agent that learns by imagination alone. A batch of dreams costs a CPU as much for
    each as a few would, and a GPU next to nothing more."""
    where: tuple[str, ...] = ("dream", "mujoco")
    """Where it can act while it learns."""
    sees: tuple[str, ...] = ("latent", "state", "pixels")
    """What it can be shown, by default the first."""
    suffix: str = ".zip"
    """Of the files that it is saved in."""
    takes: tuple[str, ...] = ()
    """The fields of `Learning` that not all agents have, of which it has these."""
    acts: tuple[str, ...] = ("Box",)
    """The action spaces that it learns in, by Gymnasium's names."""
    check: str | None = None
    """(world) -> None; raises a UserError where it cannot learn from this world."""
    callbacks: str | None = None
    """(Learning, world) -> the callbacks that it needs."""


AGENTS: dict[str, AgentKind] = {
    "ppo": AgentKind(
        "proximal policy optimisation",
        "worldgym.agents.ppo:make_ppo",
        "stable_baselines3:PPO",
        32,
        acts=("Box", "Discrete", "MultiDiscrete", "MultiBinary"),
    ),
    "sac": AgentKind(
        "soft actor-critic", "worldgym.agents.sac:make_sac", "stable_baselines3:SAC", 16, takes=("updates",)
    ),
    "mbpo": AgentKind(
        "acts on the twin and learns from dreamed branches as well",
        "worldgym.agents.mbpo:make_mbpo",
        "stable_baselines3:SAC",
        4,
        where=("mujoco",),
        sees=("latent",),
        takes=("updates", "real_ratio", "refit"),
        check="worldgym.agents.mbpo:check_one_frame_tells",
        callbacks="worldgym.agents.refit:mbpo_callbacks",
    ),
    "actor-critic": AgentKind(
        "an actor and a critic that imagine in the recurrent state, as Dreamer does; its steps are updates",
        "worldgym.agents.actor_critic:make_actor_critic",
        "worldgym.agents.actor_critic:ActorCritic",
        0,
        where=("dream",),
        sees=("state",),
        suffix=".safetensors",
        check="worldgym.agents.actor_critic:check_recurrent",
    ),
}
