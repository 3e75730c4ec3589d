"""One copy of a world's weights for all dreams of a process."""

import multiprocessing
import os
from functools import lru_cache
from traceback import walk_stack

import torch
from gymnasium.vector import AsyncVectorEnv

from ..files import recover
from ..listing import find_world
from ..world import WorldModel

if hasattr(os, "register_at_fork"):
    # Gymnasium's AsyncVectorEnv forks, and a forked pool of OpenMP threads hangs at its first use.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def load_shared(world: str, device: str, compiled: int = 0) -> WorldModel:
    """One copy of a world's weights for all environments of this process; they only ever read it.

    A checkpoint that has been trained since is loaded again.

    Args:
        compiled: dreams to compile the step for, in a copy of its own: rounding differs, and dreams that are not
            compiled stay as they were to the last bit.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and (multiprocessing.parent_process() is not None or _asked_for_workers()):
        raise ValueError(
            "a world on a GPU is not for worker processes: each would load a copy of its own and dream one dream at a "
            "time. gym.make_vec(id, num_envs=n) dreams n in one batch; or pass device='cpu'"
        )
    folder = find_world(world).resolve()
    recover(folder)
    weights = folder / "model.safetensors"
    stat = weights.stat() if weights.exists() else None
    return _load(str(folder), device, stat and (stat.st_mtime_ns, stat.st_size), compiled)


def _asked_for_workers() -> bool:
    """Whether Gymnasium's AsyncVectorEnv is asking: it makes one environment here, to see its spaces, before it makes
    the others in processes, and of an error there it would say no more than that a pipe broke."""
    return any(isinstance(frame.f_locals.get("self"), AsyncVectorEnv) for frame, _ in walk_stack(None))


@lru_cache(maxsize=8)
def _load(folder: str, device: str, stamp: tuple[int, int] | None, compiled: int) -> WorldModel:
    world = WorldModel.load(folder, device)
    return world.compile_for(compiled) if compiled else world
