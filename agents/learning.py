"""Train an agent in a dream or on its real twin, and judge it on the twin.

from worldgym.agents.learning import learn
from worldgym.agents.settings import Learning
from worldgym.envs_real.twins import twin_of

learn(Learning("tabletop", "sac", instruction="reach the centre"), twin_of)
"""

import json
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from tqdm import tqdm

from worldgym.config import WorldConfig
from worldgym.dreams import load_shared
from worldgym.errors import UserError
from worldgym.evaluate.rollout import Episode, Policy, episode_statistics, play
from worldgym.evaluate.video import enlarged, side_by_side, write_video
from worldgym.listing import find_world
from worldgym.metrics import bootstrap
from worldgym.sb3 import DreamVecEnv
from worldgym.train.interrupt import between_steps
from worldgym.world import WorldModel

from . import AGENTS
from .actor_critic import ActorCritic, recorded_states
from .observers import SeeAlone, SeenVecEnv
from .ranking import Mistaken
from .settings import Learning

Agent = PPO | SAC | ActorCritic
MakeTwin = Callable[[WorldConfig, str], gym.Env]
"""A world and an instruction -> its true environment."""

JUDGED_FROM = 10_000
"""Added to the seed of a judged episode, so that no agent was trained from that start."""


def learn(config: Learning, make_twin: MakeTwin) -> dict[str, Any]:
    """Train, or train further, what is in `config.out`, and judge it.

    Args:
        make_twin: makes the true environment of a world, for an instruction.

    Returns:
        the metrics that `worldgym learn` writes.

    Raises:
        UserError: before anything is written, if what was asked for cannot be done.
    """
    kind = AGENTS[config.agent]
    world = load_shared(config.world, "auto")
    known = world.config.instructions
    instruction = config.instruction or (known[0] if len(known) == 1 else "reach the centre")
    [instruction] = world.known_instructions([instruction])
    config = replace(config, instruction=instruction)
    _check_actions(config.agent, world.config)
    if kind.check is not None:
        resolve_name(kind.check)(world)
    twin = make_twin(world.config, instruction)
    _check_same_run(config)
    if not kind.environments:
        return _judged(config, world, _imagine(config, world), twin)
    envs = make_envs(config, world, twin, make_twin)
    model = _model(config, envs, world)
    _claim(config)
    progress = Progress(config)
    callbacks: list[BaseCallback] = [progress]
    if kind.callbacks is not None:
        callbacks += resolve_name(kind.callbacks)(config, world)
    if model.num_timesteps < config.steps:
        left = config.steps - model.num_timesteps  # Stable-Baselines3 counts on from what is there
        fresh = model.num_timesteps == 0
        with between_steps() as progress.interrupted:
            model.learn(left, callbacks, log_interval=1, tb_log_name="log", reset_num_timesteps=fresh)
            save(model, config.out)
            if progress.interrupted():
                raise KeyboardInterrupt(f"saved at step {model.num_timesteps}; the same command continues from there")
    envs.close()
    return _judged(config, world, model, twin)


def _judged(config: Learning, world: WorldModel, model: Agent, twin: gym.Env) -> dict[str, Any]:
    """The metrics of `learn`, and a video of some episodes. Closes the twin."""
    assert config.sees is not None
    judged = judge(model, world, twin, config.episodes, config.seed, config.sees)
    twin.close()
    write_video(config.out / "episodes.gif", enlarged(side_by_side([episode.frames for episode in judged[:6]])))
    return {
        "world": world.config.name,
        "agent": config.agent,
        "learned_in": config.where,
        "instruction": config.instruction,
        "discount": config.discount,
        "sees": config.sees,
        "steps": model.num_timesteps,
        "real_steps": 0 if config.where == "dream" else model.num_timesteps,
        "refit_every": config.refit,
        **figures(judged),
    }


def make_envs(config: Learning, world: WorldModel, twin: gym.Env, make_twin: MakeTwin) -> VecEnv:
    """Where the agent acts: dreams as long as the twin's episodes, or twins that it sees as a dream would show them."""
    count, instruction = AGENTS[config.agent].environments, config.instruction
    assert instruction is not None and config.sees is not None
    if config.where == "dream":
        limit = config.horizon or (twin.spec.max_episode_steps if twin.spec is not None else None)
        envs: VecEnv = DreamVecEnv(
            "worldgym/Dream-v0", count, limit, world=config.world, instruction=instruction,
            obs_type=config.sees, starts=config.starts, imagined=config.sees == "state",
        )  # fmt: skip
        envs.reset()  # which says what is wrong with --starts, before anything is written
        envs.seed(config.seed)
        return envs
    twins = make_vec_env(lambda: make_twin(world.config, instruction), count, config.seed)
    return twins if config.sees == "pixels" else SeenVecEnv(twins, world, config.sees)


