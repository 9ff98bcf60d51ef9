"""Money under a limit: reserve before a submission, and count every submission that the ledger has.

It decides; the reservation is written into the ledger by the transition that commits the submission.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline.ledger.spending import entry_of, spending_change, submission_id
from pipeline.ledger.totals import MICRO, Spending, ceil_micro, floor_micro
from pipeline.model import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pipeline.ledger.spending import Submission
    from pipeline.model import Record

_LISTED_JOBS: Final = 3

PRICE_UNKNOWN_MESSAGE: Final = "its price is unknown: give --assume-price to run it under a budget"


class Budget:
    """What may still be spent of `limit_usd` (None: no limit, and nothing is counted).

    Everything counts that any submission spent or may have spent, whatever has become of its row. A new
    reservation never takes the sum over the limit; a charge higher than its reservation can, and then nothing
    more is reserved. `price_of` gives the price of a job's key where the ledger has
    none (see `Spending`); while a cost is unknown, nothing is reserved.
    """

    def __init__(
        self,
        limit_usd: float | None,
        entries: Iterable[Submission] = (),
        price_of: Callable[[str], float | None] = lambda _: None,
    ) -> None:
        self._limit = None if limit_usd is None else floor_micro(limit_usd)
        self._price_of = price_of
        self._spending = Spending((), price_of)
        self._reserved: dict[str, int] = {}
        self._entries_since: dict[str, set[str]] = {}
        self.load(entries)

    @property
    def limit_usd(self) -> float | None:
        return None if self._limit is None else self._limit / MICRO

    @property
    def committed_usd(self) -> float:
        """Return what is spent, may be spent, or is set aside."""
        return self._committed() / MICRO

    @property
    def remaining_usd(self) -> float | None:
        """What may still be reserved, 0 when overdrawn; None without a limit."""
        return None if self._limit is None else max(0, self._limit - self._committed()) / MICRO

    @property
    def is_overdrawn(self) -> bool:
        """Return whether what is spent, may be spent, or is set aside is more than the limit."""
        return self._limit is not None and self._committed() > self._limit

    def reserve(self, key: str, price_usd: float) -> bool:
        """Set `price_usd` aside for a job; False, and nothing changes, when the limit does not allow it.

        A second reservation of one job replaces the first.
        """
        # Prices are rounded up and the limit down: in doubt the budget is kept, not the last row.
        price, replaced = ceil_micro(price_usd), self._unused_reservation(key)
        if self._limit is None:
            return True
        # An unknown cost may be anything: under a limit nothing more is bought until it is known.
        if self._spending.unpriced_jobs or self._committed() - replaced + price > self._limit:
            return False
        # Held here only until the transition is committed; from then on its entry counts in its place.
        self._reserved[key] = price
        self._entries_since[key] = set()
        return True

    def hold(self, record: Record, price_usd: float) -> None:
        """Set a price aside for a row under way, of which its submission uses what it costs, or may cost."""
        self.update(record)
        if self._limit is not None:
            self._reserved[record.key] = ceil_micro(price_usd)
            self._entries_since[record.key] = {submission_id(record)}

    def release(self, key: str) -> None:
        """Give back what was reserved for a job and is in no entry: it was not submitted."""
        self._reserved.pop(key, None)
        self._entries_since.pop(key, None)

    def apply(self, before: Record, after: Record) -> None:
        """Count a transition that was committed; its entry counts in place of the reservation now."""
        # First: with its entry counted too, the reservation would count the row twice.
        self.release(after.key)
        if self._limit is not None and (entry := spending_change(before, after)) is not None:
            self._spending.put(entry)

    def update(self, record: Record) -> None:
        """Count a record as the ledger has it, when the transitions that led there are not known."""
        self.release(record.key)
        if self._limit is not None and record.state is not State.PENDING:
            self._spending.put(entry_of(record))

    def load(self, entries: Iterable[Submission]) -> None:
        """Count the entries of the ledger in place of all that was counted.

        What is reserved stays so: an entry that is new for such a job uses up its reservation.
        """
        if self._limit is None:
            return
        known, self._spending = self._spending, Spending(entries, self._price_of)
        # Else a submission that was committed meanwhile would count twice: as entry and as reservation.
        for entry in self._spending:
            if entry.job_key in self._entries_since and entry.id not in known:
                self._entries_since[entry.job_key].add(entry.id)

    def full_message(self) -> str:
        """Say why nothing more can be reserved, and what helps."""
        unpriced = [key.rpartition("@")[0] or key for key in self._spending.unpriced_jobs]
        if not unpriced:
            return f"the budget of {self.limit_usd:.2f} USD has no room for another row"
        listed = ", ".join(unpriced[:_LISTED_JOBS])
        more = f" and {len(unpriced) - _LISTED_JOBS} more" if len(unpriced) > _LISTED_JOBS else ""
        return (
            f"what {listed}{more} cost is unknown, so the budget of {self.limit_usd:.2f} USD cannot be kept: "
            "give --assume-price, or run `veobatch costs` to learn it from the vendor's log"
        )

    def _committed(self) -> int:
        return self._spending.committed + sum(map(self._unused_reservation, self._reserved))

    def _unused_reservation(self, key: str) -> int:
        """Return what is reserved for a job beyond what its submissions since then use of it."""
        used = sum(map(self._spending.cost_of, self._entries_since.get(key, ())))
        return max(0, self._reserved.get(key, 0) - used)
