"""Sizes of the models, as frozen values that travel in their checkpoints. Nothing here needs torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from .actions import ActionCodec, read_codec
from .reader import reader_of

PICTURED = 64
"""Channels of the map that a recurrent state's own picture is made of, and that the scale head is shown."""


@dataclass(frozen=True)
class TokenizerConfig:
    """The SAMPO tokenizer (see tokenizer.py)."""

    resolution: int = 64
    """Frames are resolution x resolution pixels; in training, those of the data set."""
    channels: tuple[int, ...] = (32, 64, 96)
    """Width after each halving of the resolution; their number sets the latent grid: 64 / 2^3 = 8."""
    latent_channels: int = 12
    """Width of the quantised map."""
    codes: int = 512
    """Entries in the codebook that all scales share."""
    scales: tuple[int, ...] = (1, 2, 4, 8)
    """Side lengths of the token maps, coarse to fine; the dynamics need the last to be the latent grid. By default they
    double up to the grid of the data set's frames."""
    heads: int = 4
    """Heads of the cross-attention on the context."""

    def __post_init__(self):
        if self.resolution < 1 or self.resolution % 2 ** len(self.channels):
            raise ValueError(
                f"resolution is {self.resolution}; it is halved {len(self.channels)} times, so it must be a multiple "
                f"of {2 ** len(self.channels)}"
            )
        if self.scales[-1] > self.grid or list(self.scales) != sorted(set(self.scales)):
            raise ValueError(f"scales {self.scales} must grow, up to the latent grid, {self.grid}")

    @property
    def grid(self) -> int:
        """Side of the latent map."""
        return self.resolution >> len(self.channels)

    @property
    def width(self) -> int:
        """Channels of the context map and of the fused map."""
        return self.channels[-1]

    @property
    def tokens(self) -> int:
        """Tokens of a future frame, all scales together."""
        return sum(scale * scale for scale in self.scales)

    def fitted(self, frame: Sequence[int]) -> "TokenizerConfig":
        """The same tokenizer for frames of a data set, where resolution and scales are left as they are by default.

        Args:
            frame: (height, width, 3).
        """
        side = frame[0]
        if tuple(frame) != (side, side, 3):
            raise ValueError(f"frames are {tuple(frame)}; a tokenizer takes squares, (side, side, 3)")
        if self.resolution not in (side, TokenizerConfig.resolution):
            raise ValueError(f"resolution is {self.resolution}, but the data set has frames of {side} pixels a side")
        if self.scales != TokenizerConfig.scales:
            return replace(self, resolution=side)
        grid = side >> len(self.channels)
        return replace(self, resolution=side, scales=(*(2**n for n in range((grid - 1).bit_length())), grid))


