"""The nearest peer in one run with ours: simulusion (formerly TorchWM), whose `WorldModelEnv` makes a `gymnasium.Env`
of a world model, here of its DIAMOND denoiser (arXiv 2405.12399), at the settings published for 64 x 64 pixels: four
frames seen, four levels of 64 channels, two blocks each, three Euler steps. Its weights are random, and it predicts no
reward, for which it would have a second network.

    pip install --no-deps simulusion==1.1.0        # all else that this part of it needs is here
    python benchmarks/peers.py --json benchmarks/results/peers.json
"""

import argparse
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

import worldgym  # noqa: F401  # registers the environments
from worldgym.bench import Dreaming, by_turns, num_parameters
from worldgym.results import current_commit, write_results
from worldgym.world import WorldModel

try:
    from simulusion.envs.world_model_env import WorldModelEnv
    from simulusion.models.diffusion.diamond_diffusion import DiffusionUNet, EulerSampler
except ImportError:
    raise SystemExit("this benchmark needs simulusion: pip install --no-deps simulusion==1.1.0") from None

SEEN = 4
ACTIONS = 4


class Diamond:
    """DIAMOND's next frame, of `count` dreams at once."""

    def __init__(self, count: int):
        self.count = count
        self.network = DiffusionUNet(
            num_conditioning_frames=SEEN, base_channels=64, channel_multipliers=(1, 1, 1, 1), num_res_blocks=2,
            cond_dim=256, action_dim=ACTIONS,
        ).eval().requires_grad_(False)  # fmt: skip
        self.sampler = EulerSampler(num_steps=3)
        self.frames = torch.rand(count, SEEN, 3, 64, 64) * 2 - 1
        self.done = torch.zeros(count, SEEN, dtype=torch.long)

    def step(self, action: torch.Tensor) -> np.ndarray:
        """uint8 [b, 64, 64, 3]."""
        self.done = torch.cat([self.done[:, 1:], action[:, None]], 1)
        drawn = self.sampler.sample(
            self.network, (self.count, 3, 64, 64), torch.device("cpu"), obs_history=self.frames, actions=self.done
        )
        self.frames = torch.cat([self.frames[:, 1:], drawn[:, None]], 1)
        return ((drawn.clamp(-1, 1) + 1) * 127.5).byte().permute(0, 2, 3, 1).numpy()


def peer(count: int):
    """Steps of its environment, one dream; of its network alone for more, for which it has no environment."""
    diamond = Diamond(count)
    if count > 1:
        return lambda: diamond.step(torch.randint(ACTIONS, (count,)))
    env = WorldModelEnv(
        diamond.network,
        observation_space=gym.spaces.Box(0, 255, (64, 64, 3), np.uint8),
        action_space=gym.spaces.Discrete(ACTIONS),
        transition_fn=lambda model, state, action: {
            "state": state, "observation": diamond.step(torch.tensor([int(action)]))[0], "reward": 0.0, "done": False,
        },
    )  # fmt: skip
    env.reset(seed=0)
    return lambda: env.step(env.action_space.sample())


def ours(count: int, compiled: bool):
    """Steps with pixels, from the environment that `gym.make` or `gym.make_vec` gives."""
    if count == 1:
        env = gym.make("worldgym/Tabletop-v0", compiled=compiled, max_episode_steps=100_000)
    else:
        env = gym.make_vec("worldgym/Tabletop-v0", num_envs=count)
    env.reset(seed=0)
    return lambda: env.step(env.action_space.sample())


def pusher(frames: int):
    """So many steps of Gymnasium's Pusher as it comes, each rendered."""
    env = gym.make("Pusher-v5", render_mode="rgb_array", width=64, height=64)
    env.reset(seed=0)
    env.render()

    def run() -> None:
        for _ in range(frames):
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            env.render()
            if terminated or truncated:
                env.reset()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    commit, world = current_commit(), WorldModel.load("tabletop", device="cpu")
    metrics: dict[str, dict] = {}
    for count in (1, 16):
        contenders = {"worldgym": ours(count, False), "simulusion": peer(count)}
        if count == 1:
            contenders["worldgym, compiled"] = ours(count, True)
        spent = by_turns(contenders, arguments.rounds, world, settle=True)
        middle = {name: float(np.median(seconds)) for name, seconds in spent.items()}
        metrics[str(count)] = {
            name: {
                "seconds": seconds,
                "steps_per_second": count / seconds,
                "peer_over_it": middle["simulusion"] / seconds,
            }
            for name, seconds in middle.items()
        }
        for name, figures in metrics[str(count)].items():
            print(f"{count:3d} dreams, {name:20s} {figures['steps_per_second']:7.1f} frames a second")
    frame = np.asarray(gym.make("worldgym/Tabletop-v0").reset(seed=0)[0])[None, None]
    spent = by_turns(
        {"worldgym": Dreaming(world, frame, 64).pixels, "Pusher-v5": pusher(64)}, arguments.rounds, world, True
    )
    middle = {name: float(np.median(seconds)) for name, seconds in spent.items()}
    metrics["64"] = {
        name: {"steps_per_second": 64 / seconds, "pusher_over_it": middle["Pusher-v5"] / seconds}
        for name, seconds in middle.items()
    }
    print(f"64 dreams with pixels over Pusher-v5: {metrics['64']['worldgym']['pusher_over_it']:.1f} times as fast")
    metrics["parameters"] = {
        "worldgym": num_parameters(world),
        "simulusion": num_parameters(Diamond(1).network),
    }
    if arguments.json:
        write_results(arguments.json, 0, metrics, commit)


if __name__ == "__main__":
    main()
