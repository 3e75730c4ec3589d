"""n dreams of one world, each with its own task, clock and random numbers: the core under every environment."""

from .batch import DreamBatch, Step
from .core import Dreams
from .loading import load_shared
from .observations import latent_space, latents, state_space
from .options import DreamOptions

__all__ = ["DreamBatch", "DreamOptions", "Dreams", "Step", "latent_space", "latents", "load_shared", "state_space"]
