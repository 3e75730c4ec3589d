"""What a world is made of: its networks, and how they are loaded, cast, compiled and shared."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from .checkpoint import load_config, load_weights, load_world
from .config import WorldConfig
from .listing import find_world
from .model.compiled import CompiledStep
from .model.device import isolated, pick_device
from .model.dynamics import Dynamics
from .model.recurrent_state import RecurrentState
from .model.text import PhraseTokenizer
from .model.tokenizer import Tokenizer
from .motion import Tracker, lucas_kanade

Network = TypeVar("Network", bound="WorldNetwork")


class WorldNetwork(nn.Module):
    """Tokenizer, dynamics and, where a world has one, the recurrent state. `WorldModel` adds the verbs."""

    def __init__(self, config: WorldConfig, text: PhraseTokenizer):
        super().__init__()
        self.config = config
        self.folder: Path | None = None
        """The checkpoint that it was loaded from."""
        self.text = text
        self.tokenizer = Tokenizer(config.tokenizer)
        self.dynamics = Dynamics(config.tokenizer, config.dynamics, config.action_size, bool(config.phrases))
        self.recurrent: RecurrentState | None = None
        if config.recurrent is not None:
            self.recurrent = RecurrentState(
                config.tokenizer.resolution, config.recurrent, config.action_size, config.dynamics.width
            )
        self.dtype = torch.float32
        self.compiled: dict[int, CompiledStep] = {}
        """By the number of dreams: see `compile_for`."""
        self.tracker: Tracker = lucas_kanade
        """Follows the points of motion prompts; training uses `lucas_kanade`, too."""

    @classmethod
    @isolated
    def load(cls: type[Network], name: str, device: str = "auto", dtype: torch.dtype = torch.float32) -> Network:
        """A world, ready to dream.

        Args:
            name: a bundled world, a checkpoint folder, or user/name on the Hugging Face hub.
            device: "auto" takes a GPU where there is one.
            dtype: of the matrix products. torch.bfloat16 is several times faster on processors that have it (a CPU
                with AMX, a GPU), and then dreams differ from float32's in rounding, hence now and then in a token.

        Raises:
            ValueError: unknown name; a checkpoint that is damaged, foreign, of another version, or only half
                trained.
        """
        where = pick_device(device)
        folder = find_world(name)
        config, stage = load_config(folder)
        if stage != "world":
            raise ValueError(f"{folder} holds a {stage} only; train its dynamics before dreaming in it")
        text = PhraseTokenizer.load(folder / "bpe.json")
        world = cls(config, text)
        load_weights(world, load_world(folder, config), folder)
        world.folder = folder
        return world.to(where).eval().requires_grad_(False).compute_in(dtype)

    from_pretrained = load
    """`load`, by the name that Hugging Face's libraries have for it."""

    def push_to_hub(
        self, repo: str, licence: str, results: Sequence[Path] = (), data: str = "", private: bool = False
    ) -> str:
        """Upload the folder that this world was loaded from, as it now is on disk: `worldgym.hub.push`.

        Returns:
            The address of its page.

        Raises:
            ValueError: `repo` is no user/name, or the world was made in this process and lies in no folder.
        """
        if self.folder is None:
            raise ValueError(
                f"the world {self.config.name!r} was not loaded from a folder; write one with "
                "worldgym.checkpoint.save_checkpoint, and load or push that"
            )
        from .hub import push  # which few need

        return push(self.folder, repo, licence, results, data, private)

    def compute_in(self: Network, dtype: torch.dtype) -> Network:
        """This world with its matrix products in `dtype`; states, rewards and the codebook stay float32."""
        if dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(f"dtype is {dtype}; a world computes in torch.float32 or torch.bfloat16")
        dynamics, self.compiled = self.dynamics, {}
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                module.to(dtype)
        # Rewards are compared with each other, at differences that bfloat16 cannot represent.
        self.tokenizer.quantizer.float()
        dynamics.outcome_heads.float()
        if dynamics.sentence_policy is not None:
            dynamics.sentence_policy.float()
        if self.recurrent is not None:  # whose products are too small to gain by it
            self.recurrent.float()
        self.dtype = dtype
        return self

    @isolated
    def compile_for(self: Network, dreams: int) -> Network:
        """This world, with step and picture compiled for this number of dreams, from the weights as they are now.

        OpenVINO then takes a step of a single dream in half of the time; from sixteen dreams on it gains nothing.
        Other numbers of dreams, temperatures above 0 and dreams that are not equally far along are not compiled.

        Raises:
            ImportError: OpenVINO is not installed.
            ValueError: the world is on a GPU or computes in bfloat16, or is in PAN's layout.
            UserError: OpenVINO cannot compile for this processor, as without AVX2.
        """
        if self.device.type != "cpu" or self.dtype != torch.float32:
            raise ValueError(f"dreams are compiled for a CPU, in float32; this world is on {self.device}, {self.dtype}")
        if dreams not in self.compiled:
            self.compiled[dreams] = CompiledStep(self.dynamics, self.tokenizer, dreams)
        return self

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    @property
    def device(self) -> torch.device:
        return self.dynamics.cells.device
