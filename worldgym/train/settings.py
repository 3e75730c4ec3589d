"""The settings of each training. Light: the command line reads these without torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Protocol, runtime_checkable

import tyro

from ..config import (
    ConversationConfig,
    DecoderConfig,
    DynamicsConfig,
    RecurrentConfig,
    SwinConfig,
    TokenizerConfig,
)
from ..errors import UserError

MAY_DIFFER = frozenset({"out", "processes", "device", "evaluate_every", "accumulate", "gradient_checkpointing"})
"""Settings in which a resumed run may differ from the run that it continues: none of them changes a weight by more than
rounding."""


@runtime_checkable
class Training(Protocol):
    """The settings that the training loop reads, of any stage."""

    @property
    def out(self) -> Path: ...
    @property
    def steps(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def evaluate_every(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def device(self) -> str: ...


@dataclass(frozen=True)
class TokenizerTraining:
    """Train the SAMPO tokenizer of a world.

    For example:
        worldgym train tokenizer --dataset mine/arm-v0 \
            --out runs/arm/tokenizer
        worldgym train tokenizer --begin-from tabletop
    """

    dataset: str = "worldgym/tabletop-v0"
    """Minari id of the recorded episodes; URL of shards; or a LeRobot data set, lerobot:URL."""
    out: Path = Path("runs/tabletop/tokenizer")
    """Checkpoint folder; an existing one is resumed."""
    begin_from: str | None = None
    """World from whose tokenizer to start (a bundled name, a folder or user/name); from scratch by default."""
    steps: int = 5000
    """Optimiser steps."""
    batch: int = 48
    """Frames a step, each with its own context frame."""
    max_gap: int = 16
    """The context is up to this many steps before the frame."""
    learning_rate: float = 1e-3
    """Peak; warm-up, then cosine to a twentieth."""
    seed: int = 0
    evaluate_every: int = 250
    """Steps between evaluations, pictures and checkpoints."""
    device: str = "auto"
    """"auto" takes a GPU where there is one."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)


@dataclass(frozen=True)
class DynamicsTraining:
    """Train the dynamics of a world over its frozen tokenizer.

    For example:
        worldgym train dynamics --dataset mine/arm-v0 \
            --tokenizer runs/arm/tokenizer \
            --out runs/arm/world --memory 3
    """

    dataset: str = "worldgym/tabletop-v0"
    """Minari id of the recorded episodes; URL of shards; or a LeRobot data set, lerobot:URL."""
    tokenizer: Path = Path("runs/tabletop/tokenizer")
    """Checkpoint folder of the trained tokenizer, or of a world whose tokenizer to keep."""
    out: Path = Path("runs/tabletop/world")
    """Checkpoint folder of the world; an existing one is resumed."""
    begin_from: str | None = None
    """World from whose dynamics to start (a bundled name, a folder or user/name); from scratch by default."""
    steps: int = 6000
    """Optimiser steps."""
    batch: int = 16
    """Segments a step."""
    learning_rate: float = 1e-3
    """Peak; warm-up, then cosine to a twentieth."""
    token_noise: Annotated[float, tyro.conf.arg(aliases=["--slips"])] = 0.1
    """Mean share of tokens replaced by wrong ones in the model's own past."""
    prompt_dropout: float = 0.5
    """Share of the segments that are trained without their motion prompt (SAMPO), in a world that has one. Dreams that
    start from a single frame have none."""
    self_forcing: Annotated[float, tyro.conf.arg(aliases=["--self-fed"])] = 0.5
    """Share of the segments in which the model reads its own dreams, not the recording, in --self-forcing-steps."""
    self_forcing_steps: Annotated[float, tyro.conf.arg(aliases=["--self-fed-steps"])] = 0.4
    """Share of the training, at its end, that has self-forcing. Earlier, a model's own dreams teach it little."""
    processes: int = 2
    """Processes that share each batch on a CPU; a GPU takes one."""
    seed: int = 0
    evaluate_every: int = 300
    """Steps between evaluations, videos and checkpoints."""
    starts: int = 100
    """Held-out starting frames that travel with the checkpoint, for `reset` without frames."""
    device: str = "auto"
    """"auto" takes a GPU where there is one."""
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)


