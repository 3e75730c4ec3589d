"""The recurrent state: a vector that each observed frame corrects and each action carries forward.

A filter in the control sense, learned: `predict` moves the state by an action, `correct` updates it with the fused map
of a frame that was observed. Without frames `predict` alone continues, open loop, and that is a planner's future: one
matrix product a step, no token, no map. Rewards, successes and ends are read off the state for any instruction, and so
is a picture: a fused map, for the tokenizer to decode.

The state is trained as it is used (Dreamer's RSSM without its noise; multi-horizon losses as RC-aux and EB-JEPA): a few
frames are observed, the rest of a window is carried open loop, and at every step of it the outcomes of all
instructions and the principal components of the true map are read off. Maps of the open-loop part reach the
network as targets alone, so nothing of what is to come leaks into the state.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from worldgym.config import TokenizerConfig


@dataclass(frozen=True)
class StateConfig:
    """Sizes of the recurrent state."""

    width: int = 256
    """Numbers in the state. A step costs three times its square in products."""
    embedding: int = 256
    """Numbers that a frame's map is embedded in."""
    head_width: int = 256
    """Hidden size of the outcome head."""
    components: int = 256
    """Principal components of the recording's maps that the state is asked for at every step."""
    picture_width: int = 64
    """Channels of the convolutions that draw a map."""


class Outcomes(NamedTuple):
    """What states say under each of m instructions."""

    reward: Float[Tensor, "*b m"]
    success: Float[Tensor, "*b m"]
    """Logits."""
    terminated: Float[Tensor, "*b m"]
    """Logits."""


class Window(NamedTuple):
    """Stretches of a recording to learn from: t steps, t + 1 frames, of which the first `observed` are shown.

    Row i of rewards, successes and terminations judges frame i + 1.
    """

    frames: Float[Tensor, "b k f g g"]
    """Fused maps of the first k frames, k the largest of `observed`."""
    observed: Int[Tensor, " b"]
    """How many of them each stretch is shown, 1 to k."""
    actions: Float[Tensor, "b t a"]
    rewards: Float[Tensor, "b t m"]
    """By all instructions of the world."""
    successes: Float[Tensor, "b t m"]
    terminations: Float[Tensor, "b t m"]
    inside: Bool[Tensor, "b t1"]
    """Whether the episode has this frame; a stretch may begin close to its end."""
    components: Float[Tensor, "b t1 c"]
    """Of every frame's map, as `RecurrentState.project` gives them."""
    drawn: Int[Tensor, "b p"]
    """Some frames of each stretch whose maps are drawn in full, numbers of frames inside."""
    targets: Float[Tensor, "b p f g g"]
    """Their true maps."""


class StateLoss(NamedTuple):
    """`total`, and its parts, each relative to the spread of what it predicts; ends and successes in nats."""

    total: Tensor
    components: Tensor
    picture: Tensor
    reward: Tensor
    success: Tensor
    terminated: Tensor
    inverse: Tensor


