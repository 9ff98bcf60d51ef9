"""Money of rows that a ledger put back from a backup does not have: it counts, though no row is theirs. Pure.

Such a row was added after the backup and has left the manifest since, as one does that was edited.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline.ledger.spending import Submission, SubmissionState

if TYPE_CHECKING:
    from collections.abc import Iterable, Set

    from pipeline.submit.submission_journal import JournalEntry

REASON: Final = "of a row that an older copy of the ledger does not have"


def entries_of_unknown_rows(
    notes: Iterable[JournalEntry], known_digests: Set[str], known_ids: Set[str]
) -> list[Submission]:
    """Return an entry for each noted submission of a row that is not known: it may be paid.

    Those without a price are left out: a cost that nobody can learn would keep the budget closed for ever.
    """
    # The note of a completion has no price: that is in the one from before the create.
    first = {note.correlation_id: note for note in notes if note.reserved_usd is not None}
    return [
        Submission(
            note.correlation_id,
            f"{REASON}@{note.row_digest}",
            note.number,
            note.key_id,
            note.api_url,
            "",
            note.submitted_at,
            note.vendor_sent_at,
            note.reserved_usd,
            SubmissionState.MAYBE_SPENT,
            reason=REASON,
        )
        for note in first.values()
        if note.row_digest not in known_digests and note.correlation_id not in known_ids
    ]