@dataclass(frozen=True)
class DynamicsConfig:
    """Backbone, scale head and outcome heads (see dynamics.py)."""

    layers: int = 2
    """Layers of the language-model backbone."""
    width: int = 256
    """Its hidden size."""
    heads: int = 4
    """Its attention heads."""
    kv_heads: int = 1
    """Its key/value heads; fewer make the cache smaller."""
    mlp_width: int = 320
    """Hidden size of its gated MLPs."""
    patch: int = 2
    """A state token covers patch x patch cells of the fused map."""
    predict: str = "in_place"
    """"in_place": the state tokens' outputs are the next state; "queries": separate query tokens are (PAN's layout);
    "queries_kept": the same, but later steps still attend to them."""
    head_width: int = 160
    """Width of the scale head."""
    trunk_layers: int = 2
    """Its blocks over the latent grid, before the first guess."""
    head_layers: int = 1
    """Its blocks over each scale, shared by the scales."""
    window: int = 16
    """Steps the backbone remembers; then the newest frames become the context and what follows it."""
    memory: int = 1
    """Frames that define the state of a dream; when the window is full, the next window starts from as many. With more
    than one, the dynamics also get each frame's difference to the one before: speed, which no frame shows alone."""
    prompt: int = 0
    """Observed frames whose tracked points are drawn as trajectories on the newest of them, the context: the motion
    prompt (SAMPO A3). 0 for none, else 2 or more."""
    vocabulary: int = 320
    """Entries of the byte-level BPE."""
    outcome_heads: int = 3
    """Members of the reward ensemble."""
    from_state: bool = False
    """Whether frames are drawn from the recurrent state: the scale head is shown what the state's own picture is made
    of."""
    rereads: bool = False
    """Whether the state is corrected by the newest drawn frame when a new window begins. Very long dreams may keep more
    of their things; where frames are less true than the state, it is the worse for it."""
    residual: float = 0.5
    """Share of what a frame's tokens leave out that is kept in addition to them; 0 keeps the tokens alone (see
    model/scale_head.py)."""

    def __post_init__(self):
        if self.predict not in ("in_place", "queries", "queries_kept"):
            raise ValueError(f"predict {self.predict!r} must be 'in_place', 'queries' or 'queries_kept'")
        if not 1 <= self.memory <= self.window // 2 + 1:
            raise ValueError(
                f"memory is {self.memory}; with a window of {self.window} it is 1 to {self.window // 2 + 1}"
            )
        if self.prompt < 0 or self.prompt == 1:
            raise ValueError(f"prompt is {self.prompt}; motion shows in 2 observed frames or more, 0 is for no prompt")
        if self.observed > self.window + 1:
            raise ValueError(
                f"prompt {self.prompt} and memory {self.memory} take {self.observed} frames; a full window of "
                f"{self.window} steps has {self.window + 1} to continue from"
            )
        if self.rereads and not self.from_state:
            raise ValueError("rereads corrects the state that frames are drawn from, and from_state is False")
        if not 0.0 <= self.residual <= 1.0:
            raise ValueError(f"residual is {self.residual}; it is a share, from 0 to 1")

    @property
    def lead(self) -> int:
        """Frames before the context that the motion prompt is drawn from."""
        return max(0, self.prompt - 1)

    @property
    def observed(self) -> int:
        """Frames that a dream uses at its beginning: those of the prompt, whose last one is the context, and those of
        the memory, whose first one is the context."""
        return self.lead + self.memory


@dataclass(frozen=True)
class RecurrentConfig:
    """Sizes of the state that futures are tried in (see recurrent_state.py)."""

    width: int = 256
    """Numbers in the state. A step costs three times its square in products."""
    embedding: int = 256
    """Numbers that a frame is embedded in."""
    head_width: int = 256
    """Features that rewards, successes and ends are read off."""
    channels: tuple[int, ...] = (16, 32, 64)
    """Width after each halving of the frame."""
    points: int = 32
    """Features that a frame is searched for, each with its place; 0 for none."""
    observed: int = 8
    """Frames that training shows at most, and that a planner's decision is grounded on. More may be observed."""

    def __post_init__(self):
        if self.observed < 1:
            raise ValueError(f"observed is {self.observed}; a state needs at least one frame")


