"""How long a run that has nothing else left stays for its rows in doubt. Pure.

It stays while time can complete a proof of absence, at most until the proof could be complete, with a margin
for a log that is behind. Where something else than time is missing, it ends at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Final

from pipeline.reconcile.evidence import Premise
from pipeline.reconcile.in_doubt import StillInDoubt

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pipeline.reconcile.evidence import Missing
    from pipeline.reconcile.in_doubt import Verdict
    from pipeline.reconcile.request_log import LogPass

MARGIN_SHARE: Final = 0.5
"""How much longer than the waiting time a run stays, as a share of it."""

MARGIN_PASSES: Final = 3
"""For how many more passes a run stays at least."""

REFUSALS: Final = 3
"""How many passes in a row the log has to refuse the key before that counts as lasting."""


@dataclass(slots=True)
class EndOfRunWait:
    """What each row in doubt lacked at the last pass, and until when it is worth waiting for.

    `wait_s` is how long absence takes to prove anything, `limit_s` the user's own limit, or None;
    `pass_gap_s` is the longest time between two passes.
    """

    wait_s: float
    limit_s: float | None
    pass_gap_s: float
    missing: dict[str, tuple[Missing, ...]] = field(default_factory=dict)
    refusals: int = 0
    _asked_at: float = -inf
    _proof_due: dict[str, float] = field(default_factory=dict)

    def on_pass(self, log: LogPass, verdicts: Mapping[str, Verdict], now: float) -> None:
        """Record a pass made at `now`, on the run's clock."""
        self.refusals = self.refusals + 1 if log.refused else 0
        self._asked_at = now
        for key, verdict in verdicts.items():
            if not isinstance(verdict, StillInDoubt):
                self.missing.pop(key, None)
                self._proof_due.pop(key, None)
                continue
            self.missing[key] = verdict.missing
            due = now + max((m.wait_s or 0.0 for m in verdict.missing), default=0.0)
            self._proof_due.setdefault(key, due)

    def next_pass_s(self, gap_s: float) -> float:
        """Return `gap_s`, or less when a row's proof may be complete before it is over."""
        waits = (self._needed_s(missing) for missing in self.missing.values())
        return min([gap_s, *(wait + 0.01 for wait in waits if wait > 0)])

    def _needed_s(self, missing: tuple[Missing, ...]) -> float:
        return max((m.wait_s or 0.0 for m in missing), default=0.0)

    def longest_needed_s(self, keys: Collection[str]) -> float:
        """Return within which time every row of `keys` could be proven, seconds."""
        known = [self._needed_s(self.missing[key]) if key in self.missing else self.wait_s for key in keys]
        return max(known, default=0.0)

    def remaining_s(self, keys: Collection[str], idle_since: float, now: float) -> float:
        """Return how much longer it is worth waiting for `keys`; 0 or less when it is not."""
        if self._asked_at < idle_since or any(key not in self.missing for key in keys):
            # No pass since the run fell idle, and what has just ended may be the witness that a proof lacked.
            return inf
        if all(self._is_hopeless(self.missing[key]) for key in keys):
            return 0.0
        if self.limit_s is not None:
            return idle_since + self.limit_s - now
        margin_s = max(self.wait_s * MARGIN_SHARE, self.pass_gap_s * MARGIN_PASSES)
        return max(self._proof_due[key] for key in keys) + margin_s - now

    def _is_hopeless(self, missing: tuple[Missing, ...]) -> bool:
        """Return whether something is missing that waiting does not supply."""
        lasting = (m.premise for m in missing if m.wait_s is None)
        return any(premise is not Premise.PAGES or self.refusals >= REFUSALS for premise in lasting)