def judge(model: Agent, world: WorldModel, twin: gym.Env, episodes: int, seed: int, sees: str) -> list[Episode]:
    """Episodes on the twin, without exploration. Episode i begins alike whatever acts."""
    return [
        play(twin, policy_of(model, world, sees), JUDGED_FROM + seed + index)
        for index in tqdm(range(episodes), desc="judged on the twin", unit="episode")
    ]


def policy_of(model: Agent | Mistaken, world: WorldModel, sees: str) -> Policy:
    """What the agent does, for one episode."""
    if sees != "pixels":
        return SeeAlone(model, world, sees)
    return lambda observation: model.predict(observation, deterministic=True)[0]


def load_policy(folder: Path, world: WorldModel, age: str = "") -> tuple[Agent, Learning]:
    """An agent that `learn` left in a folder, and how it was made.

    Args:
        world: that it acts in.
        age: of an earlier checkpoint, as `checkpoints` gives it.
    """
    if not (folder / "learning.json").exists():
        raise FileNotFoundError(f"{folder} holds no agent; `worldgym learn WORLD --out {folder}` makes one")
    made = json.loads((folder / "learning.json").read_text(encoding="utf-8"))
    kind = AGENTS[made["agent"]]
    load, path = resolve_name(kind.load).load, folder / f"agent{age}{kind.suffix}"
    # The replay buffer is no part of a policy, and acting takes none.
    policy = load(path, custom_objects={"buffer_size": 1}) if kind.environments else load(path, world)
    return policy, Learning(**{**made, "out": folder, "json": None})


def checkpoints(folder: Path) -> list[str]:
    """The ages of an agent's checkpoints, oldest first, for `load_policy`."""
    paths = [path for suffix in {kind.suffix for kind in AGENTS.values()} for path in folder.glob(f"agent_*{suffix}")]
    return sorted(path.stem.removeprefix("agent") for path in paths)


def _imagine(config: Learning, world: WorldModel) -> ActorCritic:
    """An agent that acts in no environment, once it has learned what was asked for."""
    kind = AGENTS[config.agent]
    there = config.out / f"agent{kind.suffix}"
    agent = ActorCritic.load(there, world) if there.exists() else resolve_name(kind.make)(config, world)
    saved = agent.num_timesteps
    _claim(config)

    def between_updates() -> bool:
        nonlocal saved
        if agent.num_timesteps - saved >= config.save_every:
            saved = agent.num_timesteps
            save(agent, config.out, kind.suffix)
        return not interrupted()

    with between_steps() as interrupted:
        if agent.num_timesteps < config.steps:
            assert config.instruction is not None
            states = recorded_states(world, config.starts, config.instruction, config.seed)
            agent.learn(states, config.steps, config.seed, config.out / "tensorboard", between_updates)
            save(agent, config.out, kind.suffix)
        if interrupted():
            raise KeyboardInterrupt(f"saved at update {agent.num_timesteps}; the same command continues from there")
    return agent


def figures(judged: list[Episode]) -> dict[str, Any]:
    """Success and return with 95% intervals."""
    return {
        "episodes": len(judged),
        **episode_statistics(judged),
        "return_interval": bootstrap(np.mean, np.array([episode.total for episode in judged])),
        "by_episode": [
            {"success": episode.success, "return": episode.total, "steps": len(episode.rewards)} for episode in judged
        ],
    }


