"""What a proof of absence rests on: the submission, its witnesses, and what is missing. Pure.

All times are epoch seconds on the vendor's clock (its `Date` headers), never on this machine's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.reconcile.charges import Charges
    from pipeline.reconcile.request_log import LogPass

MARGIN_S: Final = 3600.0
"""How far a window has to reach beyond the submission, on either side."""

UNDATED_MARGIN_S: Final = 48 * 3600.0
"""The same for a submission that only the local clock has dated: clocks are wrong by time zones."""

DATE_HEADER_ERROR_S: Final = 2.0
"""`Date` has whole seconds, and an answer takes a moment to arrive."""

CLOCK_TOLERANCE_S: Final = 300.0
"""How far the times in the log may be from those of the `Date` headers before that counts as an error."""

RETENTION_SAFE_S: Final = 86_400.0
"""The vendor's shortest documented window is 24 h, so it keeps its log for at least that long."""

LOG_NOT_ADVANCED: Final = "the log shows nothing that came after it, so it may stand still"
BY_HAND: Final = (
    "look for it in the vendor's console: `adopt` takes it over, --resubmit-in-doubt sends it again"
)

LAG_SHARE: Final = 1 / 3
"""The part of the waiting time that allows for the log's lag (900 of 2,700 s); the rest is rendering."""


class Premise(StrEnum):
    """What has to hold before absence means anything."""

    NAME = "name"
    KEY = "key"
    PAGES = "pages"
    WINDOW = "window"
    ANONYMOUS = "anonymous"
    WITNESSES = "witnesses"
    LOG_ADVANCED = "after"
    CLOCK = "clock"
    PASSES = "passes"
    TIME = "time"
    GENERATION = "generation"
    STATUS = "status"


@dataclass(frozen=True, slots=True)
class Missing:
    """A premise that does not hold: why not, and what would supply it.

    `wait_s` is how long waiting takes to supply it, 0.0 where that is not known, and None where waiting
    does not help.
    """

    premise: Premise
    message: str
    remedy: str
    wait_s: float | None = None


@dataclass(frozen=True, slots=True)
class SubmissionInDoubt:
    """A create whose outcome is unknown. `sent_at` None: the vendor's time of it was not known.

    `local_sent_at` is this machine's time of it and only widens the window; `absent_since` is when a
    complete pass first did not show it. `order` counts the submissions of this process.
    """

    correlation_id: str
    key_id: str
    api_url: str
    model: str = ""
    sent_at: float | None = None
    local_sent_at: float | None = None
    absent_since: float | None = None
    order: int | None = None

    @property
    def latest_sent_at(self) -> float | None:
        """The latest moment at which it can have been sent."""
        return self.absent_since if self.sent_at is None else self.sent_at

    def span(self, wait_s: float, error_s: float) -> tuple[float, float] | None:
        """Return the (start, end) that a reading has to cover; None when nothing dates the submission.

        `error_s` is how wrong its time may be (`clock_error_s`).
        """
        if self.sent_at is not None:
            margin_s = MARGIN_S + error_s
            return self.sent_at - margin_s, self.sent_at + wait_s + margin_s
        known = [moment for moment in (self.local_sent_at, self.absent_since) if moment is not None]
        if not known:
            return None
        margin_s = UNDATED_MARGIN_S + error_s
        return min(known) - margin_s, max(known) + wait_s + margin_s


@dataclass(frozen=True, slots=True)
class Witness:
    """A submission that is known to be accepted. `due` says that the log has to show it by now."""

    correlation_id: str
    generation_id: str
    key_id: str
    api_url: str
    sent_at: float | None
    due: bool
    charged: bool = False
    order: int | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a proof may rest on. `now` is the vendor's time of the pass, None where unknown.

    `wait_s` is how long a submission has to be absent; `elapsed_s` how long it has been, by the monotonic
    clock within a process and by the vendor's across processes; `apart_s` how long before this pass another
    complete one did not show it. None for both: not measured yet. `clock_error_s` is by how much a time in
    the log or a submission's may be wrong: every comparison of the two is made with that much room.
    """

    log: LogPass
    wait_s: float
    elapsed_s: float | None
    apart_s: float | None
    now: float | None = None
    witnesses: Sequence[Witness] = ()
    charges: Charges | None = None
    known_generations: frozenset[str] = field(default_factory=frozenset)
    clock_error_s: float = 0.0

    def span(self, submission: SubmissionInDoubt) -> tuple[float, float] | None:
        """Return the (start, end) that log and charges have to cover; None when nothing dates it."""
        return submission.span(self.wait_s, self.clock_error_s)

    def other_witnesses(self, submission: SubmissionInDoubt) -> list[Witness]:
        """Return the witnesses of the key and address that the log is of, without the submission itself."""
        of_the_log = self.log.key_id, self.log.api_url
        return [
            witness
            for witness in self.witnesses
            if (witness.key_id, witness.api_url) == of_the_log
            and witness.correlation_id != submission.correlation_id
        ]

    def is_old(self, submission: SubmissionInDoubt) -> bool:
        """Return whether the vendor may have dropped the submission's row and charge by now."""
        sent_at = submission.latest_sent_at
        return sent_at is not None and self.now is not None and self.now - sent_at >= RETENTION_SAFE_S


def clock_error_s(log: LogPass, witnesses: Sequence[Witness]) -> float:
    """Return how far the log's time of a submission is from its intent's, at the worst; 0.0 within tolerance.

    Such a witness may have left late, since its machine slept; or a `Date` was wrong, or the log's clock.
    Which of them it was is not known, and the submission in doubt may have met with the same. All of them
    are allowed for by as much as they amount to.
    """
    of_the_log = log.key_id, log.api_url
    apart = (
        abs(at - witness.sent_at)
        for witness in witnesses
        if (witness.key_id, witness.api_url) == of_the_log
        and witness.sent_at is not None
        and (at := log.times.get(witness.correlation_id)) is not None
    )
    worst_s = max(apart, default=0.0)
    return worst_s if worst_s > CLOCK_TOLERANCE_S else 0.0
