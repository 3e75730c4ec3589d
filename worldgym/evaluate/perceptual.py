"""LPIPS and FVD by networks that the user hands in, as TorchScript files: none are bundled, none are downloaded.

LPIPS (Zhang et al. 2018), from the authors' package, `pip install lpips`, once:

    import lpips, torch
    picture = torch.zeros(1, 3, 64, 64)
    torch.jit.trace(lpips.LPIPS(net="vgg"), (picture, picture)).save("lpips_vgg.pt")

FVD (Unterthiner et al. 2018) with the field's `i3d_torchscript.pt`, the I3D of Kinetics-400 that StyleGAN-V and those
after it, iVideoGPT among them, measure with.
"""

import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from ..model.pixels import to_float

BATCH = 16
"""Videos, and times sixteen pictures, that go through a network at once."""
FEWEST_FRAMES = 10
"""I3D looks through windows of what is left after it has halved time: shorter videos have no features."""


class Lpips:
    """Perceptual distance of pictures; 0 is the same."""

    def __init__(self, weights: Path, device: torch.device):
        self.network, self.device = _load(weights, device, "LPIPS"), device

    @torch.no_grad()
    def __call__(
        self, predicted: UInt8[np.ndarray, "b t h w c"], real: UInt8[np.ndarray, "b t h w c"]
    ) -> Float[np.ndarray, "b t"]:
        """Of each picture. The network takes two float32 [n, 3, h, w] in [-1, 1] and gives n distances."""
        batch, time = predicted.shape[:2]
        flat = [pictures.reshape(-1, *pictures.shape[2:]) for pictures in (predicted, real)]
        distances = []
        for begin in range(0, batch * time, 16 * BATCH):
            pair = [_pictures(pictures[begin : begin + 16 * BATCH], self.device) for pictures in flat]
            distance = self.network(*pair)
            if distance.numel() != len(pair[0]):
                raise ValueError(
                    f"the LPIPS network gave {tuple(distance.shape)} for {len(pair[0])} pairs of pictures; it must "
                    "give one distance for each"
                )
            distances.append(distance.flatten().float().cpu().numpy())
        return np.concatenate(distances).reshape(batch, time)


class VideoFeatures:
    """What FVD compares: features of whole videos."""

    def __init__(self, weights: Path, device: torch.device):
        self.network, self.device = _load(weights, device, "FVD"), device

    @torch.no_grad()
    def __call__(self, videos: UInt8[np.ndarray, "b t h w c"]) -> Float[np.ndarray, "b d"]:
        """The network takes float32 [n, 3, t, h, w] in [0, 255] and the three flags of `i3d_torchscript.pt`, which
        make it scale and resize by itself, as StyleGAN-V and iVideoGPT have it; it gives [n, d]."""
        if videos.shape[1] < FEWEST_FRAMES:
            raise ValueError(f"FVD takes videos of at least {FEWEST_FRAMES} frames; these have {videos.shape[1]}")
        features = []
        for begin in range(0, len(videos), BATCH):
            part = videos[begin : begin + BATCH]
            clips = torch.from_numpy(np.ascontiguousarray(part)).to(self.device).permute(0, 4, 1, 2, 3).float()
            found = self.network(clips, rescale=True, resize=True, return_features=True)
            if found.ndim != 2 or len(found) != len(part):
                raise ValueError(
                    f"the FVD network gave {tuple(found.shape)} for {len(part)} videos; it must give a row of "
                    "features for each"
                )
            features.append(found.float().cpu().numpy())
        return np.concatenate(features)


def _load(weights: Path, device: torch.device, metric: str) -> torch.nn.Module:
    if not weights.is_file():
        raise FileNotFoundError(f"there is no file {weights}; {metric} is measured by a TorchScript network. {_HOW}")
    try:
        with warnings.catch_warnings():  # both networks circulate as TorchScript, which torch discourages
            warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated", DeprecationWarning)
            return torch.jit.load(str(weights), map_location=device).eval()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{weights} is not a TorchScript network ({reason}). {_HOW}") from None


_HOW = (
    "For LPIPS trace the authors' (pip install lpips; the line is in worldgym/perceptual.py), for FVD take "
    "i3d_torchscript.pt"
)


def _pictures(frames: np.ndarray, device: torch.device) -> torch.Tensor:
    return to_float(torch.from_numpy(np.ascontiguousarray(frames)).to(device))
