"""What was spent: one entry for each submission, never erased by what becomes of its row. Pure.

`spending_change` derives an entry from a transition, and the ledger writes both in one transaction, so that
no caller can forget it. Money is let go of (`released`) only by proof: an answer that is known to refuse, a
submission proven absent from the vendor's log, a generation that the vendor calls failed.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import StrEnum
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, assert_never

from pipeline.model import State
from pipeline.plan import GENERATION_UNKNOWN, PAID_FAILURES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.model import Record


class SubmissionState(StrEnum):
    """What is known of the money of a submission."""

    RESERVED = "reserved"
    MAYBE_SPENT = "maybe_spent"
    SPENT = "spent"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Submission:
    """One entry: a submission, or a generation that was adopted.

    `id` is the correlation id, or a made-up one for an adoption. Times are seconds since the epoch,
    `vendor_sent_at` by the vendor's clock. `reserved_usd` is the price that was set aside, None when it was
    unknown; `usd` and `credits` are what the vendor charged, None when it has not said.
    """

    id: str
    job_key: str
    submission_no: int
    key_id: str
    api_url: str
    model: str
    submitted_at: float | None
    vendor_sent_at: float | None
    reserved_usd: float | None
    state: SubmissionState
    usd: float | None = None
    credits: float | None = None
    generation_id: str = ""
    settled_at: float | None = None
    reason: str = ""


ADOPTED: Final = "adopted:"
"""Begins the id of a generation that was adopted."""

COLUMNS: Final = tuple(field.name for field in fields(Submission))
COLUMN_TYPES: Final = {field.name: str(field.type) for field in fields(Submission)}

KEPT_COLUMNS: Final = ("submitted_at", "vendor_sent_at", "reserved_usd", "usd", "credits", "settled_at")
KEPT_TEXT_COLUMNS: Final = ("key_id", "api_url", "generation_id", "reason")
"""What an entry keeps where an update of it has None, or "": nothing that was learned is forgotten."""

UNCHARGED_FAILURES: Final = frozenset({"generation_error", "generation_refused", "content_refused"})
"""Codes of failures that the vendor itself reports of a generation; it never charges for one."""

_UNANSWERED: Final = frozenset({State.SUBMITTING, State.IN_DOUBT})
_SAME_MONEY: Final = frozenset(
    {
        (State.PENDING, State.FAILED),
        (State.SUBMITTING, State.GENERATING),
        (State.READY, State.DONE),
        (State.DONE, State.READY),
        *((state, state) for state in State if state is not State.SUBMITTING),
    }
)
"""Transitions that move no money by themselves. Most are of this kind, and cost no second write."""

_values_of: Final = attrgetter(*("state._value_" if name == "state" else name for name in COLUMNS))
_money_of: Final = attrgetter(
    "correlation_id",
    "usd_spent",
    "earlier_usd",
    "credits_used",
    "reserved_usd",
    "completed_at",
    "vendor_sent_at",
)


def submission_id(record: Record) -> str:
    """Return the id of the entry that the record's last submission, or adopted generation, has."""
    if record.correlation_id:
        return record.correlation_id
    if record.generation_id:
        return f"{ADOPTED}{record.generation_id}"
    return f"{record.key}/{record.submission_no}"


def spending_change(before: Record, after: Record) -> Submission | None:
    """Return the entry that a transition of a record adds or changes, None when no money moves."""
    if before.state in _UNANSWERED and after.state is State.PENDING:
        return _left_unanswered(before, after)
    if after.state is State.PENDING:
        return entry_of(after) if _cost_usd(after) != _cost_usd(before) else None
    if (before.state, after.state) in _SAME_MONEY and _money_of(before) == _money_of(after):
        return None
    return entry_of(after)


def _left_unanswered(before: Record, after: Record) -> Submission:
    """A submission is over without a generation: refused or proven absent, unless its user gave it up."""
    # Given up by --resubmit-in-doubt: it may have been paid all the same, and counts.
    gave_up = not after.correlation_id
    state = SubmissionState.MAYBE_SPENT if gave_up else SubmissionState.RELEASED
    reason = "given up while in doubt" if gave_up else "not accepted"
    return _entry_of(before, state, reason)


