"""What each training can be asked for. Light: the command line reads these without torch."""

from dataclasses import dataclass, field
from pathlib import Path

from ..config import DraftConfig, DynamicsConfig, TokenizerConfig


@dataclass(frozen=True)
class TokenizerTraining:
    """Train the SAMPO tokenizer of a world.

    For example:
        worldgym train tokenizer --dataset mine/arm-v0 \
            --out runs/arm/tokenizer
        worldgym train tokenizer --begin-from tabletop
    """

    dataset: str = "worldgym/tabletop-v0"
    """Minari id of the recorded episodes."""
    out: Path = Path("runs/tabletop/tokenizer")
    """Checkpoint folder; an existing one is resumed."""
    begin_from: str | None = None
    """World whose tokenizer is trained on (a bundled name, a folder or user/name); from scratch by default."""
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
    """Minari id of the recorded episodes."""
    tokenizer: Path = Path("runs/tabletop/tokenizer")
    """Checkpoint folder of the trained tokenizer, or of a world whose tokenizer is to be kept."""
    out: Path = Path("runs/tabletop/world")
    """Checkpoint folder of the world; an existing one is resumed."""
    begin_from: str | None = None
    """World whose dynamics are trained on (a bundled name, a folder or user/name); from scratch by default."""
    steps: int = 6000
    """Optimiser steps."""
    batch: int = 16
    """Segments a step."""
    learning_rate: float = 1e-3
    """Peak; warm-up, then cosine to a twentieth."""
    token_noise: float = 0.1
    """Mean share of tokens replaced by wrong ones in the model's own past."""
    prompt_dropout: float = 0.5
    """Share of the segments that begin without their motion prompt (SAMPO), in a world that has one: as dreams do that
    begin from a single frame."""
    self_forcing: float = 0.5
    """Share of the segments that the model reads as it dreams them itself, in the last --self-fed-steps."""
    self_forcing_steps: float = 0.4
    """Share of the training, at its end, that is so: before, its own dreams teach it little."""
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
class DraftTraining:
    """Train the draft of a world, by which planners look ahead five times faster; all else stays as it is."""

    dataset: str = "worldgym/tabletop-v0"
    """Minari id of the recorded episodes."""
    world: str = "runs/tabletop/world"
    """The trained world: a folder, a bundled name or user/name."""
    out: Path = Path("runs/tabletop/drafted")
    """Folder of the same world with its draft; an existing one is resumed."""
    steps: int = 3000
    """Optimiser steps."""
    batch: int = 16
    """Stretches a step, of as many steps as the world's window."""
    ahead: tuple[int, ...] = (2, 4, 16)
    """Steps that it goes by itself: the first for a third of the training, and so on. Divisors of the window."""
    learning_rate: float = 2e-3
    """Peak; warm-up, then cosine to a twentieth."""
    processes: int = 2
    """Processes that share each batch on a CPU; a GPU takes one."""
    seed: int = 0
    evaluate_every: int = 300
    """Steps between evaluations and checkpoints."""
    device: str = "auto"
    """"auto" takes a GPU where there is one."""
    draft: DraftConfig = field(default_factory=DraftConfig)
