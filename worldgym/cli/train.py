"""`worldgym train`: the stages of a world's training.

A stage is its settings in `Train.stage` and a row of `STAGES`.
"""

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Annotated, Any

import tyro

from ..train.settings import (
    DecoderTraining,
    DynamicsTraining,
    FramesTraining,
    PanAdaptTraining,
    PanJointTraining,
    RecurrentTraining,
    TokenizerTraining,
)

STAGES: dict[type, str] = {
    TokenizerTraining: "worldgym.train.tokenizer:train_tokenizer",
    DynamicsTraining: "worldgym.train.dynamics:train_dynamics",
    RecurrentTraining: "worldgym.train.recurrent_state:train_recurrent_state",
    FramesTraining: "worldgym.train.frames:train_frames",
    DecoderTraining: "worldgym.train.decoder:train_decoder",
    PanAdaptTraining: "worldgym.pan.train:train_pan_adapt",
    PanJointTraining: "worldgym.pan.train:train_pan_joint",
}
"""What trains each of them and returns the run's folder; by path, because it brings torch."""


@dataclass(frozen=True)
class Pan:
    """Train the PAN preset: first its decoder, then the decoder with the language model. On GPUs, see docs/pan.md."""

    stage: (
        Annotated[PanAdaptTraining, tyro.conf.subcommand("adapt")]
        | Annotated[PanJointTraining, tyro.conf.subcommand("joint")]
    )


@dataclass(frozen=True)
class Train:
    """Train a world: its tokenizer, its dynamics, its recurrent state, the frames that are drawn from it, a diffusion
    decoder. A killed run continues from its checkpoint.

    For example:
        worldgym train tokenizer
        worldgym train dynamics
        worldgym train state
        worldgym train frames
        tensorboard --logdir runs
    """

    stage: (
        Annotated[TokenizerTraining, tyro.conf.subcommand("tokenizer"), tyro.conf.OmitArgPrefixes]
        | Annotated[DynamicsTraining, tyro.conf.subcommand("dynamics"), tyro.conf.OmitArgPrefixes]
        | Annotated[RecurrentTraining, tyro.conf.subcommand("state"), tyro.conf.OmitArgPrefixes]
        | Annotated[FramesTraining, tyro.conf.subcommand("frames"), tyro.conf.OmitArgPrefixes]
        | Annotated[DecoderTraining, tyro.conf.subcommand("decoder")]
        | Annotated[Pan, tyro.conf.subcommand("pan")]
    )


def train(config: Train) -> None:
    stage: Any = config.stage.stage if isinstance(config.stage, Pan) else config.stage
    print(f"trained {resolve_name(STAGES[type(stage)])(stage)}")
