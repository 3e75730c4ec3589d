"""`worldgym train`: the stages of a world's training.

A stage is its settings in `Train.stage` and a row of `STAGES`.
"""

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Annotated

import tyro

from ..train.settings import DraftTraining, DynamicsTraining, TokenizerTraining

STAGES: dict[type, str] = {
    TokenizerTraining: "worldgym.train.tokenizer:train_tokenizer",
    DynamicsTraining: "worldgym.train.dynamics:train_dynamics",
    DraftTraining: "worldgym.train.draft:train_draft",
}
"""What trains each of them and returns the checkpoint's folder; by path, because it brings torch."""


@dataclass(frozen=True)
class Train:
    """Train a world: its tokenizer, its dynamics, for planners a draft. A killed run continues from its checkpoint.

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
    )


def train(config: Train) -> None:
    print(f"trained {resolve_name(STAGES[type(config.stage)])(config.stage)}")
