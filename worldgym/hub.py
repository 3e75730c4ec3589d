"""Worlds on the Hugging Face hub: `push` shares a checkpoint folder with a model card, `pull` brings one here.

    push(Path("runs/tabletop/world"), "user/tabletop", "mit")
    gym.make("worldgym/Dream-v0", world="user/tabletop")      # pulled at first use, then read from the cache

Only data is pulled, safetensors, JSON and NumPy arrays: nothing of it is ever run or unpickled. The `env.py` that is
pushed with it is for LeRobot, see envhub.py.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCardData, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

from .checkpoint import count_parameters, load_config

FILES = ("config.json", "model.safetensors", "bpe.json", "starts.npz", "decoder/*.json", "decoder/*.safetensors")
"""What dreaming needs, and a diffusion decoder if there is one; the state for resuming a training stays at home."""
ENV_PY = '''"""Dreams as environments for LeRobot: make_env("{repo}", n_envs=8, trust_remote_code=True)."""

from pathlib import Path

from worldgym.envhub import make_tasks


def make_env(n_envs: int = 1, use_async_envs: bool = False, cfg=None):
    """A batch of dreams for each instruction of the world, or for cfg.task. A batch is one forward pass either way."""
    return make_tasks(Path(__file__).parent, "{repo}", n_envs, None if cfg is None else cfg.task)
'''
ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def is_hub_name(name: str) -> bool:
    """Whether it reads as user/name."""
    return ID.fullmatch(name) is not None


@lru_cache(maxsize=32)
def pull(name: str, commit: str | None = None, cache: Path | None = None) -> Path:
    """The folder of a world on the hub, downloaded if the newest version is not in the cache yet.

    Without a connection, or with HF_HUB_OFFLINE=1, the cached version is taken. The hub is asked once a process.

    Args:
        commit: another version than the newest.
        cache: another folder than the hub's own cache.

    Raises:
        ValueError: there is no such repository, it is not open to you, or it can't be reached and isn't cached.
    """
    try:
        return Path(snapshot_download(name, revision=commit, cache_dir=cache, allow_patterns=list(FILES)))
    except HFValidationError as error:
        raise ValueError(f"{name!r} is no name for the hub: {error}") from None
    except RepositoryNotFoundError:
        raise ValueError(
            f"unknown world {name!r}: there is no such folder here and no such repository on the hub, or it is "
            "private and `hf auth login` was not done"
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError):
        raise ValueError(
            f"unknown world {name!r}: there is no such folder here, and the hub can't be reached; nothing of that "
            "name is in its cache"
        ) from None


def push(
    folder: Path,
    repo: str,
    licence: str,
    results: Sequence[Path] = (),
    data: str = "",
    private: bool = False,
    api: HfApi | None = None,
) -> str:
    """Upload a world, its model card, and an `env.py` for LeRobot's EnvHub in one commit; the address of its page.

    Args:
        folder: checkpoint that can dream; `worldgym export` halves its size.
        repo: user/name; made if it does not exist.
        licence: an identifier that the hub knows, such as "mit".
        results: files of figures that `worldgym evaluate` and `plan` wrote.
        data: a sentence about what it was trained on.

    Raises:
        ValueError: no user/name, or a folder that cannot dream.
    """
    if not is_hub_name(repo):
        raise ValueError(f"repository {repo!r} must be user/name")
    card = model_card(folder, repo, licence, results, data)
    api = api or HfApi()
    with tempfile.TemporaryDirectory() as temporary:
        for path in (path for pattern in FILES for path in folder.glob(pattern)):
            copy = Path(temporary) / path.relative_to(folder)
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(path, copy)
        (Path(temporary) / "README.md").write_text(card, encoding="utf-8")
        (Path(temporary) / "env.py").write_text(ENV_PY.format(repo=repo), encoding="utf-8")
        url = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo, folder_path=temporary, commit_message=f"WorldGym world {folder.name}",
            delete_patterns="decoder/*",  # of other weights
        )  # fmt: skip
    return str(url)


def model_card(folder: Path, repo: str, licence: str, results: Sequence[Path] = (), data: str = "") -> str:
    """The page that explains a world: what it dreams of, how to use it, and figures with the commands behind them."""
    config, stage = load_config(folder)
    if stage != "world":
        raise ValueError(f"{folder} holds a {stage} only; there is nothing to dream with yet")
    meta = ModelCardData(
        license=licence,
        library_name="worldgym",
        tags=["world-model", "gymnasium", "reinforcement-learning", "video-prediction"],
    )
    size = config.tokenizer.resolution
    facts = {
        "observation": f"uint8 [{size}, {size}, 3]",
        "action": f"float32 [{config.action_size}] in [-1, 1]" if config.codec.plain else f"`{config.codec.space}`",
        "sentences": f"{len(config.phrases)} trained on, of {config.frames_per_action} frames each"
        if config.phrases
        else "none",
        "true twin": f"`{config.twin}`" if config.twin else "none",
        "parameters": f"{count_parameters(folder / 'model.safetensors') / 1e6:.1f} million",
        "window": f"{config.dynamics.window} steps",
        "begins best from": f"{config.dynamics.observed} frames" if config.dynamics.observed > 1 else "one frame",
    }
    use = [
        "```python",
        "import gymnasium as gym",
        "import worldgym",
        "",
        f'dream = gym.make("worldgym/Dream-v0", world="{repo}")',
        "frame, info = dream.reset(seed=0)",
        "frame, reward, terminated, truncated, info = dream.step(dream.action_space.sample())",
        "```",
    ]
    lines = [
        "---", meta.to_yaml(), "---", "", f"# {config.name}", "",
        "A learned video world model that is a Gymnasium environment, made with WorldGym: a neural network dreams the "
        "next frame, the reward and the end of the episode from the action.",
        "", *use, "",
        "In LeRobot, `env.py` makes it an environment with a task for each instruction: "
        f'`make_env("{repo}", n_envs=8, trust_remote_code=True)`.',
        "", "## What it is", "", "| | |", "|---|---|",
        *(f"| {name} | {value} |" for name, value in facts.items()), "",
        f"Trained on: {data}" if data else "Nobody has said what it was trained on.", "",
        "## Instructions", "", *_items(config.instructions), "",
    ]  # fmt: skip
    if config.phrases:
        lines += ["## Sentences it was trained on", "", *_items(config.phrases), ""]
    lines += ["## How true it is", ""]
    for path in results:
        lines += _figures(path)
    if not results:
        lines += ["No figures were given. `worldgym evaluate` measures them.", ""]
    return "\n".join([*lines, f"Licence: {licence}.", ""])


def _items(texts: Sequence[str]) -> list[str]:
    return [f"- {text}" for text in texts]


def _figures(path: Path) -> list[str]:
    """A results file as a table; lists over the horizon by their first, middle and last step."""
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        metrics, command, commit, machine = (results[key] for key in ("metrics", "command", "commit", "hardware"))
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is no results file; `worldgym evaluate --json` writes one") from None
    rows = [f"| {name} | {value} |" for name, value in _flat("", metrics)]
    said = f"`{command}`, commit {commit[:10]}, {machine.get('cores')} cores of {machine.get('cpu')}"
    return ["| figure | |", "|---|---|", *rows, "", f"{said}{', ' + machine['gpu'] if machine.get('gpu') else ''}.", ""]


def _flat(prefix: str, value: Any) -> list[tuple[str, str]]:
    name = prefix.replace("_", " ")
    match value:
        case dict():
            return [row for key, item in value.items() for row in _flat(f"{prefix}, {key}" if prefix else key, item)]
        case bool() | str():
            return [(name, str(value))]
        case int() | float():
            return [(name, f"{value:.4g}")]
        case [*items] if "interval" not in prefix and items and all(isinstance(item, (int, float)) for item in items):
            steps = sorted({0, (len(items) - 1) // 2, len(items) - 1})
            return [(f"{name}, at step {step + 1}", f"{items[step]:.4g}") for step in steps]
        case [int() | float() as low, int() | float() as high]:
            return [(name, f"{low:.4g} to {high:.4g}")]
        case _:  # by-episode listings and what could not be measured stay in the file
            return []
