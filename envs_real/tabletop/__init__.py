"""The Tabletop: scene, environment, tasks, text skills, recording, and what it is evaluated on."""

from .env import FRAMES_PER_TEXT, TabletopEnv
from .scene import FACTORS, PALETTE, Variation, sample_variation
from .vision import locate

__all__ = ["FACTORS", "FRAMES_PER_TEXT", "PALETTE", "TabletopEnv", "Variation", "locate", "sample_variation"]
