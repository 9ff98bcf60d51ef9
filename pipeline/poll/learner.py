"""What is known of rendering times, by kind of generation, and the plan of polls that follows from it.

It owns when to fit anew, and when to stop believing. It knows neither clock nor disk: polls come in as
ages, and the memory of earlier runs goes out and comes in as plain data.
"""

from __future__ import annotations

from math import expm1, log
from typing import TYPE_CHECKING, Any, Final

from pipeline.poll.hazard import INITIAL_MEAN_INTERVALS, NEUTRAL, HazardEstimate, estimate_hazard
from pipeline.poll.intervals import MAX_INTERVAL, PollPlan, fixed_plan, optimal_plan
from pipeline.poll.observations import BIN_COUNT, BIN_STEP, FIRST_S, Observations

if TYPE_CHECKING:
    from collections.abc import Mapping

HALF_LIFE: Final = 1000.0
"""After how many ends (or twice the generations in flight, if that is more) what was counted counts half."""

MIN_COMPLETIONS: Final = 5
MAX_COMPLETIONS: Final = 50
MIN_POLLS: Final = 10
"""Fit anew after so many ends or polls; after more of them the more there are."""

GRID: Final = [FIRST_S, BIN_STEP, BIN_COUNT]
VERSION: Final = 1

CACHED_WEIGHT: Final = 100.0
"""How many ends a memory of earlier runs counts for at most, so that this run's soon outweigh it."""

UNCONFIRMED_MAX_INTERVAL: Final = 3.0
CONFIRMING_COMPLETIONS: Final = 10
"""No wait is longer than this, in poll intervals, until so many ends of this run bear a memory out: when all
start at once, and twice as fast as remembered, each would else be polled late once."""

MAX_DURATION_KEYS: Final = 256
"""How many kinds a memory holds at most, those seen most lately."""

DRIFT_THRESHOLD: Final = 6.0
"""Disbelieve once the polls of late are exp(6) = 400 times likelier under a constant hazard."""

NEW_DRIFT_THRESHOLD: Final = 3.0
"""The same for a memory that no end of this run has borne out yet."""

DRIFT_DISCOUNT: Final = 0.05
"""What evidence counts for once it is disbelieved."""


