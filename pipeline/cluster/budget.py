"""The money of all workers: a pending row is lent only with its price set aside. No clock, no messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pipeline.model import State
from pipeline.submit.budget import Budget

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipeline.cluster.messages import ClusterJob
    from pipeline.ledger.leases import Leased
    from pipeline.model import Record

UNPRICED = "its price is unknown: give --assume-price to run it under a budget"
CHARGED = frozenset({State.READY, State.DONE, State.FAILED})
"""States in which the ledger knows what a row has cost, or that it costs nothing."""


class Sorted(NamedTuple):
    """Claimed rows: to be lent, each with its price; without a price; for which there is no money now."""

    lent: list[tuple[Leased, float | None]]
    unpriced: list[str]
    too_dear: list[str]


class Purse:
    """The budget, and whether it has room. Rows are paid for in the manifest's order: none overtakes."""

    def __init__(self, job: ClusterJob) -> None:
        self._job = job
        self._budget = Budget(job.settings.max_cost)
        self.short = False

    @property
    def limited(self) -> bool:
        """Say whether there is a budget at all."""
        return self._budget.limit_usd is not None

    @property
    def words(self) -> str:
        return f"the budget of {self._budget.limit_usd:.2f} USD has no room for another row"

    def count(self, records: Iterable[Record]) -> None:
        """Count what the ledger says was spent or set aside before."""
        for record in records:
            self._budget.update(record)

    def settle(self, records: Iterable[Record]) -> None:
        """Take what has become of rows: money that they did not need buys others."""
        before = self._budget.left_usd or 0.0
        for record in records:
            # A row that waits again is still lent, with its money: it is not given back before its end.
            if record.state in CHARGED:
                self._budget.update(record)
        if (self._budget.left_usd or 0.0) > before:
            self.short = False

    def sort(self, claimed: Sequence[Leased]) -> Sorted:
        """Set money aside for each row that is not paid yet, as far as it goes."""
        lent: list[tuple[Leased, float | None]] = []
        unpriced: list[str] = []
        too_dear: list[str] = []
        for row in claimed:
            record, price = row.record, self._job.price_of(row.record)
            self._budget.update(record)
            if record.state is not State.PENDING or not self.limited:
                lent.append((row, price))
            elif price is None:
                unpriced.append(record.key)
            elif too_dear or not self._budget.reserve(record.key, price):
                too_dear.append(record.key)
            else:
                lent.append((row, price))
        self.short = self.short or bool(too_dear)
        return Sorted(lent, unpriced, too_dear)
