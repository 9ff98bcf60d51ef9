"""When to look at which generation: pure and synchronous, state and age in, next look out."""

from __future__ import annotations

from pipeline.polling.forecast import rest_s
from pipeline.polling.kinds import kind_of
from pipeline.polling.learner import DurationLearner
from pipeline.polling.queue import PollQueue
from pipeline.polling.spread import Spread, spread_of

__all__ = ["DurationLearner", "PollQueue", "Spread", "kind_of", "rest_s", "spread_of"]
