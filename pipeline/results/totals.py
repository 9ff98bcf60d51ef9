"""What a batch comes to: rows by status, money, bytes and seconds. Pure."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from pipeline.ledger.totals import Totals
from pipeline.model import MAYBE_PAID_STATES, State
from pipeline.results.csv_rows import STATUSES, iso, visible_records

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pipeline.model import Record

# A summary is made of every row, several times at a run's end: these take a third of an expression's time.
_position_of: Final = attrgetter("position")
_state_of: Final = attrgetter("state")
_polls_of: Final = attrgetter("polls")
_submitted_at_of: Final = attrgetter("submitted_at")
_ends_of: Final = attrgetter("downloaded_at", "finished_at", "not_yet_at")
_DONE: Final = State.DONE


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of a batch. Money in USD, durations in seconds.

    `usd_spent` is what the vendor confirmed; `usd_assumed` is the estimate for paid rows whose price
    the vendor has not reported; `unpriced` counts paid rows with neither. `usd_open` is reserved for rows
    that are not settled yet. With `sandbox` all of it is play money.
    """

    total: int
    counts: Mapping[State, int]
    removed: int
    usd_spent: float
    usd_assumed: float
    usd_open: float
    unpriced: int
    saved_bytes: int
    video_s: float
    polls: int
    began_at: float | None
    ended_at: float | None
    sandbox: bool = False

    @property
    def usd_total(self) -> float:
        """Money spent, confirmed or estimated."""
        return self.usd_spent + self.usd_assumed

    @property
    def price_unknown(self) -> bool:
        """Return whether rows are paid for and the price of none of them is known: unknown is never 0."""
        return bool(self.unpriced) and not self.usd_total

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; the counts name every status, also those at zero."""
        return {
            "total": self.total,
            "sandbox": self.sandbox,
            "counts": {state.value: self.counts.get(state, 0) for state in STATUSES},
            "removed": self.removed,
            "usd_spent": None if self.price_unknown else round(self.usd_spent, 6),
            "usd_assumed": round(self.usd_assumed, 6),
            "usd_open": round(self.usd_open, 6),
            "unpriced": self.unpriced,
            "saved_bytes": self.saved_bytes,
            "video_s": round(self.video_s, 3),
            "polls": self.polls,
            "began_at": iso(self.began_at) or None,
            "ended_at": iso(self.ended_at) or None,
        }


def count_statuses(rows: Iterable[Record]) -> Counter[State]:
    """Return how many rows have each `status`."""
    counts = Counter(map(_state_of, rows))
    if submitting := counts.pop(State.SUBMITTING, 0):
        counts[State.IN_DOUBT] += submitting
    return counts


def summarize(records: Sequence[Record], *, sandbox: bool = False, money: Totals | None = None) -> Summary:
    """Count the visible rows and add up their bytes and seconds.

    `money` is what all submissions cost, whatever became of the rows; without it, it is what the rows say.
    """
    rows = visible_records(records)
    money = _money_of_rows(rows) if money is None else money
    artifacts = [row.artifact for row in rows if row.state is _DONE and row.artifact]
    return Summary(
        total=len(rows),
        counts=count_statuses(rows),
        removed=sum(position < 0 for position in map(_position_of, rows)),
        usd_spent=money.spent_usd,
        usd_assumed=money.assumed_usd,
        usd_open=money.open_usd + money.maybe_usd,
        unpriced=money.unpriced,
        saved_bytes=sum(artifact.size_bytes for artifact in artifacts),
        video_s=sum(artifact.media.duration_s for artifact in artifacts if artifact.media),
        polls=sum(map(_polls_of, rows)),
        began_at=min((at for at in map(_submitted_at_of, rows) if at is not None), default=None),
        ended_at=max(filter(None, itertools.chain.from_iterable(map(_ends_of, rows))), default=None),
        sandbox=sandbox,
    )


def _money_of_rows(rows: Sequence[Record]) -> Totals:
    unpriced = [row for row in rows if row.usd_spent is None and row.state is State.DONE]
    open_rows = [row for row in rows if row.state in MAYBE_PAID_STATES and row.state is not State.DONE]
    return Totals(
        spent_usd=sum(row.usd_spent or 0.0 for row in rows),
        assumed_usd=sum(row.reserved_usd or 0.0 for row in unpriced),
        open_usd=sum(row.reserved_usd or 0.0 for row in open_rows if row.usd_spent is None),
        unpriced=sum(row.reserved_usd is None for row in unpriced),
    )
