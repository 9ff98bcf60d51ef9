"""What one run added to a batch that earlier runs may have begun. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from pipeline.model import State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipeline.model import Record


class RowStart(NamedTuple):
    """What a run has to know of a row as it found it; by default, of one that was never submitted."""

    state: State = State.PENDING
    version: int = 0
    attempts: int = 0
    usd_spent: float | None = None
    finished_at: float | None = None


NEW_ROW: Final = RowStart()
_start_of: Final = attrgetter(*RowStart._fields)


def not_new(records: Iterable[Record]) -> tuple[Record, ...]:
    """Return the rows that earlier runs have moved: of the others there is nothing to keep for `between`."""
    return tuple(record for record in records if _start_of(record) != NEW_ROW)


@dataclass(frozen=True, slots=True)
class RunDelta:
    """Counts of rows; `saved_before` are videos that the run found saved. Money in USD.

    `rendered` holds the keys of the rows whose generation finished in this run.
    """

    changed: bool
    submitted: int
    saved: int
    failed: int
    saved_before: int
    usd: float
    rendered: frozenset[str]

    @classmethod
    def between(cls, initial: Sequence[Record], final: Sequence[Record]) -> RunDelta:
        """Compare the records that a run began with to those that it left; what `initial` lacks was new."""
        before: dict[str, Record | RowStart] = {record.key: record for record in initial}
        pairs = [(before.get(record.key, NEW_ROW), record) for record in final]
        done = [(old, new) for old, new in pairs if new.state is State.DONE]
        saved = sum(old.state is not State.DONE for old, _ in done)
        return cls(
            changed=any(old.version != new.version for old, new in pairs),
            submitted=sum(new.attempts > old.attempts for old, new in pairs),
            saved=saved,
            failed=sum(new.state is State.FAILED and old.version != new.version for old, new in pairs),
            saved_before=len(done) - saved,
            usd=sum((new.usd_spent or 0.0) - (old.usd_spent or 0.0) for old, new in pairs),
            rendered=frozenset(new.key for old, new in done if new.finished_at != old.finished_at),
        )
