"""What a look at a generation makes of its record. One row each, pure; when to look is polling's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.client.responses import Phase
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
    usd = record.usd_spent if status.usd_spent is None else status.usd_spent
    return record.evolve(
        State.READY,
        video_url=status.video_url,
        finished_at=now,
        usd_spent=usd,
        reserved_usd=record.reserved_usd if usd is None else None,
        credits_used=record.credits_used if status.credits_used is None else status.credits_used,
    )


def mark_failed(record: Record, status: GenerationStatus, now: float) -> Record:
    """Return a generating record whose generation failed.

    The vendor never charges for that, unless it calls the generation completed and shows no video.
    """
    if status.failure is None:
        raise ValueError(f"{status.status} is not a failed generation")
    charged = status.failure.code in PAID_FAILURES
    usd = record.usd_spent if status.usd_spent is None else status.usd_spent
    return record.evolve(
        State.FAILED,
        failure=status.failure,
        finished_at=now,
        faults=record.faults + 1,
        reserved_usd=record.reserved_usd if charged and usd is None else None,
        usd_spent=usd if charged else None,
        credits_used=status.credits_used if charged else None,
    )
