"""Dreamed episodes as a Minari dataset, laid out as `worldgym record` lays out real ones: `load_episodes` of data.py
reads both, so that a world, a policy or other code can learn from dreams.

    episodes = dream_episodes(world, frames, actions)
    write_minari("dreams/tabletop-v0", "tabletop", episodes)
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from minari.data_collector import EpisodeBuffer

from .checkpoint import load_config
from .config import WorldConfig
from .episodes import EpisodeFormat
from .errors import UserError
from .listing import find_world
from .storage import write_dataset
from .world import WorldModel, WorldState


@dataclass(frozen=True)
class DreamedEpisode:
    """What was dreamed, and how the world judges every frame under all of its m instructions.

    Row i judges frame i, so the reward of step t is row t + 1, as in `data.Episodes`.
    """

    frames: np.ndarray
    """uint8 [t + 1, h, w, 3]; the first is the tokenizer's picture of the real frame that the dream began from."""
    actions: np.ndarray
    """float32 [t, a]."""
    rewards: np.ndarray
    """float32 [t + 1, m]."""
    successes: np.ndarray
    """bool [t + 1, m]."""
    terminations: np.ndarray
    """bool [t + 1, m]."""
    uncertainty: np.ndarray
    """float32 [t + 1], nats; 0 for the first frame."""
    seed: int


@torch.no_grad()
def dream_episodes(
    world: WorldModel,
    frames: np.ndarray,
    actions: np.ndarray,
    seeds: Sequence[int] | None = None,
    temperature: float = 1.0,
) -> list[DreamedEpisode]:
    """Dream `b` episodes in one batch. They continue after success, so that every frame has all rewards.

    Args:
        frames: uint8 [b, h, w, 3], the real frames to begin from.
        actions: float32 [b, t, a] in [-1, 1].
        seeds: b, one for each dream; 0, 1, 2, ... by default.
        temperature: 0 dreams the likeliest future, 1 the learned spread.
    """
    if frames.ndim != 4 or actions.ndim != 3 or len(frames) != len(actions):
        raise UserError(
            f"frames have shape {frames.shape} and actions {actions.shape}; expected (b, h, w, 3) and (b, t, a)"
        )
    seeds = list(range(len(frames)) if seeds is None else seeds)
    state = world.start(frames[:, None], seeds=seeds, temperature=temperature)
    pictures, judgements, doubts = [world.render(state)], [judge(world, state)], [torch.zeros(len(frames))]
    for action in actions.swapaxes(0, 1):
        state, outcome = world.step(state, np.ascontiguousarray(action))
        pictures.append(world.render(state))
        judgements.append(judge(world, state))
        doubts.append(outcome.uncertainty)
    shown, doubt = (torch.stack([part.cpu() for part in parts], 1).numpy() for parts in (pictures, doubts))
    reward, success, terminated = (torch.stack(part, 1).numpy() for part in zip(*judgements, strict=True))
    return [
        DreamedEpisode(
            frames=shown[index],
            actions=actions[index].astype(np.float32),
            rewards=reward[index],
            successes=success[index] > 0,
            terminations=terminated[index] > 0,
            uncertainty=doubt[index],
            seed=int(seed),
        )
        for index, seed in enumerate(seeds)
    ]


def write_minari(
    dataset_id: str, world: str, episodes: Sequence[DreamedEpisode], instruction: str | None = None
) -> Path:
    """Write dreamed episodes with exact pixels, and return the dataset's folder.

    Args:
        dataset_id: Minari's, such as "dreams/tabletop-v0"; it must not exist yet.
        world: the bundled name or checkpoint folder of the world that dreamed; the dataset's environment.
        instruction: whose rewards are the dataset's own, the world's first by default; the infos have all of them.
    """
    config, _ = load_config(find_world(world))
    if instruction is not None and instruction not in config.instructions:
        raise UserError(f"unknown instruction {instruction!r}; the world judges {'; '.join(config.instructions)}")
    column = 0 if instruction is None else config.instructions.index(instruction)
    spec = deepcopy(gym.spec("worldgym/Dream-v0"))
    spec.kwargs["world"] = world
    buffers = []
    for index, one in enumerate(episodes):
        said = {name: getattr(one, name) for name in ("rewards", "successes", "terminations", "uncertainty")}
        buffers.append(episode_buffer(index, one.frames, one.actions, said, column, one.seed))
    return write_dataset(
        dataset_id,
        buffers,
        format_of(config),
        "dreamed",
        f"Dreams of the world {config.name!r}, rewards of every instruction in infos",
        spec,
    )


def format_of(config: WorldConfig) -> EpisodeFormat:
    """What all episodes of a world, real or dreamed, have in common."""
    return EpisodeFormat(
        config.tokenizer.resolution, config.action_size, config.instructions, config.phrases, config.frames_per_action,
        config.actions,
    )  # fmt: skip


def episode_buffer(
    index: int,
    frames: np.ndarray,
    actions: np.ndarray,
    said: dict[str, np.ndarray],
    column: int = 0,
    seed: int | None = None,
) -> EpisodeBuffer:
    """An episode as `load_episodes` reads it, cut off after its last step.

    Args:
        frames: uint8 [t + 1, h, w, 3].
        actions: float32 [t, a].
        said: of each frame, by name: rewards, successes and terminations [t + 1, m], and what else there is.
        column: the instruction whose rewards are Minari's own.
    """
    steps = len(actions)
    return EpisodeBuffer(
        id=index,
        seed=seed,
        observations=frames,
        actions=actions,
        rewards=said["rewards"][1:, column],
        terminations=np.zeros(steps, bool),
        truncations=np.arange(steps) == steps - 1,
        infos={
            **said,
            # What a sentence means is known of the Tabletop's real frames alone; here -1 says of none.
            "sentences": np.full((steps + 1, 1), -1, np.int16),
            "sentence_actions": np.zeros((steps + 1, 1, actions.shape[1]), np.float32),
        },
    )


@torch.no_grad()
def judge(world: WorldModel, state: WorldState) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Reward, and logits of success and of the end, [b, m] each, of the newest frames under all instructions."""
    heads, count = world.dynamics.outcome_heads, len(world.config.instructions)
    asked = world.read_instructions(list(world.config.instructions)).repeat(len(state), 1)
    votes = heads(heads.features(state.fused, world.motion(state)).repeat_interleave(count, 0), asked)
    reward, success, terminated = (vote.mean(0).view(len(state), count).float().cpu() for vote in votes)
    return reward, success, terminated
