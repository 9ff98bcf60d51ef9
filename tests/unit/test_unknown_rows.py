"""What rows have cost that an older copy of the ledger does not have."""

from __future__ import annotations

from pipeline.ledger.spending import SubmissionState
from pipeline.reconcile.unknown_rows import entries_of_unknown_rows
from pipeline.submit.submission_journal import JournalEntry


def note(
    row: str, number: int = 1, usd: float | None = 1.2, completed_at: float | None = None
) -> JournalEntry:
    name = f"vb.ledger.{row}.{row}.{number}.0123456789abcdef"
    return JournalEntry(name, "key", "https://api.example", 10.0, 11.0, usd, completed_at)


def test_each_submission_of_a_row_that_is_not_known_counts_once() -> None:
    notes = [
        note("gone"),
        note("gone", usd=None, completed_at=20.0),  # a completion is noted without the price
        note("gone", 2, usd=0.5),
        note("here"),
        note("listed"),
        note("unpriced", usd=None),
    ]
    entries = entries_of_unknown_rows(notes, {"here"}, {notes[4].correlation_id})
    assert [(one.id, one.submission_no, one.reserved_usd) for one in entries] == [
        (notes[0].correlation_id, 1, 1.2),
        (notes[2].correlation_id, 2, 0.5),
    ]
    assert {one.state for one in entries} == {SubmissionState.MAYBE_SPENT}
    assert {one.submitted_at for one in entries} == {10.0}
