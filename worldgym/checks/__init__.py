"""Does an environment keep its promises? `check_dream_env` asks a dream or its twin, `check_vector_env` any batch.

`check_world` asks a world itself, behind any environment."""

from .contract import check_world
from .dream import check_dream_env
from .report import ConformanceError, Report
from .vector import check_vector_env

__all__ = ["ConformanceError", "Report", "check_dream_env", "check_vector_env", "check_world"]