@dataclass(frozen=True)
class WorldConfig:
    """Everything about a world that is not a weight."""

    name: str
    action_size: int
    """Numbers in a vector action."""
    instructions: tuple[str, ...]
    """The instructions that reward, success and the end of an episode can be for."""
    phrases: tuple[str, ...]
    """Sentences the world was trained on; the list behind `action_mode="discrete"`."""
    frames_per_action: int
    """Frames that one sentence covers."""
    twin: str = ""
    """Gymnasium id of the true environment; empty if there is none to compare with."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    recurrent: RecurrentConfig | None = None
    """Of the state that `evaluate` tries futures in; None in a world that has none, which then draws every frame of
    them."""
    actions: dict[str, Any] | None = field(default=None, hash=False)
    """The space that the vectors stand for, as `ActionCodec.describe` has it; None is Box(-1, 1, (action_size,))."""
    twin_options: dict[str, Any] = field(default_factory=dict, hash=False)
    """How the twin is made and seen: further keyword arguments of `worldgym.envs_real.gym_record.make_twin`."""

    @property
    def codec(self) -> ActionCodec:
        """Between the actions of the world's environments and the vectors that its networks see."""
        return read_codec(self.actions, self.action_size)

    @property
    def observed(self) -> int:
        """Frames that a planner's decision is grounded on."""
        return max(self.dynamics.observed, self.recurrent.observed if self.recurrent else 1)

    def matching(self, patterns: Sequence[str]) -> list[str]:
        """The instructions that match a pattern, where * stands for anything, or have its meaning; a ValueError if none
        does."""
        meant = {reader_of(self.instructions).read(pattern).phrase for pattern in patterns}
        wanted = [i for i in self.instructions if i in meant or any(fnmatchcase(i, pattern) for pattern in patterns)]
        if not wanted:
            some = "; ".join(self.instructions[:: max(1, len(self.instructions) // 5)])
            raise ValueError(
                f"no instruction of {self.name!r} matches {' or '.join(map(repr, patterns))}; it has "
                f"{len(self.instructions)}, for instance: {some}"
            )
        return wanted


@dataclass(frozen=True)
class Schedule:
    """The noise levels that sampling passes through."""

    steps: int = 50
    """K."""
    shift: float = 5.0
    """How long it stays at high noise; a picture of more pixels needs more noise to be hidden (SD3). 1 is evenly."""

    def __post_init__(self):
        if self.steps < 1 or not self.shift > 0:
            raise ValueError(f"a schedule takes at least 1 step and a positive shift, got {self}")

    def level(self, share: Any) -> Any:
        """Noise level of a share in [0, 1] of the steps that remains, a number or a tensor: the shift is applied here
        and nowhere else.

        Chunks are paired by the share, that is by step index, *before* the shift: with shift 5, the half of the
        steps is a level of 0.83.
        """
        return self.shift * share / (1 + (self.shift - 1) * share)


@dataclass(frozen=True)
class SwinConfig:
    """The defaults are PAN's."""

    frames: int = 10
    """Latent frames of a chunk."""
    schedule: Schedule = field(default_factory=Schedule)
    offset: float = 0.5
    """By how large a share of the steps the late chunk is noisier. 1 is no window at all: chunk after chunk."""
    condition_level: float = 0.055
    """Noise level of the frame before the window, so that its incidental pixels are not clung to."""
    guidance: float = 4.0
    """Of classifier-free guidance; 1 is none and takes half the time."""
    first: float = 0.2
    """Share of the training windows that are the beginning of a video: one chunk, from all noise to none."""
    drop: float = 0.1
    """Share of the training windows without action and state, for guidance."""

    def __post_init__(self):
        whole = self.offset * self.schedule.steps
        if not 0 < self.offset <= 1 or abs(whole - round(whole)) > 1e-9:
            raise ValueError(
                f"an offset of {self.offset} of {self.schedule.steps} steps is not a whole number of steps"
            )

    @property
    def overlap(self) -> int:
        """Steps during which the late chunk sees the early one."""
        return self.schedule.steps - round(self.offset * self.schedule.steps)


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of a toy decoder, and how it samples."""

    patch: int = 4
    """Pixels a side that one token shows. A whole cell of the fused map is quicker, and more than so narrow a network
    can sharpen."""
    spread: float = 0.3
    """Standard deviation of the noise around the fast decoder's picture, of pixels in [-1, 1]."""
    layers: int = 3
    heads: int = 4
    head_width: int = 32
    mlp_width: int = 512
    swin: SwinConfig = field(
        default_factory=lambda: SwinConfig(frames=1, schedule=Schedule(4, 1.0), guidance=1.0, drop=0.0)
    )

    def __post_init__(self):
        if self.swin.guidance != 1.0:
            raise ValueError("nothing is said to this decoder that guidance could leave out; its guidance is 1")


@dataclass(frozen=True)
class ConversationConfig:
    """What the backbone is shown of the past. The paper gives queries and rounds; the rest is not reported."""

    queries: int = 256
    """Continuous tokens that a state is predicted as."""
    rounds: int = 10
    """Steps remembered."""
    frames: int = 4
    """Frames shown of each chunk, evenly spread."""
    height: int = 252
    """Of a frame as the vision tower sees it; a multiple of its merged patches, 28."""
    width: int = 448
    lora_rank: int = 0
    """Of adapters in the language model's attention; 0 leaves it as it was, as PAN does."""


@dataclass(frozen=True)
class PanConfig:
    """What a trained PAN is, besides its weights: `pan.json` in the folder that the second stage writes."""

    vlm: str
    """The language model that it was trained on, by hub name or folder."""
    video: str
    """The Wan whose autoencoder and text encoder it was trained with, likewise."""
    height: int
    """Of a frame, in pixels."""
    width: int
    swin: SwinConfig
