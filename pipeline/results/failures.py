"""Failures grouped by their reason, with what helps against each. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pipeline.model import State
from pipeline.results.csv_rows import status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.model import Failure, Record

MAX_ROWS_PER_GROUP: Final = 25
"""How many rows of a group the page names."""

IN_DOUBT_MESSAGE: Final = (
    "The request was sent but no response arrived: the row may have been paid for. The next run asks the "
    "vendor's log about it and takes over what was accepted. Nothing is submitted again on a guess."
)

_EDIT: Final = "Edit these rows: the same content would be refused again. An edited row is a new job."
_RETRY: Final = "Run again with --retry-failed: the failure was the vendor's and was not charged."
_FETCH_AGAIN: Final = "Run again with --retry-failed: the paid clip is fetched again, nothing new is bought."
REMEDIES: Final = {
    "refused": _EDIT,
    "content_refused": "Edit the prompts or replace the images: the vendor's filter would refuse them again.",
    "generation_refused": _EDIT,
    "image": "Replace these pictures, or mend them: another picture under the same name is a new job.",
    "not_found": "Check the model's name and --base-url, then run again with --retry-failed.",
    "generation_error": _RETRY,
    "not_accepted": "Wait until the vendor has recovered, then run again with --retry-failed.",
    "no_video": _FETCH_AGAIN,
    "not_a_video": _FETCH_AGAIN,
    "generation_unknown": "Run again with --retry-failed: what may be paid is only asked about again.",
    "in_doubt": "Run again: the vendor's log is asked again.",
}
_RETRY_CODES: Final = frozenset(
    {"generation_error", "not_accepted", "no_video", "not_a_video", "generation_unknown"}
)

# What differs from row to row in messages that say the same: URLs, ids, quoted text, numbers.
_VARIABLE = re.compile(r"https?://\S+|'[^']*'|\"[^\"]*\"|`[^`]*`|\b[\w-]*\d[\w-]*\b")


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Rows that share one reason. `rows` is bounded, `count` is not; `message` is the first row's."""

    state: State
    code: str
    message: str
    count: int
    rows: tuple[Record, ...]

    @property
    def remedy(self) -> str:
        """What helps, in one sentence."""
        if self.code in REMEDIES:
            return REMEDIES[self.code]
        return _RETRY if retry_helps(self.rows[0]) else _EDIT


def failure_groups(records: Iterable[Record]) -> list[FailureGroup]:
    """Return failures grouped by reason, the largest group first; rows in doubt come last.

    Messages that differ only in a URL, an id, a number or a quotation count as one reason.
    """
    groups: dict[tuple[State, str, str], list[Record]] = {}
    for record in records:
        row_status = status(record)
        if row_status is State.FAILED:
            groups.setdefault((row_status, *reason(record.failure)), []).append(record)
        elif row_status is State.IN_DOUBT:
            groups.setdefault((row_status, "in_doubt", ""), []).append(record)
    ranked = sorted(groups.items(), key=lambda item: (item[0][0] is State.IN_DOUBT, -len(item[1])))
    return [
        FailureGroup(state, code, _message(rows[0]), len(rows), tuple(rows[:MAX_ROWS_PER_GROUP]))
        for (state, code, _), rows in ranked
    ]


def reason(failure: Failure | None) -> tuple[str, str]:
    """Return the code and the message without what differs from row to row: equal for one reason."""
    return (failure.code, _VARIABLE.sub("…", failure.message)) if failure else ("failed", "")


def retry_helps(record: Record) -> bool:
    """Return whether the same content, submitted or fetched again, may succeed."""
    failure = record.failure
    return failure is None or failure.retryable or failure.code in _RETRY_CODES


def _message(record: Record) -> str:
    if status(record) is State.IN_DOUBT:
        return IN_DOUBT_MESSAGE
    return record.failure.message if record.failure else ""
