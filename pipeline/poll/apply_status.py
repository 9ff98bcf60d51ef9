"""What a poll of a generation makes of its record. One row each, pure; when to poll is the schedule's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.client.responses import Phase, url_fields
from pipeline.model import State
from pipeline.plan import PAID_FAILURES

if TYPE_CHECKING:
    from pipeline.client.responses import GenerationStatus
    from pipeline.model import Record


def mark_ready(record: Record, status: GenerationStatus, now: float) -> Record:
    """Return a generating record whose video is there to be fetched.

    The charge is recorded by the vendor once the generation is completed, so money is settled here.
    """
    if status.phase is not Phase.COMPLETED:
        raise ValueError(f"{status.status} is not a completed generation")
    usd = _usd_spent(record, status)
    return record.evolve(
        State.READY,
        **url_fields(record, status),
        finished_at=now,
        completed_at=record.completed_at or now,
        usd_spent=usd,
        reserved_usd=record.reserved_usd if usd is None else None,
        credits_used=record.credits_used if status.credits_used is None else status.credits_used,
    )


def mark_failed(record: Record, status: GenerationStatus, now: float) -> Record:
    """Return a generating record whose generation failed.

    The vendor never charges for that, unless it calls the generation completed and shows no video. What it
    charged once stays counted, whatever it answers later.
    """
    if status.failure is None:
        raise ValueError(f"{status.status} is not a failed generation")
    completed = status.failure.code in PAID_FAILURES
    charged = completed or record.completed_at is not None
    usd = _usd_spent(record, status) if charged else record.usd_spent
    return record.evolve(
        State.FAILED,
        failure=status.failure,
        finished_at=now,
        faults=record.faults + 1,
        reserved_usd=record.reserved_usd if charged and usd is None else None,
        completed_at=record.completed_at or (now if completed else None),
        usd_spent=usd,
        credits_used=status.credits_used if charged and status.credits_used else record.credits_used,
    )


def _usd_spent(record: Record, status: GenerationStatus) -> float | None:
    """Return what the row has cost in all once `status` names what its generation did."""
    if status.usd_spent is None:
        return record.usd_spent
    return max(record.earlier_usd + status.usd_spent, record.usd_spent or 0.0)
