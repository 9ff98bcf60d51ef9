"""What is known of rendering times, by kind of generation, and the plan of looks that follows from it.

It owns when to think again, and when to stop believing. It knows neither clock nor disk: looks come in as
ages, and the memory of earlier runs goes out and comes in as plain data.
"""

from __future__ import annotations

from math import expm1, log
from typing import TYPE_CHECKING, Any, Final

from pipeline.poll.hazard import FIRST_GUESS, PLAIN, Estimate, estimate
from pipeline.poll.intervals import CAP, Plan, best_plan, fixed_plan
from pipeline.poll.observations import FIRST_S, SIZE, STEP, Evidence

if TYPE_CHECKING:
    from collections.abc import Mapping

HALF_LIFE: Final = 1000.0
"""After how many ends (or twice the generations in flight, if that is more) what was counted counts half."""

FEWEST_ENDS: Final = 5
MOST_ENDS: Final = 50
FEWEST_LOOKS: Final = 10
"""Think again after so many ends or looks; after more of them the more there are."""

GRID: Final = [FIRST_S, STEP, SIZE]
VERSION: Final = 1

MEMORY: Final = 100.0
"""How many ends a memory of earlier runs counts for at most, so that this run's soon outweigh it."""

UNCONFIRMED: Final = 3.0
CONFIRMED: Final = 10
"""No wait is longer than this, in poll intervals, until so many ends of this run bear a memory out: when all
start at once, and twice as fast as remembered, each would else be looked at late once."""

KINDS: Final = 256
"""How many kinds a memory holds at most, those seen most lately."""

DOUBT: Final = 6.0
"""Disbelieve once the looks of late are exp(6) = 400 times likelier under a constant hazard."""

NEW_DOUBT: Final = 3.0
"""The same for a memory that no end of this run has borne out yet."""

DISBELIEF: Final = 0.05
"""What evidence counts for once it is disbelieved."""


