"""Sizes of a world model, as frozen values that travel in its checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase


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
    "queries_kept": so, but later steps go on seeing them."""
    head_width: int = 160
    """Width of the scale head."""
    trunk_layers: int = 2
    """Its blocks over the latent grid, before the first guess."""
    head_layers: int = 1
    """Its blocks over each scale, shared by the scales."""
    window: int = 16
    """Steps the backbone remembers; then the newest frames become the context and what follows it."""
    memory: int = 1
    """Frames that tell where a dream stands: as many go on as steps when the window is full. With more than one, the
    dynamics are also told how each frame differs from the one before: speed, which a frame alone does not tell."""
    prompt: int = 0
    """Observed frames whose tracked points are drawn as trajectories on the newest of them, the context: the motion
    prompt (SAMPO A3). 0 for none, else 2 or more."""
    vocabulary: int = 320
    """Entries of the byte-level BPE."""
    outcome_heads: int = 3
    """Members of the reward ensemble."""
    residual: float = 0.5
    """Share of what a frame's tokens leave out that is kept beside them: 0 keeps tokens alone (see scales.py)."""

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
                f"{self.window} steps has {self.window + 1} to go on from"
            )
        if not 0.0 <= self.residual <= 1.0:
            raise ValueError(f"residual is {self.residual}; it is a share, from 0 to 1")

    @property
    def lead(self) -> int:
        """Frames before the context that the motion prompt is drawn from."""
        return max(0, self.prompt - 1)

    @property
    def observed(self) -> int:
        """Frames that tell all that a dream can be told at its beginning: those of the prompt, of which the last is the
        context, and those of the memory, of which the context is the first."""
        return self.lead + self.memory


@dataclass(frozen=True)
class DraftConfig:
    """What planners look ahead by (see draft.py)."""

    width: int = 64
    """Channels between the maps."""
    blocks: int = 2
    """Pairs of 3x3 convolutions."""


@dataclass(frozen=True)
class WorldConfig:
    """Everything about a world that is not a weight."""

    name: str
    action_size: int
    """Numbers in a vector action."""
    instructions: tuple[str, ...]
    """What reward, success and the end of an episode can be asked for."""
    phrases: tuple[str, ...]
    """Sentences the world was trained on; the list behind `action_mode="discrete"`."""
    frames_per_action: int
    """Frames that one sentence covers."""
    twin: str = ""
    """Gymnasium id of the true environment; empty if there is none to compare with."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    draft: DraftConfig | None = None
    """Of the network that `evaluate` looks ahead by; None in a world that has none, and dreams in full for it."""

    def matching(self, patterns: Sequence[str]) -> list[str]:
        """The instructions that match one of the patterns, where * stands for anything; a ValueError if none does."""
        wanted = [i for i in self.instructions if any(fnmatchcase(i, pattern) for pattern in patterns)]
        if not wanted:
            some = "; ".join(self.instructions[:: max(1, len(self.instructions) // 5)])
            raise ValueError(
                f"no instruction of {self.name!r} matches {' or '.join(map(repr, patterns))}; it has "
                f"{len(self.instructions)}, for instance: {some}"
            )
        return wanted