class _KeyState:
    """One kind: its evidence, what it amounts to, and how well that has foretold the polls of late."""

    __slots__ = (
        "doubt",
        "estimate",
        "evidence",
        "forecast",
        "mean_s",
        "plan",
        "remembered",
        "thought_ends",
        "thought_looks",
    )

    def __init__(self, evidence: Observations, plan: PollPlan, mean_s: float) -> None:
        self.evidence = evidence
        self.plan = plan
        self.mean_s = mean_s
        self.estimate: HazardEstimate | None = None
        self.forecast: HazardEstimate | None = None
        self.doubt = 0.0
        self.remembered = evidence.finishes
        self.thought_ends = 0
        self.thought_looks = 0

    def max_interval(self) -> float:
        """Return the longest wait to plan, in poll intervals."""
        return UNCONFIRMED_MAX_INTERVAL if self.only_cached() else MAX_INTERVAL

    def only_cached(self) -> bool:
        """Say whether most of what is believed is the memory of an earlier run."""
        return self.remembered > 0 and self.evidence.finishes - self.remembered < CONFIRMING_COMPLETIONS

    def needs_refit(self) -> bool:
        """Say whether enough has been seen since the last plan for another one."""
        seen = self.evidence
        ends, looks = seen.finishes - self.thought_ends, seen.looks - self.thought_looks
        few = max(MIN_COMPLETIONS, seen.running // 25, min(MAX_COMPLETIONS, seen.finishes // 20))
        return ends >= few or looks >= max(MIN_POLLS, seen.looks // 20, seen.running // 10)


class DurationLearner:
    """Learns how long each kind of generation renders, and plans its polls.

    Every constant scales with `interval_s`, the clock to keep while nothing is known.
    """

    def __init__(self, interval_s: float = 10.0) -> None:
        self._interval_s = interval_s
        self._fixed = fixed_plan(interval_s)
        self._kinds: dict[str, _KeyState] = {}

    def plan(self, kind: str) -> PollPlan:
        """Return the present plan for `kind`; a new object once it has changed."""
        known = self._kinds.get(kind)
        return self._fixed if known is None else known.plan

    def on_started(self, kind: str) -> None:
        """Take note that one more generation of `kind` is in flight."""
        self._state_of(kind).evidence.running += 1

    def on_left(self, kind: str) -> None:
        """Take note that one generation of `kind` less is in flight."""
        self._state_of(kind).evidence.running -= 1

    def on_still_running(self, kind: str, from_s: float, to_s: float) -> None:
        """Take note that a generation known to run at age `from_s` still ran at `to_s`."""
        known = self._state_of(kind)
        known.evidence.add_still_running(from_s, to_s)
        self._update_drift(known, from_s, to_s, ended=False)

    def on_finished(self, kind: str, from_s: float, to_s: float) -> None:
        """Take note that a generation known to run at age `from_s` was found ended at `to_s`."""
        known = self._state_of(kind)
        half_life = max(HALF_LIFE, 2.0 * known.evidence.running)
        known.evidence.add_finished(from_s, to_s, half_life)
        self._update_drift(known, from_s, to_s, ended=True)

    def remaining_s(self, kind: str, age_s: float) -> float | None:
        """Return the expected residual rendering time at `age_s`; None while nothing is known."""
        known = self.estimate_for(kind)
        return None if known is None else known.remaining_s(age_s)

    def estimate_for(self, kind: str) -> HazardEstimate | None:
        """Return the estimate for forecasts of `kind`; None before its first end was seen."""
        known = self._kinds.get(kind)
        if known is None or not known.evidence.finishes:
            return None
        if known.forecast is None:
            known.forecast = estimate_hazard(known.evidence, known.mean_s, self._interval_s, NEUTRAL)
        return known.forecast

    def dump(self) -> dict[str, Any]:
        """Return what was learned, for `restore` in a later run; JSON can hold it."""
        learned = [(name, known) for name, known in self._kinds.items() if known.evidence.finishes]
        kinds = {name: known.evidence.dump() for name, known in learned[-MAX_DURATION_KEYS:]}
        return {"version": VERSION, "grid": GRID, "kinds": kinds}

    def restore(self, data: Mapping[str, Any]) -> None:
        """Take over what an earlier run dumped; whatever is not that is ignored."""
        if not isinstance(data, dict) or data.get("version") != VERSION or data.get("grid") != GRID:
            return
        kinds = data.get("kinds")
        for name, counts in list(kinds.items())[-MAX_DURATION_KEYS:] if isinstance(kinds, dict) else ():
            try:
                evidence = Observations.from_dump(counts, CACHED_WEIGHT)
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
                continue
            self._kinds[str(name)] = known = self._new_state(evidence)
            self._refit(known)

    def _state_of(self, kind: str) -> _KeyState:
        known = self._kinds.get(kind)
        if known is None:
            known = self._kinds[kind] = self._new_state(Observations())
        return known

    def _new_state(self, evidence: Observations) -> _KeyState:
        return _KeyState(evidence, self._fixed, INITIAL_MEAN_INTERVALS * self._interval_s)

    def _update_drift(self, known: _KeyState, from_s: float, to_s: float, *, ended: bool) -> None:
        """Test the estimate on a poll it has not seen (a cumulative sum, Page 1954), then fit anew."""
        if known.estimate is not None:
            believed = known.estimate.hazard_at(to_s) - known.estimate.hazard_at(from_s)
            constant = (to_s - from_s) / known.mean_s
            known.doubt += _log_likelihood(constant, ended=ended) - _log_likelihood(believed, ended=ended)
            known.doubt = max(0.0, known.doubt)
            if known.doubt > (NEW_DRIFT_THRESHOLD if known.only_cached() else DRIFT_THRESHOLD):
                known.evidence.scale(DRIFT_DISCOUNT)
                known.doubt = 0.0
                self._refit(known)
                return
        if known.needs_refit():
            self._refit(known)

    def _refit(self, known: _KeyState) -> None:
        known.thought_ends = known.evidence.finishes
        known.thought_looks = known.evidence.looks
        known.estimate = estimate_hazard(known.evidence, known.mean_s, self._interval_s)
        known.forecast = None
        known.mean_s = known.estimate.mean_s
        known.evidence.density = known.estimate.density
        known.plan = optimal_plan(known.estimate, self._interval_s, known.max_interval())


def _log_likelihood(risk: float, *, ended: bool) -> float:
    """Return the logarithm of the chance to end, or not to end, over a stretch of cumulative hazard."""
    if not ended:
        return -risk
    return log(-expm1(-risk)) if risk > 1e-12 else -28.0