class RecurrentState(nn.Module):
    """A vector [b, w] that stands for all that was observed and done."""

    map_mean: Tensor
    map_scale: Tensor
    centre: Tensor
    basis: Tensor
    map_spread: Tensor
    component_spread: Tensor
    reward_spread: Tensor

    def __init__(self, tokenizer: TokenizerConfig, config: StateConfig, action_size: int, instruction_size: int):
        """Args:
        instruction_size: of an instruction's embedding, as `WorldModel.read_instructions` gives it.
        """
        super().__init__()
        self.config, self.action_size = config, action_size
        channels, width = tokenizer.width, config.width
        cells = (tokenizer.grid + 1) // 2
        self.embedding = nn.Sequential(
            nn.Conv2d(channels, 64, 3, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(64, 64, 3, padding=1), nn.SiLU(),
            nn.Flatten(), nn.Linear(64 * cells**2, config.embedding), nn.LayerNorm(config.embedding),
        )  # fmt: skip
        self.initial = nn.Parameter(torch.zeros(width))
        self.corrector = GatedCell(config.embedding, width)
        self.predictor = GatedCell(action_size, width)
        self.outcome_head = OutcomeHead(width, config.head_width, instruction_size)
        self.to_components = nn.Sequential(
            nn.Linear(width, config.head_width), nn.SiLU(), nn.Linear(config.head_width, config.components)
        )
        self.picture_head = PictureHead(channels, config.picture_width)
        self.inverse = nn.Sequential(nn.Linear(2 * config.embedding, 128), nn.SiLU(), nn.Linear(128, action_size))
        flat = channels * tokenizer.grid**2
        self.register_buffer("map_mean", torch.zeros(channels, 1, 1))
        self.register_buffer("map_scale", torch.ones(channels, 1, 1))
        self.register_buffer("centre", torch.zeros(flat))
        self.register_buffer("basis", torch.zeros(config.components, flat))
        self.register_buffer("map_spread", torch.ones(()))
        self.register_buffer("component_spread", torch.ones(()))
        self.register_buffer("reward_spread", torch.ones(()))

    # -- the filter ---------------------------------------------------------------------------------------------------

    def correct(self, state: Float[Tensor, "b w"], fused: Float[Tensor, "b f g g"]) -> Float[Tensor, "b w"]:
        """The state once a frame is observed.

        Args:
            fused: the frame's map, with itself as the context.
        """
        return self.corrector(state, self.corrector.enter(self.embed(fused)))

    def predict(self, state: Float[Tensor, "b w"], action: Float[Tensor, "b a"]) -> Float[Tensor, "b w"]:
        """The state after one action."""
        return self.predictor(state, self.predictor.enter(action))

    def observe(self, fused: Float[Tensor, "b k f g g"], actions: Float[Tensor, "b k1 a"]) -> Float[Tensor, "b w"]:
        """The state after k frames, oldest first, and the k - 1 actions between them."""
        state = self.correct(self.initial.expand(len(fused), -1), fused[:, 0])
        for action, frame in zip(actions.unbind(1), fused[:, 1:].unbind(1), strict=True):
            state = self.correct(self.predict(state, action), frame)
        return state

    def rollout(self, state: Float[Tensor, "b w"], actions: Float[Tensor, "b t a"]) -> Float[Tensor, "b t w"]:
        """The states after each of t actions, open loop."""
        entered = self.predictor.enter(actions.transpose(0, 1))
        states = []
        for step in entered.unbind(0):
            state = self.predictor(state, step)
            states.append(state)
        return torch.stack(states, 1)

    def embed(self, fused: Float[Tensor, "b f g g"]) -> Float[Tensor, "b e"]:
        """What a frame's map tells."""
        return self.embedding((fused - self.map_mean) / self.map_scale)

    # -- what is read off the state -----------------------------------------------------------------------------------

    def outcomes(self, states: Float[Tensor, "*b w"], instructions: Float[Tensor, "m d"]) -> Outcomes:
        """Of the newest frame, under each instruction."""
        return Outcomes(*self.outcome_head(states, instructions).unbind(-2))

    def picture(self, states: Float[Tensor, "b w"], observed: Float[Tensor, "b f g g"]) -> Float[Tensor, "b f g g"]:
        """The fused map of the newest frame.

        Args:
            observed: the last map that was observed, which the picture is where nothing has moved.
        """
        return self.picture_head(self._coarse(states, observed), observed)

    def _coarse(self, states: Tensor, observed: Tensor) -> Tensor:
        return torch.addmm(self.centre, self.to_components(states), self.basis).view(-1, *observed.shape[1:])

    # -- training -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def measure(self, fused: Float[Tensor, "n f g g"], reward_spread: float) -> None:
        """Take means, scales and principal components from a sample of a recording's maps, before training.

        Args:
            fused: a few thousand maps, more than there are components.
            reward_spread: the variance of rewards by the same instruction.
        """
        if len(fused) <= self.config.components:
            raise ValueError(f"{len(fused)} maps cannot have {self.config.components} components; sample more of them")
        self.map_mean.copy_(fused.mean((0, 2, 3))[:, None, None])
        self.map_scale.copy_(fused.std((0, 2, 3))[:, None, None])
        flat = fused.flatten(1)
        self.centre.copy_(flat.mean(0))
        values, vectors = principal_components(flat - self.centre, self.config.components)
        self.basis.copy_(vectors)
        self.component_spread.copy_(values.sum())
        self.map_spread.copy_((flat - self.centre).square().mean())
        self.reward_spread.fill_(reward_spread)

    def project(self, fused: Float[Tensor, "n f g g"]) -> Float[Tensor, "n c"]:
        """Principal components of maps."""
        return (fused.flatten(1) - self.centre) @ self.basis.T

    def loss(self, window: Window, instructions: Float[Tensor, "m d"]) -> StateLoss:
        """Of windows whose first frames are observed and whose rest is carried open loop."""
        batch, most = window.frames.shape[:2]
        embedded = self.embed(window.frames.flatten(0, 1)).unflatten(0, (batch, most))
        states = self._follow(embedded, window)
        share = window.inside / window.inside.sum()
        after = window.inside[:, 1:] / window.inside[:, 1:].sum()

        error = (self.to_components(states) - window.components).square().sum(-1)
        components = (error * share).sum() / self.component_spread
        said = self.outcomes(states[:, 1:], instructions)
        reward = ((said.reward - window.rewards).square().mean(-1) * after).sum() / self.reward_spread
        success, terminated = (
            (F.binary_cross_entropy_with_logits(logits, true, reduction="none").mean(-1) * after).sum()
            for logits, true in ((said.success, window.successes), (said.terminated, window.terminations))
        )
        rows = torch.arange(batch, device=states.device)
        newest = window.frames[rows, window.observed - 1]
        chosen = states[rows[:, None], window.drawn].flatten(0, 1)
        drawn = self.picture(chosen, newest.repeat_interleave(window.drawn.shape[1], 0)).view_as(window.targets)
        picture = (drawn - window.targets).square().mean() / self.map_spread
        inverse = states.new_zeros(())
        if most > 1:  # what was done between two frames shows in them: their embeddings must keep what moves
            told = self.inverse(torch.cat([embedded[:, :-1], embedded[:, 1:]], -1))
            inverse = (told - window.actions[:, : most - 1]).square().mean()
        total = components + picture + reward + success + terminated + 0.1 * inverse
        return StateLoss(total, components, picture, reward, success, terminated, inverse)

    def _follow(self, embedded: Float[Tensor, "b k e"], window: Window) -> Float[Tensor, "b t1 w"]:
        """States of all frames, corrected as long as frames are observed."""
        entered, seen = self.predictor.enter(window.actions), self.corrector.enter(embedded)
        state = self.corrector(self.initial.expand(len(embedded), -1), seen[:, 0])
        states = [state]
        for step in range(window.actions.shape[1]):
            state = self.predictor(state, entered[:, step])
            if step + 1 < seen.shape[1]:
                corrected = self.corrector(state, seen[:, step + 1])
                state = torch.where((step + 1 < window.observed)[:, None], corrected, state)
            states.append(state)
        return torch.stack(states, 1)


class GatedCell(nn.Module):
    """A gated recurrent unit (Cho et al., 2014) whose input has entered before: of a whole plan in one product."""

    def __init__(self, size: int, width: int):
        super().__init__()
        self.enter = nn.Linear(size, 3 * width)
        self.recur = nn.Linear(width, 3 * width)

    def forward(self, state: Float[Tensor, "b w"], entered: Float[Tensor, "b w3"]) -> Float[Tensor, "b w"]:
        forget, keep, new = self.recur(state).chunk(3, -1)
        forget_by, keep_by, entered = entered.chunk(3, -1)
        proposed = torch.tanh(entered + (forget + forget_by).sigmoid() * new)
        return torch.lerp(proposed, state, (keep + keep_by).sigmoid())


class OutcomeHead(nn.Module):
    """Reward, success and end as products of what the state shows and what the instruction weighs.

    Bilinear, so that one pass judges a state by all instructions: every step of every window learns from all of them.
    """

    def __init__(self, width: int, hidden: int, instruction_size: int):
        super().__init__()
        self.features = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.weigh = nn.Sequential(
            nn.LayerNorm(instruction_size), nn.Linear(instruction_size, 128), nn.SiLU(),
            nn.Linear(128, 3 * (hidden + 1)),
        )  # fmt: skip

    def forward(self, states: Float[Tensor, "*b w"], instructions: Float[Tensor, "m d"]) -> Float[Tensor, "*b three m"]:
        features = self.features(states)
        weights = self.weigh(instructions).unflatten(-1, (3, -1)).transpose(0, 1)  # [3, m, hidden + 1]
        weights, bias = weights[..., :-1].flatten(0, 1) * features.shape[-1] ** -0.5, weights[..., -1].flatten()
        return F.linear(features, weights, bias).unflatten(-1, (3, -1))


class PictureHead(nn.Module):
    """The last observed map where nothing moved, the state's coarse map where something did, and a correction."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.from_coarse, self.from_observed = (nn.Conv2d(channels, width, 3, padding=1) for _ in range(2))
        self.one, self.other = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.leave = nn.Conv2d(width, channels + 1, 1)
        nn.init.zeros_(self.leave.weight)
        assert self.leave.bias is not None
        nn.init.zeros_(self.leave.bias)

    def forward(self, coarse: Float[Tensor, "b f g g"], observed: Float[Tensor, "b f g g"]) -> Float[Tensor, "b f g g"]:
        x = F.silu(self.from_coarse(coarse) + self.from_observed(observed))
        x = x + self.other(F.silu(self.one(x)))
        correction, moved = self.leave(F.silu(x)).split([coarse.shape[1], 1], 1)
        return torch.lerp(observed, coarse, moved.sigmoid()) + correction


def principal_components(centred: Float[Tensor, "n d"], count: int) -> tuple[Float[Tensor, " c"], Float[Tensor, "c d"]]:
    """The largest variances along unit vectors, and those vectors; of fewer samples than numbers, by their products."""
    values, vectors = torch.linalg.eigh((centred @ centred.T).double())
    values, vectors = values[-count:].flip(0), vectors[:, -count:].flip(1)
    directions = (vectors.T.to(centred.dtype) @ centred) / values.sqrt()[:, None].to(centred.dtype)
    return (values / len(centred)).to(centred.dtype), directions
