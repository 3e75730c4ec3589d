"""PAN as a world: what is seen, what is said, what is then seen (PAN 3, equation 5).

pan = PanWorld.load("Qwen/Qwen2.5-VL-7B-Instruct", "Wan-AI/Wan2.1-T2V-14B-Diffusers", trained)
state = pan.start(frames)
state, video = pan.step(state, ["pour the water into the cup"])
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ..decoders.swin import Asked, CausalSwin, Stream, SwinConfig
from ..decoders.wan import Condition, ConditionedWan
from .backbone import ConversationConfig, PanBackbone
from .latents import WanLatents


@dataclass(frozen=True)
class PanState:
    """Where some simulations stand. A value: two actions can be tried from the same one."""

    seen: tuple[Float[Tensor, "b m d"], ...]
    """What the vision tower says of the newest chunks, oldest first."""
    predicted: tuple[Float[Tensor, "b q d"] | None, ...]
    """What the backbone had said of each; None of the first frame. Together they are the enhanced state."""
    actions: tuple[tuple[str, ...], ...]
    """What was done after each but the newest, for all simulations."""
    stream: Stream
    latents: Float[Tensor, "b k f y x"]
    """The newest chunk, which the autoencoder looks back at."""


class PanWorld(nn.Module):
    """Backbone, diffusion decoder, and what the decoder was trained with. Make one with `load`."""

    def __init__(self, backbone: PanBackbone, decoder: ConditionedWan, wan: WanLatents, swin: SwinConfig):
        super().__init__()
        self.backbone, self.decoder, self.wan, self.swin = backbone, decoder, wan, swin

    @classmethod
    def load(
        cls,
        vlm: str,
        wan: str,
        trained: Path,
        conversation: ConversationConfig | None = None,
        swin: SwinConfig | None = None,
        dtype: torch.dtype = torch.bfloat16,
    ) -> "PanWorld":
        """By hub names or folders.

        Args:
            vlm: a Qwen2.5-VL.
            wan: a Wan 2.1 text-to-video pipeline in diffusers' format, for its autoencoder and text encoder.
            trained: folder that the second stage wrote.
        """
        backbone = PanBackbone.load(vlm, conversation or ConversationConfig(), trained / "backbone", dtype)
        decoder = ConditionedWan.load(str(trained / "decoder"), backbone.width, dtype)
        world = cls(backbone, decoder, WanLatents.load(wan, dtype), swin or SwinConfig())
        return world.eval().requires_grad_(False)

    @torch.no_grad()
    def start(self, frames: UInt8[Tensor, "b h w c"]) -> PanState:
        """Begin from one observed frame each."""
        video = frames[:, None]
        latents = self.wan.encode(video)
        stream = CausalSwin(self.decoder, self.swin).start(latents[:, :, 0])
        return PanState((self.backbone.see(video),), (None,), (), stream, latents)

    @torch.no_grad()
    def step(
        self, state: PanState, actions: list[str], chance: torch.Generator | None = None
    ) -> tuple[PanState, UInt8[Tensor, "b t h w c"]]:
        """What each action leads to: a chunk of video.

        Args:
            chance: on the CPU; all the randomness there is.
        """
        batch = len(state.latents)
        if len(actions) != batch:
            raise ValueError(f"got {len(actions)} actions for {batch} simulations")
        done = (*state.actions, tuple(actions))
        said = [[turn[row] for turn in done] for row in range(batch)]
        predicted = self.backbone(state.seen, said, state.predicted)[:, -1]
        condition = Condition(self.wan.read(actions)[:, None], predicted[:, None].float())
        nothing = Condition(self.wan.read([""] * batch)[:, None], torch.zeros_like(predicted[:, None]).float())
        shape = list(state.latents.shape)
        shape[2] = 1 + self.swin.frames
        noise = torch.randn(shape, generator=chance).to(state.latents)
        stream, chunk = CausalSwin(self.decoder, self.swin).next(
            state.stream, Asked(condition, nothing), noise[:, :, 1:], noise[:, :, :1]
        )
        video = self.wan.decode(chunk, state.latents)
        keep = self.backbone.config.rounds
        after = replace(
            state,
            seen=(*state.seen, self.backbone.see(video))[-keep:],
            predicted=(*state.predicted, predicted)[-keep:],
            actions=done[-(keep - 1) :] if keep > 1 else (),
            stream=stream,
            latents=chunk,
        )
        return after, video
