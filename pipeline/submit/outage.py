"""How long creates have been failing, and which rows were refused meanwhile. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pipeline import backoff

if TYPE_CHECKING:
    from pipeline.backoff import RetryPolicy


class Outage:
    """Creates that were provably not accepted: in an outage no row is at fault, a refusal may be the row's.

    Times are on the run's monotonic clock, in seconds.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._accepted = 0
        self._rejections: Counter[str] = Counter()
        self._own_rejections: Counter[str] = Counter()
        self._accepted_at_last: dict[str, int] = {}
        self._ever_reached = False
        self._lasted_s = 0.0
        self._last_rejected_at: float | None = None
        self._pauses = 0
        self.accepts = False
        """Whether a create was accepted since the last refusal: then a refused row is worth a try."""

    def on_answer(self) -> None:
        """The vendor decided about a create: whatever outage there was is over."""
        self._ever_reached, self._lasted_s, self._last_rejected_at, self._pauses = True, 0.0, None, 0

    def on_accepted(self, key: str) -> None:
        """A create was accepted: no refusal of its row was the row's own, one of another may be."""
        self.on_answer()
        self._accepted, self.accepts = self._accepted + 1, True
        self._rejections.pop(key, None)
        self._own_rejections.pop(key, None)
        self._accepted_at_last.pop(key, None)

    def on_rejected(self, key: str, now: float, tried_s: float, *, reached: bool) -> None:
        """A create failed `tried_s` after it left; `reached` says whether the vendor answered at all.

        The time without a slot to try with is no part of an outage, so at most one wait counts between
        two failures.
        """
        if self._last_rejected_at is not None:
            self._lasted_s += min(now - self._last_rejected_at, self._policy.max_wait_s + tried_s)
        self._last_rejected_at, self.accepts = now, False
        self._ever_reached = self._ever_reached or reached
        # Without an answer the network is at fault, which must never use up a row's tries.
        if reached:
            self._rejections[key] += 1
            # In an outage nobody is accepted from one refusal to the next: only the first of them counts.
            self._own_rejections[key] += self._accepted_at_last.get(key) != self._accepted
            self._accepted_at_last[key] = self._accepted

    def retries_exhausted(self, key: str) -> bool:
        """Return whether a row has collected as many refusals as the policy allows."""
        return backoff.retries_exhausted(self._policy, self._rejections[key])

    def is_rows_own(self, key: str) -> bool:
        """Return whether the row was refused as often with others accepted from each time to the next."""
        return backoff.retries_exhausted(self._policy, self._own_rejections[key])

    def is_over_limit(self) -> bool:
        """Return whether creates have failed for so long that the run stops submitting."""
        return self._lasted_s >= backoff.outage_limit_s(ever_reached=self._ever_reached)

    def row_wait_s(self, key: str) -> float:
        """Return how long the row waits for its next try."""
        return backoff.backoff_s(self._policy, max(self._rejections[key], 1))

    def next_pause_s(self) -> float:
        """Return how long all creates pause: after two failures in a row, one at a time finds out."""
        self._pauses += 1
        return backoff.backoff_s(self._policy, self._pauses - 1) if self._pauses > 1 else 0.0
