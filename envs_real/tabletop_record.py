"""Recording the Tabletop into a Minari dataset: a mix of random, goal-seeking and text-skill behaviour.

Episode i depends on (seed, i) alone, so a recording that was killed resumes where it stood and ends up the
same. Finished chunks wait as files under a temporary name; the Minari dataset appears when all are there.
"""

import json
import multiprocessing
import shutil
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import minari
import numpy as np
from minari.data_collector import EpisodeBuffer
from minari.storage import get_dataset_path
from tqdm import tqdm

from .tabletop import FRAMES_PER_TEXT, TabletopEnv, Variation, sample_variation
from .tabletop_skills import phrases, skill_action
from .tabletop_tasks import DIRECTIONS, tasks

CHUNK = 100
EXPLAINED = 8
"""Sentences at each frame for which the controller says what it would do: a sentence means something at every
frame, not only where it was followed."""


@dataclass(frozen=True)
class RecordConfig:
    """Record the Tabletop in MuJoCo into a Minari dataset, with exact pixels."""

    dataset: str = "worldgym/tabletop-v0"
    """Minari id of the dataset to write."""
    episodes: int = 4000
    """How many episodes."""
    steps: int = 48
    """Steps of 0.1 s in each; episodes go on after success, so that every frame has all rewards."""
    seed: int = 0
    """Episode i is drawn from (seed, i)."""
    variation: Literal["nominal", "train", "held_out"] = "nominal"
    """Which tables: the nominal one, or factors of variation drawn from a range in each episode."""
    workers: int = 2
    """Processes that simulate and render."""


def record(config: RecordConfig) -> Path:
    """Write the dataset and return its folder; resumes a killed recording of the same configuration."""
    folder = get_dataset_path(config.dataset)
    partial_folder = folder.with_name(folder.name + ".partial")
    if folder.exists() and not partial_folder.exists():
        raise FileExistsError(
            f"{folder} exists; delete it (minari delete {config.dataset}) or choose another --dataset"
        )
    partial_folder.mkdir(parents=True, exist_ok=True)
    _same_configuration(partial_folder / "config.json", config)

    missing = [
        range(start, min(start + CHUNK, config.episodes))
        for start in range(0, config.episodes, CHUNK)
        if not _chunk_file(partial_folder, start).exists()
    ]
    total = config.episodes * (config.steps + 1)
    done = total - sum(len(chunk) for chunk in missing) * (config.steps + 1)
    with (
        tqdm(total=total, initial=done, unit="frame", desc="recording") as progress,
        multiprocessing.get_context("spawn").Pool(config.workers) as pool,  # a forked EGL context hangs
    ):
        for chunk in missing:
            episodes = []
            for episode in pool.imap(partial(play_episode, config), chunk):
                episodes.append(episode)
                progress.update(len(episode["frames"]))
            _write(
                _chunk_file(partial_folder, chunk.start),
                {k: np.stack([e[k] for e in episodes]) for k in episodes[0]},
            )

    if folder.exists():  # a conversion that was killed: its source is still complete
        shutil.rmtree(folder)
    _to_minari(config, partial_folder)
    shutil.rmtree(partial_folder)
    return folder


def play_episode(config: RecordConfig, index: int) -> dict[str, np.ndarray]:
    """One episode: behaviours change every 16 steps. Arrays are indexed by frame, [steps + 1, ...], except
    `actions` [steps, 2]. `sentences` [steps + 1, 8] index `phrases()`, and `sentence_actions` say what the
    controller would do to carry each of them out."""
    rng = np.random.default_rng([config.seed, index])
    env = _environment(config, rng)
    env.reset(seed=int(rng.integers(2**31)))
    skills = phrases(env.colors)
    known = list(skills.values())
    weights = np.array([2.0 if task.verb == "push" and task.target in DIRECTIONS else 1.0 for task in known])
    weights /= weights.sum()

    frames, positions, actions = [env.render()], [env.positions], []
    judged = [env.all_rewards()]
    for step in range(config.steps):
        if step % FRAMES_PER_TEXT == 0:
            behaviour = rng.choice(["text", "goal", "random"], p=[0.5, 0.3, 0.2])
            choice, motion = rng.choice(len(known), p=weights), rng.normal(size=2)
        motion = 0.85 * motion + 0.5 * rng.normal(size=2)
        if behaviour == "random":
            action = motion
        else:
            noise = 0.08 if behaviour == "text" else 0.4
            action = skill_action(known[choice], env.positions, env.colors) + noise * rng.normal(size=2)
        action = np.clip(action, -1, 1).astype(np.float32)
        env.advance(action)
        frames.append(env.render())
        positions.append(env.positions)
        actions.append(action)
        judged.append(env.all_rewards())
    sentences = rng.integers(len(known), size=(config.steps + 1, EXPLAINED))
    return {
        "frames": np.stack(frames),
        "positions": np.stack(positions),
        "rewards": np.stack([rewards for rewards, _ in judged]),
        "successes": np.stack([successes for _, successes in judged]),
        "actions": np.stack(actions),
        "sentences": sentences.astype(np.int16),
        "sentence_actions": np.stack(
            [
                np.stack([skill_action(known[one], where, env.colors) for one in row])
                for row, where in zip(sentences, positions, strict=True)
            ]
        ),
    }


