"""The folder that PAN's second stage writes: `pan.json` says what the weights in `backbone` and `decoder` are of."""

import json
from dataclasses import asdict
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from ..config import PanConfig, Schedule, SwinConfig
from ..hub import is_hub_name

FORMAT_VERSION = 1
FILES = ("pan.json", "backbone/*.json", "backbone/*.safetensors", "decoder/*.json", "decoder/*.safetensors")
"""All that a world needs of it; the state of the training stays out."""


def write_config(folder: Path, config: PanConfig) -> None:
    described = {"format": "worldgym-pan", "version": FORMAT_VERSION, **asdict(config)}
    (folder / "pan.json").write_text(json.dumps(described, indent=1), encoding="utf-8")


def read_config(folder: Path) -> PanConfig:
    """A FileNotFoundError or ValueError says what is wrong with the folder."""
    path = folder / "pan.json"
    if not path.exists():
        raise FileNotFoundError(f"{folder} has no pan.json; `worldgym train pan joint` writes a folder with one")
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        kind, version = described.pop("format"), described.pop("version")
        if (kind, version) != ("worldgym-pan", FORMAT_VERSION):
            raise ValueError(f"it is {kind} {version}; this release reads worldgym-pan {FORMAT_VERSION}")
        swin = described.pop("swin")
        return PanConfig(**described, swin=SwinConfig(**{**swin, "schedule": Schedule(**swin["schedule"])}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged or of another release: {error}") from None


def find_trained(name: str) -> Path:
    """A folder, or a repository on the hub, user/name, downloaded if it is not in the cache yet."""
    if Path(name).is_dir():
        return Path(name)
    if not is_hub_name(name) or Path(name).parent.is_dir():
        raise ValueError(f"there is no folder {name}; `worldgym train pan joint` writes one")
    try:
        return Path(snapshot_download(name, allow_patterns=list(FILES)))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(f"{name!r} is neither a folder here nor a repository on the hub: {error}") from None