class _Kind:
    """One kind: its evidence, what it amounts to, and how well that has foretold the looks of late."""

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

    def __init__(self, evidence: Evidence, plan: Plan, mean_s: float) -> None:
        self.evidence = evidence
        self.plan = plan
        self.mean_s = mean_s
        self.estimate: Estimate | None = None
        self.forecast: Estimate | None = None
        self.doubt = 0.0
        self.remembered = evidence.finishes
        self.thought_ends = 0
        self.thought_looks = 0

    def cap(self) -> float:
        """Return the longest wait to plan, in poll intervals."""
        return UNCONFIRMED if self.is_hearsay() else CAP

    def is_hearsay(self) -> bool:
        """Say whether most of what is believed is the memory of an earlier run."""
        return self.remembered > 0 and self.evidence.finishes - self.remembered < CONFIRMED

    def is_due(self) -> bool:
        """Say whether enough has been seen since the last plan for another one."""
        seen = self.evidence
        ends, looks = seen.finishes - self.thought_ends, seen.looks - self.thought_looks
        few = max(FEWEST_ENDS, seen.running // 25, min(MOST_ENDS, seen.finishes // 20))
        return ends >= few or looks >= max(FEWEST_LOOKS, seen.looks // 20, seen.running // 10)


class DurationLearner:
    """Learns how long each kind of generation renders, and plans the looks at it.

    Every constant scales with `interval_s`, the clock to keep while nothing is known.
    """

    def __init__(self, interval_s: float = 10.0) -> None:
        self._interval_s = interval_s
        self._fixed = fixed_plan(interval_s)
        self._kinds: dict[str, _Kind] = {}

    def plan(self, kind: str) -> Plan:
        """Return the present plan for `kind`; a new object once it has changed."""
        known = self._kinds.get(kind)
        return self._fixed if known is None else known.plan

    def began(self, kind: str) -> None:
        """Take note that one more generation of `kind` is in flight."""
        self._kind(kind).evidence.running += 1

    def left(self, kind: str) -> None:
        """Take note that one generation of `kind` less is in flight."""
        self._kind(kind).evidence.running -= 1

    def survived(self, kind: str, from_s: float, to_s: float) -> None:
        """Take note that a generation known to run at age `from_s` still ran at `to_s`."""
        known = self._kind(kind)
        known.evidence.survived(from_s, to_s)
        self._weigh(known, from_s, to_s, ended=False)

    def ended(self, kind: str, from_s: float, to_s: float) -> None:
        """Take note that a generation known to run at age `from_s` was found ended at `to_s`."""
        known = self._kind(kind)
        half_life = max(HALF_LIFE, 2.0 * known.evidence.running)
        known.evidence.ended(from_s, to_s, half_life)
        self._weigh(known, from_s, to_s, ended=True)

    def remaining_s(self, kind: str, age_s: float) -> float | None:
        """Return the expected residual rendering time at `age_s`; None while nothing is known."""
        known = self.known(kind)
        return None if known is None else known.remaining_s(age_s)

    def known(self, kind: str) -> Estimate | None:
        """Return the estimate for forecasts of `kind`; None before its first end was seen."""
        known = self._kinds.get(kind)
        if known is None or not known.evidence.finishes:
            return None
        if known.forecast is None:
            known.forecast = estimate(known.evidence, known.mean_s, self._interval_s, PLAIN)
        return known.forecast

    def dump(self) -> dict[str, Any]:
        """Return what was learned, for `restore` in a later run; JSON can hold it."""
        learned = [(name, known) for name, known in self._kinds.items() if known.evidence.finishes]
        kinds = {name: known.evidence.dump() for name, known in learned[-KINDS:]}
        return {"version": VERSION, "grid": GRID, "kinds": kinds}

    def restore(self, data: Mapping[str, Any]) -> None:
        """Take over what an earlier run dumped; whatever is not that is ignored."""
        if not isinstance(data, dict) or data.get("version") != VERSION or data.get("grid") != GRID:
            return
        kinds = data.get("kinds")
        for name, counts in list(kinds.items())[-KINDS:] if isinstance(kinds, dict) else ():
            try:
                evidence = Evidence.restored(counts, MEMORY)
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
                continue
            self._kinds[str(name)] = known = self._new(evidence)
            self._think(known)

    def _kind(self, kind: str) -> _Kind:
        known = self._kinds.get(kind)
        if known is None:
            known = self._kinds[kind] = self._new(Evidence())
        return known

    def _new(self, evidence: Evidence) -> _Kind:
        return _Kind(evidence, self._fixed, FIRST_GUESS * self._interval_s)

    def _weigh(self, known: _Kind, from_s: float, to_s: float, *, ended: bool) -> None:
        """Test the estimate on a look it has not seen (a cumulative sum, Page 1954), then think again."""
        if known.estimate is not None:
            believed = known.estimate.risk_at(to_s) - known.estimate.risk_at(from_s)
            constant = (to_s - from_s) / known.mean_s
            known.doubt += _log_chance(constant, ended=ended) - _log_chance(believed, ended=ended)
            known.doubt = max(0.0, known.doubt)
            if known.doubt > (NEW_DOUBT if known.is_hearsay() else DOUBT):
                known.evidence.fade(DISBELIEF)
                known.doubt = 0.0
                self._think(known)
                return
        if known.is_due():
            self._think(known)

    def _think(self, known: _Kind) -> None:
        known.thought_ends = known.evidence.finishes
        known.thought_looks = known.evidence.looks
        known.estimate = estimate(known.evidence, known.mean_s, self._interval_s)
        known.forecast = None
        known.mean_s = known.estimate.mean_s
        known.evidence.density = known.estimate.density
        known.plan = best_plan(known.estimate, self._interval_s, known.cap())


def _log_chance(risk: float, *, ended: bool) -> float:
    """Return the logarithm of the chance to end, or not to end, over a stretch of cumulative hazard."""
    if not ended:
        return -risk
    return log(-expm1(-risk)) if risk > 1e-12 else -28.0