class Progress(BaseCallback):
    """A bar with the newest success rate, and a checkpoint now and then."""

    def __init__(self, config: Learning):
        super().__init__()
        self.config = config
        self.successes: list[bool] = []
        self.interrupted: Callable[[], bool] = lambda: False
        """Whether to stop after this step."""

    def _on_training_start(self) -> None:
        self.saved = self.model.num_timesteps
        self.bar = tqdm(
            total=self.config.steps, initial=self.saved, desc=f"{self.config.agent} in {self.config.where}", unit="step"
        )

    def _on_step(self) -> bool:
        for done, info in zip(self.locals["dones"], self.locals["infos"], strict=True):
            if done:
                self.successes.append(bool(info["success"]))
        self.logger.record_mean("rollout/reward", float(np.mean(self.locals["rewards"])))
        self.bar.update(self.num_timesteps - self.bar.n)
        if self.successes:
            rate = float(np.mean(self.successes[-100:]))
            self.bar.set_postfix(success=f"{rate:.0%}")
            self.logger.record("rollout/success_of_last_100", rate)
        return not self.interrupted()

    def _on_rollout_end(self) -> None:
        if self.num_timesteps - self.saved >= self.config.save_every:
            self.saved = self.num_timesteps
            save(self.model, self.config.out)

    def _on_training_end(self) -> None:
        self.logger.dump(self.num_timesteps)  # which Stable-Baselines3 does at the ends of episodes alone
        self.bar.close()


def save(model: Any, out: Path, suffix: str = ".zip") -> None:
    """Agent and replay buffer, each in one rename, and a copy of the agent under its age: a policy in its making."""
    if isinstance(model, OffPolicyAlgorithm):
        model.save_replay_buffer(out / "replay.new.pkl")
        (out / "replay.new.pkl").rename(out / "replay.pkl")
    for name in (f"agent_{model.num_timesteps:07d}", "agent"):
        model.save(out / f"new{suffix}")
        (out / f"new{suffix}").rename(out / f"{name}{suffix}")


def _check_actions(agent: str, world: WorldConfig) -> None:
    """A UserError if the agent cannot act in the world's space."""
    space = world.codec.space
    kind = type(space).__name__
    takes = f"the world {world.name!r} takes actions in {space}"
    if kind not in AGENTS[agent].acts:
        others = " or ".join(f"--agent {name}" for name, other in AGENTS.items() if kind in other.acts)
        remedy = others or "register a wrapper of the environment whose space is one of those, and record that"
        raise UserError(f"{takes}, and {agent} learns in {' and '.join(AGENTS[agent].acts)} alone: {remedy}")
    if isinstance(space, (gym.spaces.Discrete, gym.spaces.MultiDiscrete)) and np.any(space.start):
        raise UserError(f"{takes}, and Stable-Baselines3 counts categories from 0: record a wrapper that shifts them")
    if not isinstance(space, gym.spaces.Discrete) and len(space.shape or ()) != 1 and kind != "Box":
        raise UserError(
            f"{takes}, and Stable-Baselines3 takes no {kind} of several axes: record a wrapper that is flat"
        )


def _check_same_run(config: Learning) -> None:
    """A UserError if the folder holds another run than this one; steps and judging may change."""
    path = config.out / "learning.json"
    if not path.exists():
        return
    fixed = (
        "agent", "where", "instruction", "sees", "discount", "updates", "starts", "horizon", "real_ratio",
        "refit", "seed",
    )  # fmt: skip
    mine = asdict(config)
    # What a run of an earlier release could not be asked for was as it is by default.
    there = {field.name: field.default for field in fields(Learning)} | json.loads(path.read_text(encoding="utf-8"))
    changed = [key for key in fixed if there[key] != mine[key]]
    if find_world(there["world"]).resolve() != find_world(config.world).resolve():
        changed.append("world")
    if changed:
        was = ", ".join(f"{key} {there[key]!r}" for key in changed)
        raise UserError(f"{config.out} holds another run ({was}); continue with that, or name another --out")
    if there["steps"] > config.steps:
        raise UserError(
            f"{config.out} holds a run to step {there['steps']}; --steps {config.steps} is in its past. Name "
            "another --out, or as many steps again to judge it again"
        )


def _claim(config: Learning) -> None:
    """Take the folder for this run."""
    mine = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(config).items()}
    config.out.mkdir(parents=True, exist_ok=True)
    (config.out / "learning.json").write_text(json.dumps(mine, indent=1) + "\n", encoding="utf-8")


def _model(config: Learning, envs: VecEnv, world: WorldModel) -> PPO | SAC:
    """The agent as it was left, or a new one."""
    kind, there = AGENTS[config.agent], config.out / "agent.zip"
    if there.exists():
        model = resolve_name(kind.load).load(there, env=envs)
        if isinstance(model, OffPolicyAlgorithm):
            model.load_replay_buffer(config.out / "replay.pkl")
        # Random draws need not repeat those of the first part, and may not: another seed for another part.
        model.set_random_seed(config.seed + model.num_timesteps)
        return model
    torch.manual_seed(config.seed)
    return resolve_name(kind.make)(config, envs, world)
