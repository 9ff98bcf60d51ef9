"""The account's charges as a second source beside the request log: which of them nothing known explains.

Billing is kept apart from the log, which is an analytics pipeline, so that both are not behind for one
reason. A completed generation is charged under its id. Times are epoch seconds on the vendor's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final

import anyio

from pipeline.client import StatusError
from pipeline.reconcile.evidence import (
    BY_HAND,
    CLOCK_TOLERANCE_S,
    DATE_HEADER_ERROR_S,
    LOG_NOT_ADVANCED,
    Missing,
    Premise,
)
from pipeline.reconcile.request_log import parse_time

if TYPE_CHECKING:
    from collections.abc import Collection

    from pipeline.client import Api
    from pipeline.reconcile.evidence import Evidence, SubmissionInDoubt


MAX_PAGES: Final = 1000
CHARGES_REFUSED_STATUSES: Final = frozenset({401, 402, 403})
NOT_OFFERED_STATUSES: Final = frozenset({404, 405, 410, 501})


@dataclass(frozen=True, slots=True)
class Charge:
    """One charge; `at` None when its time cannot be read."""

    generation_id: str
    at: float | None


@dataclass(frozen=True, slots=True)
class Charges:
    """The account's charges, newest first, as far back as they were read.

    `error` says why they were not read to the moment that was asked for; then `may_pass` says whether asking
    later can help. `not_offered` says that the API has no such call.
    """

    charges: tuple[Charge, ...] = ()
    error: str = ""
    may_pass: bool = False
    not_offered: bool = False

    @property
    def references(self) -> frozenset[str]:
        return frozenset(charge.generation_id for charge in self.charges)

    def reach_before(self, moment: float) -> bool:
        """Return whether some charge is from before `moment`, so that the list is not cut off after it."""
        return any(charge.at is not None and charge.at <= moment for charge in self.charges)

    def reach_beyond(self, moment: float) -> bool:
        """Whether some charge is from after `moment`, so that the list did not stand still before it."""
        return any(charge.at is not None and charge.at >= moment for charge in self.charges)

    def unexplained(self, start: float, end: float, known: Collection[str]) -> tuple[str, ...]:
        """Return the generations charged from `start` to `end` that are not `known`."""
        return tuple(
            charge.generation_id or "a generation without an id"
            for charge in self.charges
            if (charge.at is None or start <= charge.at <= end) and charge.generation_id not in known
        )


def no_second_source(charges: Charges | None, *, witness_expected: bool) -> Missing:
    """Return what is missing where neither the log nor the charges suffice.

    `witness_expected` says that a submission after the row is known, which the log will show.
    """
    if charges is None:
        return Missing(
            Premise.LOG_ADVANCED, LOG_NOT_ADVANCED, "the account's transactions are asked in the end", 0.0
        )
    reason = charges.error
    return Missing(
        Premise.LOG_ADVANCED,
        f"{LOG_NOT_ADVANCED}{f', and the transactions cannot be read: {reason}' if reason else ''}",
        "let another row be generated, or use a key that may read the account's transactions",
        0.0 if charges.may_pass or witness_expected else None,
    )


def check_charges(submission: SubmissionInDoubt, evidence: Evidence, charges: Charges) -> Missing | None:
    """The account may not have been charged, around that time, for what nothing known explains."""
    span, error_s = evidence.span(submission), evidence.clock_error_s
    start, end = span if span is not None else (-inf, inf)
    before = start if submission.sent_at is None else submission.sent_at - error_s
    beyond = (submission.latest_sent_at or end) + evidence.wait_s + DATE_HEADER_ERROR_S + error_s
    if evidence.is_old(submission) and not (charges.reach_before(before) and charges.reach_beyond(beyond)):
        message = f"{LOG_NOT_ADVANCED}, and the account's transactions show nothing from before and after it"
        return Missing(Premise.LOG_ADVANCED, message, f"let another row be generated, or {BY_HAND}")
    due = (w for w in evidence.other_witnesses(submission) if w.due and w.charged)
    known = (w for w in due if w.sent_at is not None and start <= w.sent_at <= end)
    if any(w.generation_id not in charges.references for w in known):
        message = f"{LOG_NOT_ADVANCED}, and the account's transactions are behind"
        return Missing(Premise.LOG_ADVANCED, message, "ask again later", 0.0)
    earliest = start if submission.sent_at is None else submission.sent_at - CLOCK_TOLERANCE_S - error_s
    # A submission that its user gave up has no row any more; the log still says what it was charged for.
    explained = evidence.known_generations | evidence.log.generations_beside(submission.correlation_id)
    unexplained = charges.unexplained(earliest, end, explained)
    if not unexplained:
        return None
    message = f"{LOG_NOT_ADVANCED}, and the account was charged for {unexplained[0]}, which no row explains"
    return Missing(
        Premise.LOG_ADVANCED,
        message,
        "if it is this row's, `adopt` takes it over; else let another row be generated",
    )


async def fetch_charges(api: Api, since: float, *, gap_s: float) -> Charges:
    """Read the charges back to `since` (epoch seconds), or all there are; never raises for the network."""
    charges: list[Charge] = []
    cursor = ""
    for number in range(MAX_PAGES):
        if number:
            await anyio.sleep(gap_s)
        page = await api.transactions(cursor=cursor)
        if isinstance(page, StatusError):
            return Charges(
                tuple(charges),
                error=page.message,
                may_pass=page.http_status not in CHARGES_REFUSED_STATUSES | NOT_OFFERED_STATUSES,
                not_offered=page.http_status in NOT_OFFERED_STATUSES,
            )
        charges += [Charge(row.reference_id, parse_time(row.created)) for row in page.rows]
        if not page.next_cursor or (charges and all((charge.at or 0.0) < since for charge in charges[-2:])):
            return Charges(tuple(charges))
        cursor = page.next_cursor
    return Charges(tuple(charges), error=f"more than {MAX_PAGES} pages", may_pass=True)
