"""`DreamVectorEnv` under the name that registered ids and recorded data sets have for it."""

from .env import DreamVectorEnv

__all__ = ["DreamVectorEnv"]
