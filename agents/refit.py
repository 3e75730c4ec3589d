"""MBPO's periodic refit: every now and then the world learns on from what was really lived.

What happens next is learned; what judges rewards, success and ends stays as it is, since the few frames of one task
tell nothing of the others. The world that learns is the agent's own: a copy in its folder, which a resumed run finds.
"""

import shutil
from pathlib import Path

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback

from worldgym.checkpoint import save_checkpoint
from worldgym.data import Episodes
from worldgym.dreams import DreamOptions, Dreams
from worldgym.listing import find_world
from worldgym.train.dynamics import Batches
from worldgym.world import WorldModel

from .mbpo import Imagination, MixedReplay
from .settings import Learning

FILES = "bpe.json", "starts.npz"
"""Files of a checkpoint besides configuration and weights."""


def own_world(world: str, folder: Path) -> Path:
    """The agent's copy of a world, in `folder`; the one that is there already if it was refitted before."""
    if not folder.exists():
        temporary = folder.with_name(folder.name + ".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name in ("config.json", "model.safetensors", *FILES):
            shutil.copy(find_world(world) / name, temporary / name)
        temporary.rename(folder)
    return folder


class Refit(BaseCallback):
    """Trains a world in place on the agent's `MixedReplay`, and saves it.

    Args:
        world: whose dreams the agent learns from; `folder` is its checkpoint.
        every: real steps from one time to the next.
        steps: optimiser steps each time, of `batch` segments.
        newest: real transitions that are learned from.
        seed: of the segments.
    """

    def __init__(
        self,
        world: WorldModel,
        folder: Path,
        every: int,
        steps: int = 20,
        batch: int = 8,
        learning_rate: float = 1e-4,
        newest: int = 10_000,
        seed: int = 0,
    ):
        super().__init__()
        if min(every, steps, batch, newest) < 1:
            raise ValueError(f"every is {every}, steps {steps}, batch {batch}, newest {newest}; all must be at least 1")
        self.world, self.folder, self.every, self.steps, self.batch = world, folder, every, steps, batch
        self.newest, self.seed = newest, seed
        self.optimizer = torch.optim.AdamW(world.dynamics.parameters(), learning_rate, weight_decay=0.0)
        self.next_at = every

    def _on_training_start(self) -> None:
        self.next_at = self.num_timesteps + self.every

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        """Stable-Baselines3 calls it between acting and learning."""
        if self.num_timesteps >= self.next_at:
            self.next_at = self.num_timesteps + self.every
            self.refit()

    def refit(self) -> None:
        """Learn on. Too early, while no episode is as long as a segment, only the log says so."""
        replay, dynamics = self.model.replay_buffer, self.world.dynamics  # type: ignore[attr-defined]
        assert isinstance(replay, MixedReplay), "MBPO's SAC takes a MixedReplay"
        lived, window = lived_episodes(replay, self.newest, self.world.config.action_size), dynamics.config.window
        long = int((np.diff(lived.starts)[lived.split("train")] > window).sum())
        self.logger.record("refit/episodes", long)
        if not long:
            return
        batches = Batches(lived, self.world.text, self.batch, dynamics.config, 0.0, self.world.device)
        dynamics.train().requires_grad_(True)
        for step in range(self.steps):
            with torch.autocast(self.world.device.type, torch.bfloat16):
                drawn = batches.draw(self.seed, self.num_timesteps + step)
                chances = dynamics.draw_chances(self.world.tokenizer, self.batch, token_noise=0.1)
                loss = dynamics.loss(drawn, self.world.tokenizer, chances)
                total = loss.tokens + 2.0 * loss.guess  # and no judge
            self.optimizer.zero_grad(set_to_none=True)
            total.backward()
            torch.nn.utils.clip_grad_norm_(dynamics.parameters(), 1.0)
            self.optimizer.step()
        dynamics.eval().requires_grad_(False)
        self.logger.record("refit/guess", loss.guess.item())
        extras = {name: (self.folder / name).read_bytes() for name in FILES}
        save_checkpoint(self.folder, self.world.config, self.world.state_dict(), "world", extras)


def mbpo_callbacks(config: Learning, world: WorldModel) -> list[BaseCallback]:
    """What `worldgym learn --agent mbpo` needs besides its agent: imagination, and with --refit a world of its own."""
    dreamed = config.world if config.refit is None else str(own_world(config.world, config.out / "world"))
    dreams = Dreams(64, DreamOptions(dreamed, config.instruction, obs_type="latent"))
    imagination = Imagination(dreams, seed=config.seed)
    if config.refit is None:
        return [imagination]
    return [imagination, Refit(dreams.world, config.out / "world", config.refit, seed=config.seed)]


def lived_episodes(replay: MixedReplay, newest: int, action_size: int) -> Episodes:
    """The newest real transitions as episodes; where one was cut or ended, its last frame is not among them."""
    size = min(replay.size(), max(1, newest // replay.n_envs))
    rows = (replay.pos - size + np.arange(size)) % replay.buffer_size
    over = replay.dones[rows].astype(bool)
    over[-1] = True
    starts = np.concatenate([[0], np.flatnonzero(over.T.flatten()) + 1])
    frames, actions = (
        part[rows].swapaxes(0, 1).reshape(-1, *part.shape[2:]) for part in (replay.frames, replay.actions)
    )
    unjudged = np.zeros((len(frames), 1), bool)
    return Episodes(
        frames=frames,
        actions=actions.astype(np.float32),
        sentences=np.zeros((len(frames), 0), np.int16),
        sentence_actions=np.zeros((len(frames), 0, action_size), np.float32),
        rewards=unjudged.astype(np.float32),
        successes=unjudged,
        terminations=unjudged,
        starts=starts,
        instructions=("nothing",),
        phrase_list=(),
        frames_per_action=1,
        environment="",
    )
