"""The rows of a cluster's run as the driver shows them: as workers report them, checked with the ledger."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import anyio

from pipeline import clocks
from pipeline.errors import LedgerError
from pipeline.model import State
from pipeline.run_state import RunState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipeline.errors import StopReason
    from pipeline.events import Observer
    from pipeline.ledger import Ledger
    from pipeline.model import Record
    from pipeline.run_state import RunOutcome

CHECK_INTERVAL_S: Final = 0.25
REREAD_COST_FACTOR: Final = 50.0
REREAD_INTERVAL_S: Final = 60.0
"""Rows are shown as workers report them. The whole ledger is read again after a death, else once a minute,
within a fiftieth of the driver's time."""


class RecordView:
    """The records by key, and which rows workers left `unfinished`, with the reason, or `overdue`.

    `stale` asks for another read of the ledger; `deaths` counts processes that died since a row last changed;
    `unchecked` are saved rows whose files could not be checked before, with the reason.
    """

    def __init__(
        self,
        records: Sequence[Record],
        ledger: Ledger,
        observer: Observer,
        submittable: frozenset[str] | None = None,
    ) -> None:
        self._submittable = submittable
        self.records = {record.key: record for record in records}
        self.stale = False
        self.deaths = 0
        self.unfinished: dict[str, str] = {}
        self.unchecked: dict[str, str] = {}
        self.overdue: set[str] = set()
        self._ledger, self._observer = ledger, observer

    def apply(self, record: Record) -> None:
        """Take a record over, unless a later version of it is known."""
        known = self.records.get(record.key)
        if known is not None and known.version >= record.version:
            return
        self.records[record.key] = record
        self.deaths = 0
        if known is not None:
            self._observer.on_transition(known, record)

    async def read(self) -> None:
        """Take over every row as the ledger has it."""
        for record in await self._ledger.load():
            self.apply(record)

    async def keep_current(self) -> None:
        """Read the ledger again, for ever, where what is shown may differ from it."""
        cost_s, read_at = 0.0, clocks.monotonic()
        while True:
            await anyio.sleep(max(CHECK_INTERVAL_S, REREAD_COST_FACTOR * cost_s))
            began = clocks.monotonic()
            if self.stale or began > read_at + REREAD_INTERVAL_S:
                self.stale = False
                with suppress(LedgerError):  # the next read will do
                    await self.read()
                read_at = clocks.monotonic()
                cost_s = read_at - began

    def outcome(self, stop_reasons: Iterable[tuple[StopReason, str]]) -> RunOutcome:
        """Return how the run ended; of what kept rows from being submitted the first counts."""
        state = RunState(self.records, self._submittable)
        state.in_doubt = {key for key, row in self.records.items() if row.state is State.IN_DOUBT}
        final = (State.DONE, State.FAILED, State.IN_DOUBT)
        state.unfinished = self.unchecked | {
            key: why for key, why in self.unfinished.items() if why and self.records[key].state not in final
        }
        state.overdue = self.overdue & state.unfinished.keys()
        for why in stop_reasons:
            state.stop_submitting(*why)
        return state.outcome()
