"""Pictures of the same maps. A decoder is its file and one row of `DECODERS`.

A decoder that has weights keeps them in a folder of JSON and safetensors files: `decoder` inside its world's folder, or
any other. `decoder.json` there names its kind.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from ..listing import find_world
from ..world import WorldModel

if TYPE_CHECKING:
    from .frame_stream import FrameStream


@dataclass(frozen=True)
class DecoderKind:
    """One row. Both functions are named by path, so that the table imports none of them."""

    about: str
    """A line for the help of the command line."""
    stream: str
    """(weights, world, number of dreams) -> `FrameStream`; without weights (world, number of dreams)."""
    load: str | None = None
    """(folder, tokenizer, device) -> its weights; None for a decoder that has none of its own."""
    train: str | None = None
    """The command that trains one."""


DECODERS: dict[str, DecoderKind] = {
    "fast": DecoderKind("the tokenizer's own, one pass", "worldgym.decoders.fast:FastFrames"),
    "diffusion": DecoderKind(
        "Causal Swin-DPM, sharper and many times slower",
        "worldgym.decoders.diffusion_frames:DiffusionFrames",
        "worldgym.decoders.diffusion:DiffusionDecoder.load",
        "worldgym train decoder",
    ),
}


def open_stream(world: WorldModel, name: str, decoder: str, dreams: int) -> "FrameStream":
    """A decoder for this number of dreams.

    Args:
        name: of the world, as `find_world` takes it.
        decoder: a kind from `DECODERS`, or the folder of a decoder's weights.

    Raises:
        ValueError: there is no such decoder.
    """
    kind = DECODERS.get(decoder)
    if kind is not None and kind.load is None:
        return resolve_name(kind.stream)(world, dreams)
    folder = decoder_folder(name, decoder)
    return resolve_name(DECODERS[_kind_in(folder)].stream)(load_decoder(name, decoder, world), world, dreams)


def load_decoder(name: str, decoder: str, world: WorldModel) -> Any:
    """A decoder's weights, one copy for all environments of this process.

    Args:
        name: of the world, as `find_world` takes it.
        decoder: a kind that has weights, for the one in the world's folder, or another's folder.
        world: the same world, loaded.
    """
    folder = decoder_folder(name, decoder)
    stamp = tuple(path.stat().st_mtime_ns for path in sorted(folder.iterdir()))
    return _load_decoder(str(folder.resolve()), _kind_in(folder), world, stamp)


def decoder_folder(name: str, decoder: str) -> Path:
    """Where a decoder's weights are; a ValueError where there are none."""
    folder = find_world(name) / "decoder" if decoder in DECODERS else Path(decoder)
    wanted = decoder if decoder in DECODERS else "diffusion"
    holds = (folder / "decoder.json").exists()
    if not holds or (decoder in DECODERS and _kind_in(folder) != decoder):
        raise ValueError(
            f"decoder is {decoder!r}, but there is no {wanted} decoder in {folder}. Take decoder='fast', or train one "
            f"with `{DECODERS[wanted].train}` and pass the folder that it names; "
            "`worldgym export WORLD TARGET --decoder FOLDER` makes a world that has it"
        )
    return folder


def _kind_in(folder: Path) -> str:
    kind = json.loads((folder / "decoder.json").read_text(encoding="utf-8")).get("kind", "diffusion")
    if kind not in DECODERS:
        raise ValueError(f"{folder} holds a decoder of kind {kind!r}; known are {', '.join(DECODERS)}")
    return kind


@lru_cache(maxsize=8)
def _load_decoder(folder: str, kind: str, world: WorldModel, stamp: tuple[int, ...]) -> Any:
    load = DECODERS[kind].load
    assert load is not None, f"{kind} has no weights"
    return resolve_name(load)(Path(folder), world.tokenizer, world.device)
