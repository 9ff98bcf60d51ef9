"""The budget of all workers: a pending row is leased only if selected, and with its price reserved.

No clock, no messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pipeline.errors import StopReason
from pipeline.ledger.leases import IN_FLIGHT_STATES
from pipeline.model import State
from pipeline.submit.budget import PRICE_UNKNOWN_MESSAGE, Budget

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from pipeline.cluster.messages import ClusterConfig
    from pipeline.ledger.leases import LeasedRow
    from pipeline.ledger.spending import Submission
    from pipeline.model import Record

COST_KNOWN_STATES = frozenset({State.READY, State.DONE, State.FAILED})
"""States in which the ledger knows what a row has cost, or that it costs nothing."""


class BudgetAllocation(NamedTuple):
    """Claimed rows: to be leased, each with its price; beyond the budget for now; left to the next run.

    Those that are left have the reason with them, "" for rows that were not selected.
    """

    affordable: list[tuple[LeasedRow, float | None]]
    over_budget: list[str]
    left: dict[str, str]


class ClusterBudget:
    """The budget, and whether it has room. Rows are leased in the manifest's order: none overtakes.

    `is_overdrawn`: rows under way hold more than the limit, so that none of them may be submitted again.
    """

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config
        self._budget = Budget(config.settings.max_cost, price_of=config.price_of_key)
        self.exhausted = False
        self.is_overdrawn = False

    @property
    def has_limit(self) -> bool:
        return self._budget.limit_usd is not None

    def full_message(self) -> str:
        return self._budget.full_message()

    def stop_reason(self) -> tuple[StopReason, str] | None:
        """Why no more rows are submitted for now, None while there is room."""
        return (StopReason.BUDGET, self.full_message()) if self.exhausted else None

    def load(self, entries: Iterable[Submission]) -> None:
        """Count what the ledger says was spent or set aside."""
        self._budget.load(entries)

    def update(self, records: Iterable[Record]) -> None:
        """Apply what became of rows: what they did not cost is free for others."""
        before = self._budget.remaining_usd or 0.0
        for record in records:
            # A row that is pending again is still leased, with its reservation.
            if record.state in COST_KNOWN_STATES:
                self._budget.update(record)
            elif record.state is State.PENDING and not self._config.may_submit(record.key):
                self.exhausted = False  # nothing is reserved: its submission's entry may have given back
        if (self._budget.remaining_usd or 0.0) > before:
            self.exhausted = False

    async def lease(
        self, claimed: Sequence[LeasedRow], read_book: Callable[[], Awaitable[Iterable[Submission]]]
    ) -> BudgetAllocation:
        """Allocate; before any row is beyond the budget, count what the ledger's entries have given back.

        A dead worker's row that was refused is pending again, and only the ledger saw that it cost nothing.
        """
        allocation = self.allocate(claimed)
        if allocation.over_budget:
            self.load(await read_book())
            self.exhausted = False
            allocation = self.allocate(claimed)
        return allocation

    def allocate(self, claimed: Sequence[LeasedRow]) -> BudgetAllocation:
        """Reserve the price of each pending row, as far as the budget goes."""
        affordable: list[tuple[LeasedRow, float | None]] = []
        over_budget: list[str] = []
        left: dict[str, str] = {}
        for row in claimed:
            record, price = row.record, self._config.price_of(row.record)
            may_submit = self._config.may_submit(record.key)
            self._budget.update(record)
            if record.state is State.PENDING and not may_submit:
                left[record.key] = ""
            elif record.state is not State.PENDING or not self.has_limit:
                # Its worker may submit it again without asking, when this submission costs nothing.
                if price is not None and may_submit and record.state in IN_FLIGHT_STATES:
                    self._budget.hold(record, price)
                    self.is_overdrawn = self.is_overdrawn or self._budget.is_overdrawn
                affordable.append((row, price))
            elif price is None:
                left[record.key] = PRICE_UNKNOWN_MESSAGE
            elif over_budget or not self._budget.reserve(record.key, price):
                over_budget.append(record.key)
            else:
                affordable.append((row, price))
        self.exhausted = self.exhausted or bool(over_budget)
        return BudgetAllocation(affordable, over_budget, left)
