"""`BatchPlan`: what a run starts from, and what its user's word changes once it begins. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from pipeline.model import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.model import Record

MIN_REWRITTEN_ROWS: Final = 3
REWRITTEN_SHARE: Final = 0.8
"""Vanished rows for each new one, from which on the manifest seems rewritten."""


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """What a run starts from.

    `records` are all of the batch after planning, in order; `added` are the new ones among them,
    `transitions` the transitions to commit first, `positions` the new (position, line) of rows that moved.
    `edited` pairs the old record with the new one of the same id; `removed` are paid or doubtful rows that
    are no longer in the manifest. `requeues` are the transitions of failed rows and of rows in doubt that the
    user asks for this once: they follow the others, and only a run that begins commits them.
    `vanished_before` counts rows that vanished in an earlier plan, of which no run has begun since.
    """

    records: tuple[Record, ...]
    added: tuple[Record, ...]
    transitions: tuple[tuple[Record, Record], ...]
    positions: Mapping[str, tuple[int, int]]
    edited: tuple[tuple[Record, Record], ...]
    removed: tuple[Record, ...]
    requeues: tuple[tuple[Record, Record], ...] = ()
    vanished_before: int = 0

    @classmethod
    def empty(cls) -> BatchPlan:
        """Return the plan of a batch without rows."""
        return cls((), (), (), {}, (), ())

    def with_current(self, changed: Mapping[str, Record]) -> BatchPlan:
        """Return the plan with the records that have `changed` since, by their keys, and not requeued."""
        if not changed:
            return self
        return replace(
            self,
            records=tuple(changed.get(record.key, record) for record in self.records),
            requeues=tuple(pair for pair in self.requeues if pair[0].key not in changed),
        )

    def begun(self) -> BatchPlan:
        """Return the plan as it is once a run has begun, which requeues rows."""
        return self.with_current({after.key: after for _, after in self.requeues})

    def submitting_only(self, keys: frozenset[str]) -> BatchPlan:
        """Return the plan of a run that submits those rows alone: it requeues no others to be submitted."""
        kept = [pair for pair in self.requeues if pair[1].state is not State.PENDING or pair[1].key in keys]
        return replace(self, requeues=tuple(kept))

    @property
    def seems_rewritten(self) -> bool:
        """Return whether most rows are new while about as many that may be paid have just vanished.

        That is what a manifest looks like whose texts an editor or an export has changed throughout: its user
        has to say whether all of it is to be paid again.
        """
        rows = sum(record.position >= 0 for record in self.records)
        new = self.new
        return new >= MIN_REWRITTEN_ROWS and 2 * new > rows and self.vanished >= REWRITTEN_SHARE * new

    @property
    def new(self) -> int:
        """How many rows are new, in this plan or in one of which no run has begun since."""
        if not self.vanished_before:
            return len(self.added)
        rows = (record for record in self.records if record.position >= 0)
        return sum(record.state is State.PENDING and not record.submission_no for record in rows)

    @property
    def vanished(self) -> int:
        """How many rows that are or may be paid for the manifest has lost since a run last began."""
        gone = sum(self.positions.get(record.key, (0, 0))[0] < 0 for record in self.removed)
        return gone + self.vanished_before
