"""Gives rows the submissions that only notes beside their ledger show: they are in doubt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import Conflict
from pipeline.model import Failure, State, Transition
from pipeline.plan import GENERATION_UNKNOWN, mark_resubmitted
from pipeline.submit.submission_journal import submission_number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.ledger import Ledger
    from pipeline.model import Record
    from pipeline.submit.submission_journal import JournalEntry


async def doubt_forgotten(
    ledger: Ledger, forgotten: Sequence[tuple[Record, JournalEntry]], *, now: float
) -> dict[str, Record]:
    """Give rows the submissions that are noted of them, in doubt; return those by their keys.

    Each step is one that the forgotten run made too. What a kill leaves of them is gone on with, or in doubt.
    """
    rows = {record.key: (record, note) for record, note in forgotten}
    for step in (_end_earlier, _queue_again, _submit, _doubt):
        made = [Transition(record, step(record, note, now)) for record, note in rows.values()]
        outcomes = await ledger.commit_many([one for one in made if one.after is not one.before])
        # Somebody else has a row that conflicts.
        taken = {outcome.key for outcome in outcomes if isinstance(outcome, Conflict)}
        rows = {r.key: (r, rows[r.key][1]) for one in made if (r := one.after).key not in taken}
    return {key: record for key, (record, _) in rows.items()}


def _end_earlier(record: Record, _: JournalEntry, now: float) -> Record:
    """Return a row whose earlier generation is over, and maybe paid: a later one leaves only then."""
    if record.state is not State.GENERATING:
        return record
    failure = Failure(GENERATION_UNKNOWN, "submitted again by a run that this ledger does not know")
    return record.evolve(State.FAILED, failure=failure, finished_at=now)


def _queue_again(record: Record, _note: JournalEntry, _now: float) -> Record:
    match record.state:
        case State.FAILED:
            forgets = {"generation_id": "", "video_url": "", "video_urls": "", "finished_at": None}
            return record.evolve(State.PENDING, failure=None, **forgets)
        case State.IN_DOUBT:
            return mark_resubmitted(record)
        case _:
            return record


def _submit(record: Record, note: JournalEntry, _: float) -> Record:
    return record.evolve(
        State.SUBMITTING,
        submission_no=submission_number(note.correlation_id),
        correlation_id=note.correlation_id,
        submitted_at=note.submitted_at,
        key_id=note.key_id,
        api_url=note.api_url,
        vendor_sent_at=note.vendor_sent_at,
        reserved_usd=note.reserved_usd,
        earlier_usd=record.usd_spent or 0.0,
        absent_since=None,
        completed_at=None,
        failure=None,
    )


def _doubt(record: Record, _: JournalEntry, now: float) -> Record:
    failure = Failure("in_doubt", "submitted by a run that this ledger does not know")
    return record.evolve(
        State.IN_DOUBT,
        failure=failure,
        doubted_at=min(now, record.submitted_at or now),
        attempts=record.attempts + 1,
    )