def upgraded(record: Record) -> Record:
    """Return a record of ledger version 1 or 2 with what it implies written out."""
    code = record.failure.code if record.failure else ""
    completed = record.state in (State.READY, State.DONE) or code in PAID_FAILURES
    waits = record.state is State.PENDING or record.state in _UNANSWERED
    return replace(
        record,
        completed_at=record.finished_at if completed else None,
        earlier_usd=(record.usd_spent or 0.0) if waits else 0.0,
    )


def entries_of(record: Record) -> Iterator[Submission]:
    """Yield the entries that an upgraded record stands for."""
    if record.submission_no or record.generation_id:
        yield entry_of(record)
    if record.earlier_usd:
        earlier = _entry_of(record, SubmissionState.SPENT, "from an earlier version of the ledger")
        yield replace(earlier, id=f"earlier:{record.key}", reserved_usd=None, usd=record.earlier_usd)


def entry_of(record: Record) -> Submission:
    """Return the entry of a record's last submission, as far as the record alone says."""
    match record.state:
        case State.SUBMITTING | State.GENERATING:
            charged = record.completed_at is not None
            return _entry_of(record, SubmissionState.SPENT if charged else SubmissionState.RESERVED)
        case State.IN_DOUBT:
            return _entry_of(record, SubmissionState.MAYBE_SPENT, "in doubt")
        case State.READY | State.DONE:
            return _entry_of(record, SubmissionState.SPENT)
        case State.FAILED:
            return _failed_entry(record)
        case State.PENDING:
            charged = _cost_usd(record) is not None
            return _entry_of(record, SubmissionState.SPENT if charged else SubmissionState.RELEASED)
        case unreachable:
            assert_never(unreachable)


def _failed_entry(record: Record) -> Submission:
    code = record.failure.code if record.failure else ""
    if record.completed_at is not None or code in PAID_FAILURES or _cost_usd(record) is not None:
        return _entry_of(record, SubmissionState.SPENT, code)
    proven = code == GENERATION_UNKNOWN and record.failure is not None and record.failure.retryable
    # Released only by proof; every other failure may have been charged, and counts until the vendor says.
    if not record.generation_id or code in UNCHARGED_FAILURES or proven:
        return _entry_of(record, SubmissionState.RELEASED, code)
    return _entry_of(record, SubmissionState.MAYBE_SPENT, code)


def _cost_usd(record: Record) -> float | None:
    """Return what the last submission cost, None when the vendor has not said."""
    # `usd_spent` is the row's whole cost over all its submissions; the last one's is what came on top.
    if record.usd_spent is None or (record.earlier_usd and record.usd_spent <= record.earlier_usd):
        return None
    return round(record.usd_spent - record.earlier_usd, 9)


def _entry_of(record: Record, state: SubmissionState, reason: str = "") -> Submission:
    spent = state is SubmissionState.SPENT
    settled_at = record.finished_at if state in (SubmissionState.SPENT, SubmissionState.RELEASED) else None
    return Submission(
        id=submission_id(record),
        job_key=record.key,
        submission_no=record.submission_no,
        key_id=record.key_id,
        api_url=record.api_url,
        model=record.model,
        submitted_at=record.submitted_at,
        vendor_sent_at=record.vendor_sent_at,
        reserved_usd=record.reserved_usd,
        state=state,
        usd=_cost_usd(record) if spent else None,
        credits=record.credits_used if spent else None,
        generation_id=record.generation_id if state is not SubmissionState.RESERVED else "",
        settled_at=settled_at,
        reason=reason,
    )


def to_row(entry: Submission) -> tuple[Any, ...]:
    """Return the values of `COLUMNS`."""
    return tuple(_values_of(entry))


def from_row(row: Sequence[Any]) -> Submission:
    values = list(row)
    values[_STATE_INDEX] = SubmissionState(values[_STATE_INDEX])
    return Submission(*values)


_STATE_INDEX: Final = COLUMNS.index("state")
