"""What all submissions cost together, kept up as entries change. Pure.

Counted in micro-dollars: a thousand additions of 1.20 do not drift.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Any, Final

from pipeline.ledger.spending import KEPT_COLUMNS, KEPT_TEXT_COLUMNS, Submission, SubmissionState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

MICRO: Final = 1_000_000
CREDITS_PER_USD: Final = 2_000_000
"""What the vendor's documentation says a dollar buys (November 2026)."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Money of all submissions that a ledger knows, in USD.

    `spent_usd` is what the vendor confirmed; `assumed_usd` what was set aside for paid submissions whose
    cost it has not said; `open_usd` is set aside for generations that are not finished; `maybe_usd` may have
    been spent by submissions in doubt, also those that were given up. `unpriced` counts paid submissions
    of whose cost nothing is known.
    """

    spent_usd: float = 0.0
    assumed_usd: float = 0.0
    open_usd: float = 0.0
    maybe_usd: float = 0.0
    unpriced: int = 0

    @property
    def committed_usd(self) -> float:
        """What a budget has to count: all of it."""
        return self.spent_usd + self.assumed_usd + self.open_usd + self.maybe_usd

    def plus(self, other: Totals, count: int) -> Totals:
        """Return the sum of this and `count` times the `other`, to the micro-dollar."""

        def added(mine: float, others: float) -> float:
            return (round(mine * MICRO) + round(others * MICRO) * count) / MICRO

        return Totals(
            added(self.spent_usd, other.spent_usd),
            added(self.assumed_usd, other.assumed_usd),
            added(self.open_usd, other.open_usd),
            added(self.maybe_usd, other.maybe_usd),
            self.unpriced + other.unpriced * count,
        )


class Spending:
    """The entries of a batch by id, and what they come to.

    `price_of` gives the price of a job's key where neither the vendor nor the reservation has one; None is
    unknown. A generation that two entries name (a submission in doubt, then adopted) counts once.
    """

    def __init__(
        self, entries: Iterable[Submission] = (), price_of: Callable[[str], float | None] = lambda _: None
    ) -> None:
        self._entries: dict[str, Submission] = {}
        self._price_of = price_of
        self._by_generation: dict[str, set[str]] = {}
        self._committed = 0
        self._unpriced: dict[str, str] = {}
        for entry in entries:
            self.put(entry)

    def __iter__(self) -> Iterator[Submission]:
        return iter(self._entries.values())

    def __contains__(self, entry_id: object) -> bool:
        return entry_id in self._entries

    @property
    def committed(self) -> int:
        """What is spent, may be spent or is set aside, in micro-dollars; unknown costs are left out."""
        return self._committed

    @property
    def unpriced_jobs(self) -> list[str]:
        """Return the keys of the jobs whose submissions cost, or may have cost, an unknown amount."""
        return sorted(set(self._unpriced.values()))

    def cost_of(self, entry_id: str) -> int:
        """Return what an entry counts, in micro-dollars; 0 for one that is not here."""
        entry = self._entries.get(entry_id)
        return 0 if entry is None else ceil_micro(self._cost_usd(entry) or 0.0)

    def put(self, entry: Submission) -> None:
        """Add an entry, or bring it up to date: what is known stays known, and what is spent stays spent."""
        old = self._entries.get(entry.id)
        new = entry if old is None else merged(old, entry)
        affected = {entry.id}
        # Entries of one generation count together, so its other entries change with this one.
        for generation in {new.generation_id, old.generation_id if old else ""} - {""}:
            affected |= self._by_generation.setdefault(generation, set())
        before = self._counted(affected)
        self._entries[entry.id] = new
        if new.generation_id:
            self._by_generation[new.generation_id].add(entry.id)
        self._committed += self._counted(affected) - before
        if self._cost_usd(new) is None:
            self._unpriced[entry.id] = new.job_key
        else:
            self._unpriced.pop(entry.id, None)

    def _counted(self, ids: Iterable[str]) -> int:
        """Return what entries come to; of those that name one generation, the dearest."""
        by_generation: dict[str, int] = {}
        for entry_id in ids:
            entry = self._entries.get(entry_id)
            if entry is not None:
                name = entry.generation_id or entry_id
                # One generation that two entries name, in doubt and then adopted, was paid once.
                by_generation[name] = max(by_generation.get(name, 0), self.cost_of(entry_id))
        return sum(by_generation.values())

    def _cost_usd(self, entry: Submission) -> float | None:
        if entry.state is SubmissionState.RELEASED:
            return 0.0
        if entry.usd is not None:
            return entry.usd
        held = self._price_of(entry.job_key) if entry.reserved_usd is None else entry.reserved_usd
        # A count of credits alone is trusted less than a price: the higher of the two counts.
        return max(held or 0.0, entry.credits / CREDITS_PER_USD) if entry.credits else held

    def totals(self) -> Totals:
        """Add up all entries."""
        sums = dict.fromkeys(("spent", "assumed", "open", "maybe"), 0)
        counted: dict[str, tuple[int, str]] = {}
        for entry in self:
            if entry.state is not SubmissionState.RELEASED:
                found = self.cost_of(entry.id), _kind(entry)
                name = entry.generation_id or entry.id
                counted[name] = max(counted.get(name, found), found)
        for cost, kind in counted.values():
            sums[kind] += cost
        usd = {kind: cost / MICRO for kind, cost in sums.items()}
        return Totals(usd["spent"], usd["assumed"], usd["open"], usd["maybe"], self._n_unpriced())

    def _n_unpriced(self) -> int:
        return sum(self._entries[name].state is SubmissionState.SPENT for name in self._unpriced)


def totals_of(alike: Iterable[Sequence[Any]], shared: Sequence[Submission]) -> Totals:
    """Return `Spending.totals` of groups of entries: state, `usd`, `credits`, `reserved_usd`, count.

    `shared` are the entries, counted there too, whose generation others name as well.
    """
    counts = Counter({tuple(group): count for *group, count in alike})
    counts.subtract(Counter((one.state.value, one.usd, one.credits, one.reserved_usd) for one in shared))
    totals = Spending(shared).totals()
    for (state, usd, credits_used, reserved_usd), count in counts.items():
        entry = Submission(
            "", "", 0, "", "", "", None, None, reserved_usd, SubmissionState(state), usd, credits_used
        )
        totals = totals.plus(Spending([entry]).totals(), max(0, count))  # a run may have added one in between
    return totals


def _kind(entry: Submission) -> str:
    if entry.state is SubmissionState.RESERVED:
        return "open"
    if entry.state is SubmissionState.MAYBE_SPENT:
        return "maybe"
    return "assumed" if entry.usd is None and entry.credits is None else "spent"


def merged(old: Submission, new: Submission) -> Submission:
    """Return an entry brought up to date, by the rule of the ledger's own statement."""
    kept = {name: getattr(old, name) for name in KEPT_COLUMNS if getattr(new, name) is None}
    texts = {name: getattr(old, name) for name in KEPT_TEXT_COLUMNS if not getattr(new, name)}
    state = SubmissionState.SPENT if old.state is SubmissionState.SPENT else new.state
    return replace(new, state=state, **kept, **texts)


def ceil_micro(usd: float) -> int:
    """Round a price up to whole micro-dollars: a budget may err only to the side that spends less."""
    if not math.isfinite(usd) or usd < 0:
        raise ValueError(f"a price must be a finite number of at least 0, not {usd!r}")
    # By the decimal text: 4.03 * 1_000_000 is 4030000.0000000005 in binary, a micro-dollar more.
    return int((Decimal(repr(usd)) * MICRO).to_integral_value(ROUND_CEILING))


def floor_micro(usd: float) -> int:
    """Round a limit down to whole micro-dollars."""
    return int(Decimal(repr(usd)) * MICRO)
