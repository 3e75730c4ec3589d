"""Do the libraries that people drive environments with drive a dream? Each that is installed here does a little work.

    .venv/bin/python benchmarks/clients.py --json benchmarks/results/clients.json
    .venv/bin/python benchmarks/clients.py --only tianshou tau-ctrl

The table of docs/clients.md has what it printed. Every row ends in a check by value: an agent has seen as many steps as
it asked for, a planner beats standing still, a data set holds what was played. RLlib pins an older Gymnasium, so it has
an environment of its own (`pip install "ray[rllib]" worldgym`) and a results file of its own (`--only rllib`).
"""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gymnasium as gym
import numpy as np
import ppo_file
import sac_file
import tyro

import worldgym  # noqa: F401  registers the environments
from worldgym.results import current_commit, write_results

ID, GOAL = "worldgym/Tabletop-v0", "reach the centre"


def gymnasium() -> str:
    """Its checker, its vector utilities and a wrapper that turns everything into tensors."""
    import torch
    from gymnasium.utils.env_checker import check_env
    from gymnasium.wrappers import vector

    check_env(gym.make(ID).unwrapped)
    expected = gym.make_vec(ID, 2).reset(seed=0)[0]
    for mode, options in (("sync", {}), ("async", {"vector_kwargs": {"context": "spawn"}})):
        envs = gym.make_vec(ID, 2, vectorization_mode=mode, **options)
        assert np.abs(envs.reset(seed=0)[0].astype(int) - expected).max() <= 1
        envs.close()
    envs = vector.NumpyToTorch(vector.RecordEpisodeStatistics(gym.make_vec(ID, 2, max_episode_steps=3)))
    envs.reset(seed=0)
    for _ in range(3):
        frames, *_, infos = envs.step(torch.zeros(2, 2))
    assert isinstance(frames, torch.Tensor) and infos["episode"]["l"].tolist() == [3, 3]
    return "check_env, SyncVectorEnv, AsyncVectorEnv, RecordEpisodeStatistics, NumpyToTorch"


def ppo() -> str:
    settings = ppo_file.Settings(steps=512, num_envs=8, epochs=1)
    _, returns = ppo_file.train(gym.make_vec(ID, 8, instruction=GOAL), settings)
    assert len(returns) == 2
    return "512 steps on pictures"


def sac() -> str:
    settings = sac_file.Settings(steps=640, random_steps=256, batch=64)
    envs = gym.make_vec(ID, 16, autoreset_mode="SameStep", instruction=GOAL, obs_type="latent", max_episode_steps=10)
    assert len(sac_file.train(envs, settings)[1]) >= 64
    return "640 steps on latent observations"


def stable_baselines3() -> str:
    from stable_baselines3 import DQN, PPO, SAC

    from worldgym.sb3 import DreamVecEnv

    for agent, options in (
        (PPO("CnnPolicy", DreamVecEnv(f"worldgym:{ID}", 4), n_steps=16, batch_size=16), 64),
        (SAC("MlpPolicy", DreamVecEnv(ID, 4, obs_type="latent"), learning_starts=8, buffer_size=100), 32),
        (DQN("CnnPolicy", gym.make(ID, action_mode="discrete"), learning_starts=2, buffer_size=100), 8),
    ):
        assert agent.learn(options).num_timesteps >= options
    return "PPO, SAC and DQN (on sentences) learn"


def sb3_contrib() -> str:
    from sb3_contrib import TQC, RecurrentPPO

    from worldgym.sb3 import DreamVecEnv

    assert TQC("MlpPolicy", DreamVecEnv(ID, 4, obs_type="latent"), learning_starts=8, buffer_size=100).learn(32)
    recurrent = RecurrentPPO("CnnLstmPolicy", DreamVecEnv(ID, 4), n_steps=8, batch_size=16)
    assert recurrent.learn(32).num_timesteps == 32
    return "TQC and RecurrentPPO learn"


def rl_zoo3() -> str:
    with TemporaryDirectory() as folder:
        settings = Path(folder) / "settings.yml"
        settings.write_text(
            f"{ID}:\n  policy: CnnPolicy\n  n_timesteps: 64\n  n_steps: 32\n  batch_size: 32\n", encoding="utf-8"
        )
        subprocess.run(
            [
                sys.executable, "-m", "rl_zoo3.train", "--algo", "ppo", "--env", ID, "--gym-packages", "worldgym",
                "--conf-file", str(settings), "--log-folder", folder, "--eval-freq", "-1", "--device", "cpu",
            ],
            check=True, capture_output=True, cwd=folder,
        )  # fmt: skip
        assert list(Path(folder).rglob("*.zip"))
    return "train --algo ppo --gym-packages worldgym writes an agent"


def torchrl() -> str:
    from torchrl.envs import GymEnv, GymWrapper, check_env_specs

    check_env_specs(GymEnv(ID))
    envs = GymWrapper(gym.make_vec(ID, 2, autoreset_mode="Disabled", max_episode_steps=3))
    check_env_specs(envs)
    assert envs.rollout(6, break_when_any_done=False).batch_size == (2, 6)
    return "check_env_specs of one and of a batch, a rollout"


