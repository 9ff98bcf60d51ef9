"""When to look at which generation: pure and synchronous, state and age in, next look out."""

from __future__ import annotations

from pipeline.polling.kinds import kind_of
from pipeline.polling.learner import DurationLearner
from pipeline.polling.queue import PollQueue

__all__ = ["DurationLearner", "PollQueue", "kind_of"]
