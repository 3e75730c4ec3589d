"""Where the network runs, and in which of PyTorch's modes."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def isolated(function: Callable[P, T]) -> Callable[P, T]:
    """The function, without gradients and as if its caller had set none of PyTorch's modes: no autocast, no inference
    mode, no other default dtype or device.

    A dream is then the same in any calling program, and what was made inside `torch.inference_mode()` can be stepped
    outside of it.
    """

    @wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> T:
        with ExitStack() as modes:
            if torch.is_inference_mode_enabled():
                modes.enter_context(torch.inference_mode(False))
            modes.enter_context(torch.no_grad())
            for kind in ("cpu", "cuda"):
                if torch.is_autocast_enabled(kind):
                    modes.enter_context(torch.autocast(kind, enabled=False))
            if torch.get_default_device().type != "cpu":
                modes.enter_context(torch.device("cpu"))
            if (dtype := torch.get_default_dtype()) != torch.float32:
                torch.set_default_dtype(torch.float32)
                modes.callback(torch.set_default_dtype, dtype)
            return function(*args, **kwargs)

    return inside


def pick_device(name: str = "auto") -> torch.device:
    """ "auto" takes a GPU where there is one and prints its name; "cpu", "cuda", ... take just that."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device {name!r} is unknown; use 'auto', 'cpu' or 'cuda'") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device is {name!r}, but torch {torch.__version__} sees no GPU here")
        print(f"worldgym: using {torch.cuda.get_device_name(device)}")
    return device
