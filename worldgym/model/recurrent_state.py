"""The recurrent state: a vector that each observed frame corrects and each action carries forward.

A learned filter (Dreamer's RSSM without its noise; Hafner et al., 2019, arXiv 1811.04551): `predict` moves the state by
an action, `correct` updates it with a frame. Without frames `predict` alone continues, open loop: a future costs a few
matrix products a step and draws no token. Reward, success and the end of the episode are read off the state for any
instruction. It is trained open loop, as planners use it (train/recurrent_state.py).
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ..config import PICTURED, RecurrentConfig
from .outcome_heads import OutcomeVotes, expected_returns, returns_until_end
from .pixels import to_float, to_uint8

NARROW = 16
"""Channels between a grid of cells and a vector."""
SHARPNESS = 2.0
"""Of the softmax over places, before anything is learned."""
SPREAD = 4.0
"""What places are multiplied with, so that they count beside a thousand numbers of cells."""


class RecurrentState(nn.Module):
    """The filter and what is read off it. A state is a vector [b, s] and stands for all that was observed and done."""

    mean_frame: Tensor
    frame_scale: Tensor

    def __init__(self, resolution: int, config: RecurrentConfig, action_size: int, instruction_size: int):
        """Args:
        resolution: pixels a side of the frames; a multiple of 8.
        instruction_size: of an instruction's embedding.
        """
        super().__init__()
        self.width = config.width
        self.encoder = FrameEncoder(resolution, config)
        self.initial = nn.Parameter(torch.zeros(config.width))
        self.corrector = GatedCell(config.embedding, config.width)
        self.predictor = GatedCell(action_size, config.width)
        self.heads = StateHeads(config, instruction_size)
        self.picture = PictureHead(resolution, config)
        self.register_buffer("mean_frame", torch.zeros(3, resolution, resolution))
        self.register_buffer("frame_scale", torch.ones(()))

    def embed(self, frames: UInt8[Tensor, "b h w c"]) -> Float[Tensor, "b e"]:
        """What each frame tells by itself."""
        return self.encoder(self.centred(frames))

    def centred(self, frames: UInt8[Tensor, "b h w c"]) -> Float[Tensor, "b c h w"]:
        """How frames differ from the recording's mean, in units of their spread."""
        return (to_float(frames) - self.mean_frame) / self.frame_scale

    def render(self, state: Float[Tensor, "b s"]) -> UInt8[Tensor, "b h w c"]:
        """The newest frame as the state has it."""
        return to_uint8(self.mean_frame + self.frame_scale * self.picture(state))

    def pictured(self, states: Float[Tensor, "*b s"]) -> Float[Tensor, "*b p g g"]:
        """What pictures of states are made of: what frames that are drawn from them are shown."""
        return self.picture.map(states.flatten(0, -2)).unflatten(0, states.shape[:-1])

    def correct(self, state: Float[Tensor, "b s"], embedded: Float[Tensor, "b e"]) -> Float[Tensor, "b s"]:
        """The state once a frame is observed."""
        return self.corrector(state, self.corrector.enter(embedded))

    def predict(self, state: Float[Tensor, "b s"], action: Float[Tensor, "b a"]) -> Float[Tensor, "b s"]:
        """The state after one action, before its frame is observed."""
        return self.predictor(state, self.predictor.enter(action))

    def follow(
        self, state: Float[Tensor, "b s"], action: Float[Tensor, "b a"], frame: UInt8[Tensor, "b h w c"]
    ) -> Float[Tensor, "b s"]:
        """The state after one action, and the frame that it led to."""
        return self.correct(self.predict(state, action), self.embed(frame))

    def observe(self, frames: UInt8[Tensor, "b t h w c"], actions: Float[Tensor, "b t1 a"]) -> Float[Tensor, "b s"]:
        """The state after t frames, oldest first, and the t - 1 actions between them."""
        embedded = self.embed(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        state = self.correct(self.initial.expand(len(frames), -1), embedded[:, 0])
        for action, seen in zip(actions.unbind(1), embedded[:, 1:].unbind(1), strict=True):
            state = self.correct(self.predict(state, action), seen)
        return state

    def imagine(self, state: Float[Tensor, "b s"], actions: Float[Tensor, "b t a"]) -> Float[Tensor, "b t s"]:
        """The states after each of t actions, open loop."""
        states = []
        for entered in self.predictor.enter(actions.transpose(0, 1)).unbind(0):  # all actions in one product
            state = self.predictor(state, entered)
            states.append(state)
        return torch.stack(states, 1)

    def returns(
        self,
        state: Float[Tensor, "b s"],
        actions: Float[Tensor, "b t a"],
        instruction: Float[Tensor, "b d"],
        expected: bool = False,
    ) -> Float[Tensor, " b"]:
        """What t actions earn from each state by its instruction, until the episode is said to end; or what they are
        worth to a planner (`expected_returns`)."""
        said = self.heads.each(self.imagine(state, actions), instruction)
        steps = zip(*(part[None].unbind(2) for part in said), strict=True)
        judge = expected_returns if expected else returns_until_end
        return judge(OutcomeVotes(*step) for step in steps)


class FrameEncoder(nn.Module):
    """Strided convolutions, read in two ways: cell by cell, and by where features are, which is finer than a cell.

    The second is a spatial softmax (Finn et al., 2016, arXiv 1509.06113) of what the first convolution sees.
    """

    grid: Tensor

    def __init__(self, resolution: int, config: RecurrentConfig):
        super().__init__()
        pairs = pairwise((3, *config.channels))
        self.convolutions = nn.Sequential(*(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairs))
        self.narrow = nn.Conv2d(config.channels[-1], NARROW, 1)  # most of the weights would be in the product below
        self.points = None
        if config.points:
            self.points = nn.Sequential(
                nn.Conv2d(config.channels[0], 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, config.points, 1)
            )
        side = resolution // 2
        places = torch.linspace(-1, 1, side)
        grid = torch.stack([places.repeat(side), places.repeat_interleave(side)])
        self.register_buffer("grid", grid, persistent=False)
        cells = (resolution // 2 ** len(config.channels)) ** 2
        size = NARROW * cells + 3 * config.points
        self.leave = nn.Sequential(nn.Linear(size, config.embedding), nn.LayerNorm(config.embedding))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b e"]:
        # In training, half of the time goes here; what it gives is compared with nothing, so bfloat16 is exact enough.
        # Channels that lie side by side make it twice as fast.
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.training):
            first, *others = self.convolutions
            x = fine = F.silu(first(images.to(memory_format=torch.channels_last)))
            for convolution in others:
                x = F.silu(convolution(x))
            found = self.narrow(x).float().flatten(1)
            if self.points is not None:
                found = torch.cat([found, self.places(self.points(fine).float().flatten(2).mT)], 1)
        return self.leave(found)

    def places(self, points: Float[Tensor, "b hw p"]) -> Float[Tensor, "b p3"]:
        """Where each feature is, and how clearly it is seen."""
        shares = (SHARPNESS * points).softmax(1)
        return SPREAD * torch.cat([(self.grid @ shares).flatten(1), 0.1 * points.max(1).values], 1)


class PictureHead(nn.Module):
    """A frame as the state has it, in one pass and without tokens: what moves is in its place, and soft."""

    def __init__(self, resolution: int, config: RecurrentConfig):
        super().__init__()
        self.cells = resolution // 8
        self.enter = nn.Linear(config.width, NARROW * self.cells**2)
        self.convolutions = nn.Sequential(
            nn.Conv2d(NARROW, PICTURED, 3, padding=1), nn.SiLU(),
            nn.Conv2d(PICTURED, 128, 3, padding=1), nn.PixelShuffle(2), nn.SiLU(),
            nn.Conv2d(32, 48, 3, padding=1), nn.PixelShuffle(4),
        )  # fmt: skip

    def forward(self, states: Float[Tensor, "b s"]) -> Float[Tensor, "b c h w"]:
        with torch.autocast(states.device.type, torch.bfloat16, enabled=self.training):
            return self.convolutions[2:](self.map(states)).float()

    def map(self, states: Float[Tensor, "b s"]) -> Float[Tensor, "b p g g"]:
        """What the picture is made of."""
        return self.convolutions[:2](self.enter(states).view(-1, NARROW, self.cells, self.cells))


class GatedCell(nn.Module):
    """A gated recurrent unit (Cho et al., 2014, arXiv 1406.1078) whose input is multiplied beforehand by `enter`."""

    def __init__(self, size: int, width: int):
        super().__init__()
        self.enter = nn.Linear(size, 3 * width)
        self.recur = nn.Linear(width, 3 * width)

    def forward(self, state: Float[Tensor, "b s"], entered: Float[Tensor, "b s3"]) -> Float[Tensor, "b s"]:
        reset, update, new = self.recur(state).chunk(3, -1)
        reset_by, update_by, entered = entered.chunk(3, -1)
        proposed = torch.tanh(entered + (reset + reset_by).sigmoid() * new)
        return torch.lerp(proposed, state, (update + update_by).sigmoid())


class StateHeads(nn.Module):
    """Reward, success and end as products of features of the state and weights that the instruction gives.

    Bilinear, so that one pass judges a state by all instructions: every step of training learns from all of them.
    """

    def __init__(self, config: RecurrentConfig, instruction_size: int):
        super().__init__()
        width, hidden = config.width, config.head_width
        self.scale = hidden**-0.5
        self.features = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.question = nn.Sequential(
            nn.LayerNorm(instruction_size), nn.Linear(instruction_size, 128), nn.SiLU(),
            nn.Linear(128, 3 * (hidden + 1)),
        )  # fmt: skip

    def weights(self, instructions: Float[Tensor, "m d"]) -> Float[Tensor, "m three h1"]:
        """What each instruction multiplies features with; the last number is added."""
        return self.question(instructions).unflatten(-1, (3, -1))

    def forward(self, states: Float[Tensor, "b t s"], instructions: Float[Tensor, "m d"]) -> OutcomeVotes:
        """Of the newest frame of every state by every instruction, [b, t, m] each: rewards, and logits."""
        features, weights = self.features(states), self.weights(instructions)
        said = F.linear(features * self.scale, weights[..., :-1].flatten(0, 1), weights[..., -1].flatten())
        return OutcomeVotes(*said.unflatten(-1, (-1, 3)).unbind(-1))

    def each(self, states: Float[Tensor, "b t s"], instructions: Float[Tensor, "b d"]) -> OutcomeVotes:
        """The same by one instruction for each row, [b, t] each."""
        features, weights = self.features(states), self.weights(instructions)
        said = torch.baddbmm(weights[..., -1][:, None], features * self.scale, weights[..., :-1].transpose(1, 2))
        return OutcomeVotes(*said.unbind(-1))