@dataclass(frozen=True)
class RecurrentTraining:
    """Train the recurrent state of a world, in which planners try futures faster than MuJoCo does; all else stays as
    it is.

    For example:
        worldgym train state --world runs/arm/world --dataset mine/arm-v0 --out runs/arm/planned
    """

    dataset: str = "worldgym/tabletop-v0"
    """Minari id of the recorded episodes; URL of shards; or a LeRobot data set, lerobot:URL."""
    world: str = "runs/tabletop/world"
    """The trained world: a folder, a bundled name or user/name."""
    out: Path = Path("runs/tabletop/planned")
    """Folder of the same world with its recurrent state; an existing one is resumed."""
    lived: tuple[str, ...] = ()
    """Further data sets, of what planners or agents did: half of the stretches are of them."""
    fresh: bool = True
    """Begin anew; else from the state that the world has."""
    begin_from: str | None = None
    """World from whose state to begin anew, as far as it fits (a bundled name, a folder or user/name)."""
    looks: bool = True
    """Show half of the stretches in other light, from elsewhere, in other colours, with things lying about, so that the
    state is true in strange scenes, too."""
    steps: int = 10_000
    """Optimiser steps."""
    batch: int = 64
    """Stretches a step."""
    ahead: int = 24
    """Steps that it imagines in the last 60% of the training; half of them before, a quarter in the first 10%."""
    learning_rate: float = 2e-3
    """Peak; warm-up, then cosine to a twentieth."""
    processes: int = 1
    """Processes that share each batch on a CPU; a GPU takes one."""
    seed: int = 0
    evaluate_every: int = 1000
    """Steps between evaluations and checkpoints."""
    device: str = "auto"
    """"auto" takes a GPU where there is one."""
    recurrent: RecurrentConfig = field(default_factory=RecurrentConfig)

    def __post_init__(self):
        if self.ahead < 1:
            raise UserError(f"--ahead is {self.ahead}; it must be at least one step")
        if self.begin_from is not None and not self.fresh:
            raise UserError("--no-fresh begins from the world's own state; leave it out, or --begin-from")


@dataclass(frozen=True)
class FramesTraining:
    """Teach a world to draw its frames from its recurrent state: the scale head is shown what the state foresees. A
    dream is then true for as long as the state is. What reads instructions, and the state, stay as they are.

    For example:
        worldgym train frames --world runs/arm/planned --dataset mine/arm-v0 --out runs/arm/drawn
    """

    dataset: str = "worldgym/tabletop-v0"
    """Minari id of the recorded episodes; URL of shards; or a LeRobot data set, lerobot:URL."""
    world: str = "runs/tabletop/planned"
    """The world with its recurrent state: a folder, a bundled name or user/name."""
    out: Path = Path("runs/tabletop/drawn")
    """Folder of the same world, drawing from it; an existing one is resumed."""
    steps: int = 1500
    """Optimiser steps."""
    batch: int = 8
    """Segments a step."""
    learning_rate: float = 4e-4
    """Peak; warm-up, then cosine to a twentieth."""
    token_noise: float = 0.1
    """As `worldgym train dynamics` has it."""
    prompt_dropout: float = 0.5
    """As `worldgym train dynamics` has it."""
    self_forcing: float = 0.75
    """Share of the segments in which the model reads its own dreams, not the recording."""
    self_forcing_steps: float = 1.0
    """Share of the training, at its end, that has self-forcing."""
    rereads: bool = False
    """Let the state of a dream be corrected by what was drawn at every new window: measure it for each world."""
    processes: int = 2
    """Processes that share each batch on a CPU; a GPU takes one."""
    seed: int = 0
    evaluate_every: int = 100
    """Steps between evaluations, videos and checkpoints."""
    device: str = "auto"
    """"auto" takes a GPU where there is one."""

    def __post_init__(self):
        if self.batch % self.processes:
            raise UserError(f"a batch of {self.batch} segments can't be shared by {self.processes} processes")


