"""`worldgym train`: the stages of a world's training.

A stage is its settings in `Train.stage` and a row of `STAGES`.
"""

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Annotated

import tyro

from ..train.settings import (
    DecoderTraining,
    DraftTraining,
    DynamicsTraining,
    PanAdaptTraining,
    PanJointTraining,
    TokenizerTraining,
)

STAGES: dict[type, str] = {
    TokenizerTraining: "worldgym.train.tokenizer:train_tokenizer",
    DynamicsTraining: "worldgym.train.dynamics:train_dynamics",
    DraftTraining: "worldgym.train.draft:train_draft",
    DecoderTraining: "worldgym.train.decoder:train_decoder",
    PanAdaptTraining: "worldgym.pan.train:train_pan_adapt",
    PanJointTraining: "worldgym.pan.train:train_pan_joint",
}
"""What trains each of them and returns the checkpoint's folder; by path, because it brings torch."""


@dataclass(frozen=True)
class TrainPan:
    """Train PAN, the large preset, in two stages."""

    part: (
        Annotated[PanAdaptTraining, tyro.conf.subcommand("adapt")]
        | Annotated[PanJointTraining, tyro.conf.subcommand("joint")]
    )


@dataclass(frozen=True)
class Train:
    """Train a world: its tokenizer, its dynamics, a draft, a diffusion decoder. A killed run continues from its
    checkpoint.

    For example:
        worldgym train tokenizer
        worldgym train dynamics
        worldgym train draft
        tensorboard --logdir runs
    """

    stage: (
        Annotated[TokenizerTraining, tyro.conf.subcommand("tokenizer")]
        | Annotated[DynamicsTraining, tyro.conf.subcommand("dynamics")]
        | Annotated[DraftTraining, tyro.conf.subcommand("draft")]
        | Annotated[DecoderTraining, tyro.conf.subcommand("decoder")]
        | Annotated[TrainPan, tyro.conf.subcommand("pan")]
    )


def train(config: Train) -> None:
    stage = config.stage.part if isinstance(config.stage, TrainPan) else config.stage
    print(f"trained {resolve_name(STAGES[type(stage)])(stage)}")
