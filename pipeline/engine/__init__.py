"""Motion: pools, bounded streams and shutdown. `Engine` is the picture of a whole run."""

from pipeline.engine.board import Outcome
from pipeline.engine.run import Engine
from pipeline.engine.shared import Tools

__all__ = ["Engine", "Outcome", "Tools"]
