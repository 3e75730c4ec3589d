"""PAN as a world: what is seen, what is said, what is then seen (PAN 3, equation 5). Its verbs are `WorldModel`'s.

pan = PanWorld.load("runs/pan/joint")
state = pan.start(frames)
state, video = pan.step(state, ["pour the water into the cup"])
frame = pan.render(state)
branches = state.fork(4)
returns = pan.evaluate(state, [[["pour", "drink"], ["wait", "wait"]]], make_reward("the cup is empty", pan))
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ..config import PanConfig
from ..decoders.swin import Asked, CausalSwin, Stream
from ..decoders.wan import Condition, ConditionedWan
from ..inputs import dream_seeds, tensor
from ..model.device import isolated
from ..model.rng import gaussians
from .backbone import PanBackbone
from .folder import find_trained, read_config
from .latents import WanLatents
from .state import PanState, Scene, Simulation

PanReward = Callable[[PanState], Float[Tensor, " b"]]
"""What standing there is worth, for each simulation."""


class PanWorld(nn.Module):
    """Backbone, diffusion decoder, and what the decoder was trained with. Make one with `load`."""

    def __init__(self, backbone: PanBackbone, decoder: ConditionedWan, wan: WanLatents, config: PanConfig):
        super().__init__()
        self.backbone, self.decoder, self.wan, self.config = backbone, decoder, wan, config
        self.at_once = 1
        """Simulations that go through the networks together, at most. One at full size is a window of 32,760 tokens."""
        self._silence: Tensor | None = None

    @classmethod
    def load(
        cls,
        trained: str | Path,
        vlm: str | None = None,
        video: str | None = None,
        dtype: torch.dtype = torch.bfloat16,
    ) -> "PanWorld":
        """By folders or hub names.

        Args:
            trained: what the second stage wrote.
            vlm: a Qwen2.5-VL; the one that it was trained on by default.
            video: a Wan 2.1 text-to-video pipeline in diffusers' format, for its autoencoder and text encoder; the one
                that it was trained with by default.

        Raises:
            ValueError, FileNotFoundError: the folder is not one, is damaged, or does not fit the models.
        """
        folder = find_trained(str(trained))
        config = read_config(folder)
        backbone = PanBackbone.load(vlm or config.vlm, None, folder / "backbone", dtype, speaks=True)
        decoder = ConditionedWan.load(str(folder / "decoder"), backbone.width, dtype)
        world = cls(backbone, decoder, WanLatents.load(video or config.video, dtype), config)
        return world.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        return self.backbone.queries.device

    @property
    def frames_per_action(self) -> int:
        """Frames of the chunk of video that an action leads to."""
        return self.config.swin.frames * self.wan.stride

    # -- the verbs ------------------------------------------------------------------------------------------------

    @isolated
    def start(
        self,
        frames: Tensor | np.ndarray,
        actions: Sequence[Sequence[str]] | None = None,
        seeds: Tensor | np.ndarray | Sequence[int] | None = None,
    ) -> PanState:
        """Begin `b` simulations from what was observed.

        Args:
            frames: uint8 [b, t, h, w, 3], oldest first: one frame, and `frames_per_action` more after each action.
            actions: [b][n], the sentences that were carried out; may be left out for a single frame.
            seeds: [b], one for each simulation; 0, 1, 2, ... by default.
        """
        videos = self._observed(frames)
        batch, chunk = len(videos), self.frames_per_action
        said = [tuple(words) for words in ([()] * batch if actions is None else actions)]
        if len(said) != batch or any(1 + chunk * len(words) != videos.shape[1] for words in said):
            raise ValueError(
                f"got {videos.shape[1]} frames and {sorted({len(words) for words in said})} actions in {batch} and "
                f"{len(said)} simulations; there is one frame, and {chunk} more for each action"
            )
        keep = self.backbone.config.rounds
        chunks = [videos[:, :1], *(videos[:, 1:].split(chunk, 1) if videos.shape[1] > 1 else ())]
        seen = torch.stack([self.backbone.see(part) for part in chunks[-keep:]], 1)
        latents = self.wan.encode(videos)[:, :, -self.config.swin.frames if videos.shape[1] > 1 else 0 :]
        queries, words = self.backbone.config.queries, (self.wan.length, self.wan.text.config.d_model)
        scene = Scene(
            videos[:, -1],
            seen,
            seen.new_empty(batch, 0, queries, self.backbone.width),
            latents,
            latents.new_empty(batch, 0, *words),
            latents[:, :, :0],
            latents.new_empty(batch, 0, *latents.shape[1:]),
        )
        drawn = dream_seeds(seeds, batch, torch.device("cpu")).tolist()
        rows = zip(_unstack(scene), said, drawn, strict=True)
        return PanState(tuple(Simulation(one, self._remembered(words), seed) for one, words, seed in rows))

    @isolated
    def step(self, state: PanState, actions: Sequence[str]) -> tuple[PanState, UInt8[Tensor, "b t h w c"]]:
        """What each action leads to: a chunk of video. Leaves `state` as it is.

        What a simulation dreams depends on its own seed and past alone, to within rounding, whatever is beside it.
        """
        if isinstance(actions, str) or len(actions) != len(state):
            raise ValueError(f"got {len(actions)} actions for {len(state)} simulations; there is a sentence for each")
        if odd := [action for action in actions if not isinstance(action, str)]:
            raise TypeError(f"an action of PAN is a sentence; got {type(odd[0]).__name__} {odd[0]!r:.80}")
        after: dict[int, Simulation] = {}
        videos: dict[int, Tensor] = {}
        for rows in state.groups(self.at_once):
            before = [state.simulations[row] for row in rows]
            said = [(*one.said, actions[row]) for one, row in zip(before, rows, strict=True)]
            seeds, counts = torch.tensor([(one.seed, one.count) for one in before], device=self.device).unbind(1)
            scene, video = self._next(state.stack(rows), said, seeds, counts)
            for row, one, words, new, seen in zip(rows, before, said, _unstack(scene), video, strict=True):
                after[row] = Simulation(new, self._remembered(words), one.seed, one.count + 1)
                videos[row] = seen
        order = range(len(state))
        return PanState(tuple(after[row] for row in order)), torch.stack([videos[row] for row in order])

    @isolated
    def render(self, state: PanState) -> UInt8[Tensor, "b h w c"]:
        """The newest frame of each simulation; a copy."""
        return torch.stack([one.scene.frame for one in state.simulations])

    @isolated
    def evaluate(
        self, state: PanState, action_sequences: Sequence[Sequence[Sequence[str]]], reward: PanReward
    ) -> Float[Tensor, "b n"]:
        """Return of each of n sequences of sentences tried from each simulation; leaves `state` as it is.

        Args:
            action_sequences: [b][n][horizon].
            reward: judges each newest frame, such as `make_reward` of worldgym.pan.rewards makes.
        """
        counts = {len(tried) for tried in action_sequences}
        horizons = {len(words) for tried in action_sequences for words in tried}
        if len(action_sequences) != len(state) or len(counts) != 1 or len(horizons) != 1 or 0 in horizons:
            raise ValueError(
                f"got {sorted(counts)} sequences of {sorted(horizons)} sentences for {len(action_sequences)} "
                f"simulations; each of {len(state)} takes as many sequences, of one length each"
            )
        count, horizon = counts.pop(), horizons.pop()
        flat = [words for tried in action_sequences for words in tried]
        futures, returns = state.fork(count), torch.zeros(len(flat), device=self.device)
        for when in range(horizon):
            futures, _ = self.step(futures, [words[when] for words in flat])
            returns += reward(futures)
        return returns.view(len(state), count)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _next(
        self, scene: Scene, said: Sequence[Sequence[str]], seeds: Tensor, counts: Tensor
    ) -> tuple[Scene, UInt8[Tensor, "b t h w c"]]:
        """The next scene of simulations that remember as much, and the video that leads there."""
        swin, batch = self.config.swin, len(said)
        rounds, dreamed = scene.seen.shape[1], scene.predicted.shape[1]
        told = [*[None] * (rounds - dreamed), *scene.predicted.unbind(1)]
        predicted = self.backbone(list(scene.seen.unbind(1)), [list(words) for words in said], told)[:, -1]
        text = self.wan.read([words[-1] for words in said])
        channels, _, height, width = scene.latents.shape[1:]
        size = (channels, 1 + swin.frames, height, width)
        noise = gaussians(seeds, counts, math.prod(size)).unflatten(1, size).to(scene.latents)
        stream, chunk = CausalSwin(self.decoder, swin).next(
            self._stream(scene), self._asked(text, predicted), noise[:, :, 1:], noise[:, :, :1]
        )
        video = self.wan.decode(chunk, scene.latents)
        keep = self.backbone.config.rounds
        assert stream.before is not None
        after = Scene(
            video[:, -1],
            torch.cat([scene.seen, self.backbone.see(video)[:, None]], 1)[:, -keep:],
            torch.cat([scene.predicted, predicted[:, None]], 1)[:, -keep:],
            chunk,
            text[:, None],
            stream.before,
            torch.stack(stream.trail, 1) if stream.trail else chunk.new_empty(batch, 0, *chunk.shape[1:]),
        )
        return after, video

    def _stream(self, scene: Scene) -> Stream:
        """The decoder's side of simulations."""
        newest = scene.latents[:, :, -1:]
        if not scene.trail.shape[1]:
            return Stream(newest)
        asked = self._asked(scene.text[:, 0], scene.predicted[:, -1])
        return Stream(newest, scene.before, scene.trail.unbind(1), asked)

    def _asked(self, text: Float[Tensor, "b l t"], state: Float[Tensor, "b q d"]) -> Asked:
        """What a chunk is to show, and the same without."""
        if self._silence is None:  # which the text encoder, of billions of weights, reads once
            self._silence = self.wan.read([""])[None]
        shown, silence = state[:, None].float(), self._silence.to(text).expand(len(text), -1, -1, -1)
        return Asked(Condition(text[:, None], shown), Condition(silence, torch.zeros_like(shown)))

    def _remembered(self, said: tuple[str, ...]) -> tuple[str, ...]:
        """Of all that was said, what the next round is told again."""
        keep = self.backbone.config.rounds - 1
        return said[-keep:] if keep else ()

    def _observed(self, frames: Tensor | np.ndarray) -> UInt8[Tensor, "b t h w c"]:
        found, size = tensor(frames).to(self.device), (self.config.height, self.config.width, 3)
        if found.ndim != 5 or tuple(found.shape[2:]) != size or not found.shape[1]:
            raise ValueError(
                f"frames have shape {tuple(found.shape)}; this PAN takes (batch, time, {size[0]}, {size[1]}, 3)"
            )
        if found.dtype != torch.uint8:
            raise TypeError(f"frames have dtype {found.dtype}; PAN takes uint8")
        return found


def _unstack(scene: Scene) -> list[Scene]:
    """Each simulation's own copy, which keeps none of the others in memory."""
    return [Scene(*(part[row].clone() for part in scene)) for row in range(len(scene.frame))]