def tianshou() -> str:
    from tianshou.algorithm import DQN
    from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Collector, VectorReplayBuffer
    from tianshou.env import DummyVectorEnv
    from tianshou.trainer import OffPolicyTrainerParams
    from tianshou.utils.net.common import Net

    def make() -> gym.Env:
        return gym.make(ID, action_mode="discrete", obs_type="latent", max_episode_steps=3)

    env, buffer = make(), VectorReplayBuffer(64, 2)
    model = Net(state_shape=env.observation_space.shape, action_shape=env.action_space.n, hidden_sizes=[32])
    policy = DiscreteQLearningPolicy(model=model, action_space=env.action_space, eps_training=0.5)
    agent = DQN(policy=policy, optim=AdamOptimizerFactory(lr=1e-3), target_update_freq=8)
    steps = OffPolicyTrainerParams(
        training_collector=Collector(agent, DummyVectorEnv([make, make]), buffer), test_collector=None, max_epochs=1,
        epoch_num_steps=24, collection_step_num_env_steps=8, batch_size=8,
        update_step_num_gradient_steps_per_sample=0.25, test_step_num_episodes=0,
    )  # fmt: skip
    assert agent.run_training(steps).train_step == 24 == len(buffer)
    return "Collector and DQN on sentences learn"


def tau_ctrl() -> str:
    from tau_ctrl import make

    returns = {}
    for name in (ID, "worldgym/TabletopMuJoCo-v0"):
        for plans in (True, False):
            env = gym.make(name, instruction=GOAL)
            frame, _ = env.reset(seed=3)
            control = make("mppi", env, horizon=5, n_samples=12, seed=0) if plans else None
            total = 0.0
            for _ in range(6):
                action = control.predict(frame)[0] if control else np.zeros(2)
                frame, reward, terminated, *_ = env.step(np.clip(action, -1, 1).astype(np.float32))
                total += reward
                if terminated:
                    break
            returns[name, plans] = total
            env.close()
        assert returns[name, True] > returns[name, False], returns
    return "MPPI plans by get_state and set_state, in a dream and on its twin"


def minari() -> str:
    import os

    import minari

    with TemporaryDirectory() as folder:
        os.environ["MINARI_DATASETS_PATH"] = folder
        env = minari.DataCollector(gym.make(ID, max_episode_steps=3), record_infos=True)
        env.reset(seed=0)
        rewards = [env.step(env.action_space.sample())[1] for _ in range(3)]
        data = env.create_dataset("test/dream-v0")
        (episode,) = data
        assert episode.rewards.tolist() == rewards and episode.infos["num_frames"].tolist() == [0, 1, 1, 1]
        assert data.recover_environment().unwrapped.world.config.name == "tabletop"
        env.close()
    return "DataCollector with infos, recover_environment"


def lerobot() -> str:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    from worldgym.datasets import dream_episodes
    from worldgym.lerobot import write_lerobot
    from worldgym.world import WorldModel

    with TemporaryDirectory() as folder:
        world = WorldModel.load("tabletop", "cpu")
        frames = np.stack([gym.make(ID).reset(seed=seed)[0] for seed in range(2)])
        episodes = dream_episodes(world, frames, np.zeros((2, 4, 2), np.float32))
        write_lerobot(Path(folder) / "data", "tabletop", episodes)
        assert len(LeRobotDataset("us/dreams", root=Path(folder) / "data")) == 8
    return "LeRobotDataset reads dreamed episodes"


def rllib() -> str:
    """Its runner makes its dreams in a process of Ray's, which knows nothing but their id."""
    import ray
    from ray.rllib.algorithms.ppo import PPOConfig

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    options = {"instruction": GOAL, "obs_type": "latent"}
    settings = (
        PPOConfig()
        .environment(f"worldgym:{ID}", env_config=options)
        .env_runners(num_env_runners=1, num_envs_per_env_runner=2, rollout_fragment_length=16)
        .training(train_batch_size_per_learner=32, minibatch_size=16, num_epochs=1)
    )
    agent = settings.build_algo()
    assert agent.train()["num_env_steps_sampled_lifetime"] == 32
    agent.stop(), ray.shutdown()
    return "PPO learns from latent observations, its environments in a process of Ray's"


@dataclass(frozen=True)
class Client:
    """A row of the table."""

    package: str
    """As pip has it; none for a file of our own."""
    work: Callable[[], str]
    """Does it and says what was done."""


CLIENTS = {
    "gymnasium": Client("gymnasium", gymnasium),
    "ppo": Client("", ppo),
    "sac": Client("", sac),
    "stable-baselines3": Client("stable-baselines3", stable_baselines3),
    "sb3-contrib": Client("sb3-contrib", sb3_contrib),
    "rl-zoo3": Client("rl-zoo3", rl_zoo3),
    "torchrl": Client("torchrl", torchrl),
    "tianshou": Client("tianshou", tianshou),
    "tau-ctrl": Client("tau-ctrl", tau_ctrl),
    "minari": Client("minari", minari),
    "lerobot": Client("lerobot", lerobot),
    "rllib": Client("ray", rllib),
}


@dataclass(frozen=True)
class Config:
    """Let each library that is installed drive a dream."""

    only: tuple[str, ...] = ()
    """Of these names; all by default."""
    json: Path | None = None
    """Write what was run here, with command, commit and hardware."""


def main(config: Config) -> None:
    commit, rows, failed = current_commit(), {}, False
    if unknown := set(config.only) - set(CLIENTS):
        raise SystemExit(f"unknown clients {', '.join(sorted(unknown))}; known are {', '.join(CLIENTS)}")
    for name in config.only or CLIENTS:
        row: dict[str, Any] = {"version": None, "done": None}
        rows[name], client, began = row, CLIENTS[name], time.perf_counter()
        try:
            row["version"] = version(client.package) if client.package else "ours"
        except PackageNotFoundError:
            print(f"{name}: not installed; pip install {client.package}")
            continue
        try:
            row["done"] = client.work()
        except Exception as error:  # one that fails must not hide the others
            row["failed"], failed = f"{type(error).__name__}: {error}"[:500], True
        row["seconds"] = time.perf_counter() - began
        print(f"{name} {row['version']}: {row['done'] or row['failed']} ({row['seconds']:.0f} s)", flush=True)
    if config.json is not None:
        write_results(config.json, 0, rows, commit)
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