_cached: dict[Variation, TabletopEnv] = {}


def _environment(config: RecordConfig, rng: np.random.Generator) -> TabletopEnv:
    """The worker's table; compiling a model and opening a renderer cost more than an episode."""
    factors = ("mass", "friction", "light", "block_size", "shapes")  # what keeps the instructions' words
    variation = Variation() if config.variation == "nominal" else sample_variation(rng, config.variation, factors)
    if variation not in _cached:
        if len(_cached) >= 32:
            _cached.pop(next(iter(_cached))).close()
        _cached[variation] = TabletopEnv(variation=variation)
    return _cached[variation]


def _to_minari(config: RecordConfig, partial_folder: Path) -> None:
    dataset = None
    env = TabletopEnv()
    for start in tqdm(range(0, config.episodes, CHUNK), desc="writing Minari", unit="chunk"):
        with np.load(_chunk_file(partial_folder, start)) as file:
            chunk = dict(file)
        buffers = [
            _buffer(index, {key: value[index - start] for key, value in chunk.items()})
            for index in range(start, start + len(chunk["frames"]))
        ]
        if dataset is None:
            dataset = minari.create_dataset_from_buffers(
                config.dataset,
                buffers,
                env="worldgym/TabletopMuJoCo-v0",
                observation_space=env.observation_space,
                action_space=env.action_space,
                algorithm_name="scripted mix: random, goal-seeking, text skills",
                description="Tabletop in MuJoCo, 64x64 pixels, rewards of every instruction in infos",
                author="WorldGym contributors",
                author_email="",
                code_permalink="",
                jpeg_encoding=False,  # JPEG would teach the tokenizer JPEG
                data_format="hdf5",
            )
        else:
            dataset.update_dataset_from_buffer(buffers)
    assert dataset is not None
    dataset.storage.update_metadata(
        {
            "worldgym_instructions": list(tasks(env.colors)),
            "worldgym_phrases": list(phrases(env.colors)),
            "worldgym_frames_per_action": FRAMES_PER_TEXT,
            "worldgym_record": asdict(config),
        }
    )


def _buffer(index: int, episode: dict[str, np.ndarray]) -> EpisodeBuffer:
    steps = len(episode["actions"])
    truncations = np.zeros(steps, bool)
    truncations[-1] = True
    return EpisodeBuffer(
        id=index,
        seed=index,
        observations=episode["frames"],
        actions=episode["actions"],
        rewards=np.zeros(steps, np.float32),  # belongs to an instruction: see infos
        terminations=np.zeros(steps, bool),
        truncations=truncations,
        infos={
            "positions": episode["positions"],
            "rewards": episode["rewards"],
            "successes": episode["successes"],
            "terminations": episode["successes"],
            "sentences": episode["sentences"],
            "sentence_actions": episode["sentence_actions"],
        },
    )


def _chunk_file(folder: Path, start: int) -> Path:
    return folder / f"episodes_{start:06d}.npz"


def _write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    temporary.rename(path)


def _same_configuration(path: Path, config: RecordConfig) -> None:
    """Refuse to mix two recordings in one folder; the number of workers may differ."""
    wanted = {key: value for key, value in asdict(config).items() if key != "workers"}
    if path.exists() and (found := json.loads(path.read_text())) != wanted:
        raise ValueError(
            f"{path.parent} holds a recording begun with {found}; now asked for {wanted}. Delete it or ask for the same"
        )
    path.write_text(json.dumps(wanted))
