"""Money under a limit: reserve before a create, settle by the actual cost, release on failure.

Pure bookkeeping in micro-dollars, so that a thousand additions of 1.20 do not drift. It decides; writing
the reservation into the ledger before the create leaves is the caller's.
"""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Final, assert_never

from pipeline.model import State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.model import Record

_MICRO: Final = 1_000_000


class Budget:
    """What may still be spent of `limit_usd` (None: no limit).

    The sum of settled and reserved never exceeds the limit because of a new reservation. It can exceed it
    when the vendor charges more than was reserved; then nothing more is reserved.
    """

    def __init__(self, limit_usd: float | None) -> None:
        self._limit = None if limit_usd is None else _floor_micro(limit_usd)
        self._settled: dict[str, int] = {}
        self._reserved: dict[str, int] = {}
        self._settled_sum = 0
        self._reserved_sum = 0

    @classmethod
    def from_records(cls, limit_usd: float | None, records: Iterable[Record]) -> Budget:
        """Return the budget that `records`, all of this manifest's ledger, leave of `limit_usd`."""
        budget = cls(limit_usd)
        for record in records:
            budget.update(record)
        return budget

    @property
    def limit_usd(self) -> float | None:
        return None if self._limit is None else self._limit / _MICRO

    @property
    def settled_usd(self) -> float:
        return self._settled_sum / _MICRO

    @property
    def reserved_usd(self) -> float:
        return self._reserved_sum / _MICRO

    @property
    def left_usd(self) -> float | None:
        """What may still be reserved, 0 when overdrawn; None without a limit."""
        if self._limit is None:
            return None
        return max(0, self._limit - self._settled_sum - self._reserved_sum) / _MICRO

    def reserve(self, key: str, price_usd: float) -> bool:
        """Set `price_usd` aside for `key`; False, and nothing changes, when the limit does not allow it.

        A second reservation of one key replaces the first (the job is created again after it failed);
        what it has cost already stays counted.
        """
        price = _ceil_micro(price_usd)
        others = self._reserved_sum - self._reserved.get(key, 0)
        if self._limit is not None and self._settled_sum + others + price > self._limit:
            return False
        self._set_reserved(key, price)
        return True

    def settle(self, key: str, actual_usd: float | None) -> None:
        """Replace the reservation of `key` by its whole cost so far; None: by what was reserved.

        Settling again corrects the cost (the vendor's log may know better than the header did).
        """
        held = self._reserved.get(key)
        if actual_usd is None and held is None:
            return
        cost = self._settled.get(key, 0) + (held or 0) if actual_usd is None else _ceil_micro(actual_usd)
        self.release(key)
        self._set_settled(key, cost)

    def release(self, key: str) -> None:
        """Give back what is reserved for `key`: it was not accepted, or failed and is not charged."""
        self._reserved_sum -= self._reserved.pop(key, 0)

    def update(self, record: Record) -> None:
        """Let what the ledger says of a row replace all that was counted for it.

        A cost counts in any state. A create without an answer also counts what was reserved: a cost it has
        is that of an earlier try. A generation that is not finished counts at least what was reserved: the
        charge is made when it completes. A failed row holds a reservation only when it failed after that.
        """
        spent = None if record.usd_spent is None else _ceil_micro(record.usd_spent)
        held = 0 if record.reserved_usd is None else _ceil_micro(record.reserved_usd)
        self.release(record.key)
        self._set_settled(record.key, spent or 0)
        match record.state:
            case State.SUBMITTING | State.IN_DOUBT:
                self._set_reserved(record.key, held)
            case State.GENERATING:
                self._set_reserved(record.key, max(0, held - (spent or 0)))
            case State.READY | State.DONE | State.FAILED:
                self._set_reserved(record.key, held if spent is None else 0)
            case State.PENDING:
                pass
            case _:
                assert_never(record.state)

    def _set_reserved(self, key: str, price: int) -> None:
        self._reserved_sum += price - self._reserved.get(key, 0)
        self._reserved[key] = price

    def _set_settled(self, key: str, cost: int) -> None:
        self._settled_sum += cost - self._settled.get(key, 0)
        self._settled[key] = cost


def _ceil_micro(usd: float) -> int:
    """Round a price up to whole micro-dollars: a budget may err only to the side that spends less."""
    if not math.isfinite(usd) or usd < 0:
        raise ValueError(f"a price must be a finite number of at least 0, not {usd!r}")
    return int((Decimal(repr(usd)) * _MICRO).to_integral_value(ROUND_CEILING))


def _floor_micro(usd: float) -> int:
    return int(Decimal(repr(usd)) * _MICRO)