@dataclass(frozen=True)
class DecoderTraining:
    """Train the diffusion decoder of a world on recorded episodes; the world stays as it is.

    For example:
        worldgym train decoder --processes 2
        worldgym export tabletop worlds/mine --decoder runs/tabletop/decoder/decoder
    """

    world: str = "tabletop"
    """The trained world: a bundled name, a folder or user/name."""
    dataset: str = "worldgym/tabletop-v0"
    """Minari id of the recorded episodes; URL of shards; or a LeRobot data set, lerobot:URL."""
    out: Path = Path("runs/tabletop/decoder")
    """Folder of the run, an existing one is resumed; the decoder itself is in its subfolder `decoder`."""
    steps: int = 3000
    """Optimiser steps."""
    batch: int = 8
    """Windows a step."""
    windows: int = 4
    """Windows cut out of each segment of the recording."""
    learning_rate: float = 2e-3
    """Peak; warm-up, then cosine to a twentieth."""
    processes: int = 1
    """Processes that share each batch on a CPU; a GPU takes one."""
    seed: int = 0
    evaluate_every: int = 250
    """Steps between checkpoints."""
    device: str = "auto"
    """"auto" takes a GPU where there is one."""
    decoder: DecoderConfig = field(default_factory=DecoderConfig)

    def __post_init__(self):
        if self.batch % self.windows:
            raise UserError(f"a batch of {self.batch} windows is no multiple of {self.windows} windows a segment")


@dataclass(frozen=True)
class PanAdaptTraining:
    """Train PAN, stage one: a text-to-video Wan becomes Causal Swin-DPM.

    For example:
        accelerate launch --config_file docs/accelerate/hsdp.yaml \
            -m worldgym train pan adapt --clips clips
    """

    clips: Path
    """Folder with clips.jsonl."""
    wan: str = "Wan-AI/Wan2.1-T2V-14B-Diffusers"
    """Pipeline by hub name or folder."""
    out: Path = Path("runs/pan/adapt")
    """Folder of the run, an existing one is resumed; the decoder is in its subfolder `decoder`."""
    height: int = 480
    width: int = 832
    swin: SwinConfig = field(default_factory=SwinConfig)
    steps: int = 10_000
    """Optimiser steps."""
    batch: int = 8
    """Windows a step, over all processes together."""
    accumulate: int = 1
    """Parts in which a process computes its windows one after another, to save memory."""
    learning_rate: float = 1e-5
    """Peak; warm-up, then cosine to a twentieth."""
    warm_up: float = 0.05
    """Share of the steps."""
    clip: float = 0.05
    """Norm that gradients are clipped to."""
    precision: Literal["no", "bf16"] = "bf16"
    gradient_checkpointing: bool = True
    """Compute the layers' activations again in the backward pass instead of keeping them."""
    seed: int = 0
    evaluate_every: int = 500
    """Steps between checkpoints."""
    device: str = "auto"
    """"auto" takes GPUs where there are any."""


@dataclass(frozen=True)
class PanJointTraining(PanAdaptTraining):
    """Train PAN, stage two: the queries of the frozen language model and the decoder's attention to them.

    For example:
        accelerate launch --config_file docs/accelerate/hsdp.yaml \
            -m worldgym train pan joint --clips clips
    """

    vlm: str = "Qwen/Qwen2.5-VL-7B-Instruct"
    """Backbone by hub name or folder."""
    decoder: Path = Path("runs/pan/adapt/decoder")
    """What stage one wrote."""
    out: Path = Path("runs/pan/joint")
    """Folder of the run; what it holds in the end, `worldgym/Pan-v0` and `PanWorld.load` take as trained."""
    conversation: ConversationConfig = field(default_factory=ConversationConfig)
