"""The command line on networks of toy size: a world in seconds."""

import sys

import pytest

from worldgym import cli

TOKENIZER = ["--channels", "8", "16", "16", "--latent-channels", "4", "--codes", "32"]
SMALL = [
    "--layers", "1", "--width", "64", "--heads", "2", "--kv-heads", "1", "--mlp-width", "64", "--head-width", "32",
    "--head-layers", "1", "--window", "4", "--outcome-heads", "2",
]  # fmt: skip


def run(*arguments) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["worldgym", *map(str, arguments)])
        cli.main()
