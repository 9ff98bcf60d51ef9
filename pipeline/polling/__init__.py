"""When to look at which generation: pure and synchronous, state and age in, next look out."""

from __future__ import annotations

from pipeline.polling.forecast import time_left_s
from pipeline.polling.kinds import kind_of
from pipeline.polling.learner import DurationLearner
from pipeline.polling.queue import PollQueue

__all__ = ["DurationLearner", "PollQueue", "kind_of", "time_left_s"]
