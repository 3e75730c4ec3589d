"""Where the network runs."""

import torch


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
            raise ValueError(f"device {name!r} was asked for, but torch {torch.__version__} sees no GPU here")
        print(f"worldgym: using {torch.cuda.get_device_name(device)}")
    return device
