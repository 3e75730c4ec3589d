"""The entry point of `worldgym`, and the table of its commands."""

import sys
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Annotated, Any, Union

import tyro

from .. import __version__
from ..agents.settings import Learning, Rank, Transfer
from ..envs_real.settings import RecordConfig
from ..errors import UserError
from ..interrupt import in_one_line
from ..planners.settings import Planning
from .bench import Bench, bench
from .demo import Demo, demo
from .evaluate import Evaluate, evaluate
from .export import Export, export
from .improve import improve
from .improve_settings import Improve
from .learn import learn
from .list import List, list_worlds
from .new import new
from .new_settings import New
from .plan import plan
from .play import Play, play
from .push import Push, push
from .rank import rank
from .record import record
from .render import Render, render
from .seeds import Seeds, over_seeds, with_seeds
from .serve import serve
from .serve_settings import Serve
from .shard import Shard, shard
from .train import Train, train
from .transfer import transfer

COMMANDS: dict[str, tuple[type, Callable[[Any], Any]]] = {
    "new": (New, new),
    "record": (RecordConfig, record),
    "shard": (Shard, shard),
    "train": (Train, train),
    "evaluate": (Evaluate, evaluate),
    "plan": (Planning, plan),
    "learn": (Learning, learn),
    "improve": (Improve, improve),
    "rank": (Rank, rank),
    "transfer": (Transfer, transfer),
    "demo": (Demo, demo),
    "bench": (Bench, bench),
    "render": (Render, render),
    "export": (Export, export),
    "play": (Play, play),
    "serve": (Serve, serve),
    "list": (List, list_worlds),
    "push": (Push, push),
}
"""The settings of each command, and the function that runs it."""
REPEATED = ("evaluate", "plan", "learn")
"""Those that take several seeds."""


RENAMED = {
    "--hold": "--action-repeat",
    "--slips": "--token-noise",
    "--self-fed": "--self-forcing",
    "--self-fed-steps": "--self-forcing-steps",
}
"""Flags that still work under their old names."""


def main() -> None:
    """Read the command line and do what it says."""
    with in_one_line(__version__):
        for old, new in RENAMED.items():
            if any(argument.partition("=")[0] == old for argument in sys.argv[1:]):
                print(f"worldgym: {old} is now called {new}", file=sys.stderr)
        settings: Any = Union[  # noqa: UP007  of as many as the table has
            tuple(
                Annotated[with_seeds(kind) if name in REPEATED else kind, tyro.conf.subcommand(name)]
                for name, (kind, _) in COMMANDS.items()
            )
        ]
        config = tyro.cli(
            settings,
            prog="worldgym",
            description=f"WorldGym {__version__}: learned video world models that are Gymnasium environments.",
            config=(tyro.conf.OmitSubcommandPrefixes,),
        )
        if (seed := getattr(getattr(config, "stage", config), "seed", 0)) < 0:
            raise UserError(f"seed is {seed}; it must be 0 or more")
        if file := getattr(config, "json", None):
            from ..results import check_results  # brings torch

            check_results(file)
        kind, run = next(row for row in COMMANDS.values() if isinstance(config, row[0]))
        if isinstance(config, Seeds):
            if config.seeds:
                run = partial(over_seeds, run, seeds=config.seeds, ray=config.ray, gpus=config.gpus)
            config = kind(**{field.name: getattr(config, field.name) for field in fields(kind)})
        run(config)
