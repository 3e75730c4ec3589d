"""MBPO (Janner et al., 2019, arXiv 1906.08253) around Stable-Baselines3's SAC, which is left as it is.

The agent acts in a real environment. After every few real steps the world dreams short branches from frames that were
really seen, with the agent's newest policy, and SAC learns from a mixture: `real_ratio` of a batch is real. So MBPO is
a replay buffer that mixes, and a callback that dreams. The world is learned already and stays as it is, unless it is
refitted on the way to what was lived, a callback more (refit.py).

    replay = {"real_ratio": 0.2, "imagined_size": 20_000, "frame_shape": (64, 64, 3)}
    agent = sac(SeenVecEnv(twins, world), world.config, seed, log, MixedReplay, replay, updates=2.0)
    agent.learn(5_000, callback=Imagination(Dreams(64, DreamOptions("tabletop", instruction, obs_type="latent"))))
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Space
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecEnv

from worldgym.dreams import Dreams
from worldgym.errors import UserError
from worldgym.world import WorldModel

from .sac import HalfReplay, sac
from .settings import Learning


class MixedReplay(HalfReplay):
    """Real transitions, the frames they began at, and imagined transitions; a batch is a mixture of the two kinds.

    Args:
        real_ratio: share of a batch that is real, once anything was imagined.
        imagined_size: imagined transitions remembered; the oldest go first, for they are of older policies.
        frame_shape: of a real frame, (h, w, 3).
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: Space,
        action_space: Space,
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        *,
        real_ratio: float,
        imagined_size: int,
        frame_shape: Sequence[int],
    ):
        if not 0.0 <= real_ratio <= 1.0:
            raise ValueError(f"real_ratio is {real_ratio}; it is a share, between 0 and 1")
        super().__init__(buffer_size, observation_space, action_space, device, n_envs, optimize_memory_usage)
        self.real_ratio = real_ratio
        self.imagined = HalfReplay(imagined_size, self.observation_space, self.action_space, self.device)
        self.frames = np.zeros((self.buffer_size, self.n_envs, *frame_shape), np.uint8)
        """At which each real transition began."""

    def arrays(self) -> list[str]:
        return [*super().arrays(), "frames"]

    def add(self, obs, next_obs, action, reward, done, infos) -> None:
        for index, info in enumerate(infos):
            self.frames[self.pos, index] = info["frame"]
        super().add(obs, next_obs, action, reward, done, infos)

    def draw_frames(self, count: int, random: np.random.Generator) -> np.ndarray:
        """uint8 [count, h, w, 3], at which the agent had to act."""
        when = random.integers(self.size(), size=count)
        return self.frames[when, random.integers(self.n_envs, size=count)]

    def sample(self, batch_size: int, env: Any = None) -> ReplayBufferSamples:
        count = round(batch_size * self.real_ratio) if self.imagined.size() else batch_size
        if count == 0:
            return self.imagined.sample(batch_size)
        real = super().sample(count, env)
        if count == batch_size:
            return real
        parts = zip(real[:5], self.imagined.sample(batch_size - count)[:5], strict=True)
        return ReplayBufferSamples(*(torch.cat(pair) for pair in parts))


class Imagination(BaseCallback):
    """Dreams branches from real frames into the agent's `MixedReplay`.

    Args:
        dreams: with latents for observations; as many as branches each time.
        every: real steps from one time to the next.
        horizon: steps of a branch at the beginning and at the end; in between it grows evenly.
        grown: real steps after which the horizon has reached its end.
        seed: of the frames that are drawn.
    """

    def __init__(
        self, dreams: Dreams, every: int = 32, horizon: tuple[int, int] = (2, 6), grown: int = 2_000, seed: int = 0
    ):
        super().__init__()
        if dreams.options.obs_type != "latent":
            raise ValueError(f"the dreams' obs_type is {dreams.options.obs_type!r}; imagination takes 'latent'")
        if every < 1 or min(horizon) < 1 or grown < 1:
            raise ValueError(f"every is {every}, horizon {horizon} and grown {grown}; all must be at least 1")
        self.dreams, self.every, self.horizon, self.grown, self.seed = dreams, every, horizon, grown, seed
        self.next_at = 0

    def steps_ahead(self) -> int:
        """The horizon now."""
        first, last = self.horizon
        return round(first + (last - first) * min(1.0, self.num_timesteps / self.grown))

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        """Stable-Baselines3 calls it between acting and learning."""
        if self.num_timesteps < max(self.next_at, getattr(self.model, "learning_starts", 0)):
            return
        self.next_at = self.num_timesteps + self.every
        imagined = self.branch(self.steps_ahead())
        self.logger.record("imagination/horizon", self.steps_ahead())
        self.logger.record("imagination/reward", imagined)

    def branch(self, steps: int) -> float:
        """Dream on from real frames with the agent's policy, all transitions remembered; their mean reward."""
        assert isinstance(self.model, SAC)
        replay, dreams = self.model.replay_buffer, self.dreams
        assert isinstance(replay, MixedReplay), "MBPO's SAC takes a MixedReplay"
        random = np.random.default_rng((self.seed, self.num_timesteps))
        dreams.reset(
            seeds=[int(seed) for seed in random.integers(2**31, size=len(dreams))],
            frames=replay.draw_frames(len(dreams), random)[:, None],
        )
        rewards = []
        before = _seen(dreams)
        for _ in range(steps):
            going = ~dreams.over
            if not going.any():
                break
            actions, _ = self.model.predict(before, deterministic=False)
            step = dreams.step([dreams.read(action) for action in actions], going)
            after = _seen(dreams)
            scaled = self.model.policy.scale_action(actions)
            for row in np.flatnonzero(going):  # a branch that is cut has not ended: what follows is bootstrapped
                replay.imagined.add(before[row], after[row], scaled[row], step.reward[row], step.terminated[row], [{}])
            rewards.append(step.reward[going])
            before = after
        return float(np.concatenate(rewards).mean())


def make_mbpo(config: Learning, envs: VecEnv, world: WorldModel) -> SAC:
    """The agent of `worldgym learn --agent mbpo`."""
    size = world.config.tokenizer.resolution
    replay = {"real_ratio": config.real_ratio, "imagined_size": 20_000, "frame_shape": (size, size, 3)}
    updates = 2.0 if config.updates is None else config.updates
    return sac(
        envs, world.config, config.seed, config.out / "tensorboard", MixedReplay, replay,
        updates=updates, discount=config.discount, warm_up=200,
    )  # fmt: skip


def check_one_frame_tells(world: WorldModel) -> None:
    """A UserError if the world is conditioned on several frames: branches begin from one."""
    if (told := world.config.dynamics.observed) > 1:
        raise UserError(
            f"the world {world.config.name!r} is conditioned on {told} frames, and mbpo's branches begin from one; "
            "learn with sac or ppo in the dream"
        )


def _seen(dreams: Dreams) -> np.ndarray:
    """What an agent sees of the newest frames, [b, ...]."""
    observation = dreams.observe()
    assert isinstance(observation, torch.Tensor), "MBPO takes pixels or latents, not both"
    return observation.cpu().numpy()
