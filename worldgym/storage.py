"""Minari data sets with exact pixels, written whole or not at all, and what their metadata say of their columns."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
from gymnasium.envs.registration import EnvSpec
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_dataset import DATASET_ID_RE, parse_dataset_id
from minari.dataset.minari_storage import MinariStorage
from minari.namespace import create_namespace, list_local_namespaces
from minari.storage import get_dataset_path

from .actions import ActionCodec
from .episodes import EpisodeFormat
from .errors import UserError
from .files import check_room, whole_folder


def check_dataset_id(dataset_id: str) -> None:
    """A UserError if Minari knows no such ids."""
    found = DATASET_ID_RE.fullmatch(dataset_id)
    if found is None or found["version"] is None:
        raise UserError(
            f"{dataset_id!r} cannot name a Minari data set; expected letters, digits, - and _, then a version, and "
            "before it, if at all, a namespace of two letters or more: mine/robot-v0"
        )


def new_dataset_folder(dataset_id: str) -> Path:
    """Where a Minari data set will be.

    Raises:
        UserError: Minari knows no such ids.
        FileExistsError: there is one already.
    """
    check_dataset_id(dataset_id)
    folder = get_dataset_path(dataset_id)
    if folder.exists():
        raise FileExistsError(f"{folder} exists; delete it (minari delete {dataset_id}) or choose another id")
    return folder


def write_dataset(
    dataset_id: str,
    episodes: Iterable[EpisodeBuffer],
    layout: EpisodeFormat,
    algorithm_name: str,
    description: str,
    env: EnvSpec | None = None,
    within: Path | None = None,
    about: dict[str, Any] | None = None,
) -> Path:
    """Write a data set under a temporary name, rename it when it is complete, and return its folder.

    Args:
        episodes: observations and actions as arrays, infos with what `EpisodeFormat.check` looks for.
        env: what makes the environment that was recorded; None if there is none to make.
        within: the folder of the temporary name; the data set's own by default.
        about: further metadata.

    Raises:
        UserError: an episode is not what `layout` says; there are none; Minari knows no such ids.
        FileExistsError: there is such a data set.
        OSError: the disk is full.
    """
    folder = new_dataset_folder(dataset_id)
    with whole_folder(folder, within) as temporary:
        side = layout.resolution
        # Not `minari.create_dataset_from_buffers`, which writes in place and makes the environment.
        storage = MinariStorage.new(
            temporary / "data",
            observation_space=gym.spaces.Box(0, 255, (side, side, 3), np.uint8),
            action_space=gym.spaces.Box(-1.0, 1.0, (layout.action_size,), np.float32),
            env_spec=env,
            data_format="hdf5",
            jpeg_encoding=False,  # JPEG would teach the tokenizer JPEG
        )
        storage.update_metadata(
            {
                "dataset_id": dataset_id,
                "minari_version": minari.__version__,
                "algorithm_name": algorithm_name,
                "description": description,
                "author": {"WorldGym contributors"},
                "author_email": {""},
                "code_permalink": "",
                **to_metadata(layout.instructions, layout.phrases, layout.frames_per_action, layout.actions),
                **(about or {}),
            }
        )
        storage.update_episodes(_checked(dataset_id, episodes, layout, temporary))
        if not storage.total_episodes:
            raise UserError("there are no episodes to write")
        namespace, _, _ = parse_dataset_id(dataset_id)
        if namespace is not None and namespace not in list_local_namespaces():
            create_namespace(namespace)
    return folder


def name_columns(
    dataset_id: str,
    instructions: Sequence[str],
    phrases: Sequence[str] = (),
    frames_per_action: int = 1,
    space: gym.Space | None = None,
) -> None:
    """Say what the columns of a Minari data set mean that another program wrote, so that `load_episodes` reads it.

        name_columns("mine/drawer-v0", ["open the drawer"])

    Args:
        instructions: m, one for each column of rewards, successes and terminations in the infos.
        phrases: what the numbers of `sentences` in the infos stand for.
        frames_per_action: frames that a sentence lasts.
        space: the action space of which the data set holds the vectors, as `ActionCodec(space).encode` makes them;
            Box(-1, 1, (a,)) by default.
    """
    EpisodeFormat(1, 1, tuple(instructions), tuple(phrases), frames_per_action)  # which refuses what cannot be
    described = None if space is None else ActionCodec(space).describe()
    storage = minari.load_dataset(dataset_id).storage
    said = to_metadata(instructions, phrases, frames_per_action, described)
    storage.update_metadata({_ACTIONS: None, **said})  # which replaces what was said before


Columns = tuple[tuple[str, ...], tuple[str, ...], int, dict[str, Any] | None]
"""Instructions, phrases, frames per action and actions, as `EpisodeFormat` has them."""
_KEYS = ("worldgym_instructions", "worldgym_phrases", "worldgym_frames_per_action")
_ACTIONS = "worldgym_actions"


def to_metadata(
    instructions: Sequence[str], phrases: Sequence[str], frames_per_action: int, actions: dict[str, Any] | None
) -> dict[str, Any]:
    """What Minari keeps of `Columns`."""
    named = dict(zip(_KEYS, (list(instructions), list(phrases), frames_per_action), strict=True))
    return named if actions is None else {**named, _ACTIONS: actions}


def read_columns(dataset: minari.MinariDataset) -> Columns:
    """What a data set's metadata say of its columns.

    `minari combine` leaves it out: then it is that of the parts, if they are there and agree.

    Raises:
        UserError: nothing says what the columns mean, or what says it is damaged.
    """
    name, metadata = dataset.spec.dataset_id, dataset.storage.metadata
    remedy = f'worldgym.storage.name_columns("{name}", ["what the reward is for"]) says it'
    if not set(_KEYS) & set(metadata) and dataset.combined_datasets:
        combined = f"data set {name} is combined of {', '.join(dataset.combined_datasets)}"
        try:
            parts = [read_columns(minari.load_dataset(part)) for part in dataset.combined_datasets]
        except FileNotFoundError:
            raise UserError(
                f"{combined}, which are not all here to say what its columns of rewards mean; {remedy}"
            ) from None
        if any(part != parts[0] for part in parts):
            raise UserError(f"{combined}, whose instructions, phrases, frames per action or actions differ; {remedy}")
        return parts[0]
    if not set(_KEYS) & set(metadata):
        raise UserError(
            f"dataset {name} has no rewards by instruction: `worldgym record` writes such data sets; if its infos "
            f"have them, {remedy}"
        )
    instructions, phrases, frames_per_action = (metadata.get(key) for key in _KEYS)
    if not isinstance(instructions, list) or not isinstance(phrases, list):
        raise UserError(
            f"data set {name} has metadata that say {instructions!r} of its instructions and {phrases!r} of its "
            f"phrases; expected lists of texts. {remedy}"
        )
    if isinstance(frames_per_action, bool) or not isinstance(frames_per_action, int):
        raise UserError(f"data set {name} has {frames_per_action!r} frames per action; expected a whole number")
    EpisodeFormat(1, 1, tuple(instructions), tuple(phrases), frames_per_action)  # which refuses what cannot be
    return tuple(instructions), tuple(phrases), frames_per_action, metadata.get(_ACTIONS)


def _checked(
    dataset_id: str, episodes: Iterable[EpisodeBuffer], layout: EpisodeFormat, folder: Path
) -> Iterator[EpisodeBuffer]:
    for number, episode in enumerate(episodes):
        infos = episode.infos or {}
        layout.check(f"data set {dataset_id}, episode {number}", episode.observations, episode.actions, infos)
        parts = (episode.observations, episode.actions, *infos.values())
        check_room(folder, 2 * sum(np.asarray(part).nbytes for part in parts))
        yield episode
