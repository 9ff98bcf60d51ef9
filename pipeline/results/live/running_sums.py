"""What a batch comes to while its rows change: a change costs its own row, not a sum over all of them.

Always what `summarize`, `figures` and `failure_groups` make of all rows as the live page shows them. Pure.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import fields, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from pipeline.model import State
from pipeline.results import overview
from pipeline.results.csv_rows import visible_records
from pipeline.results.report import page_records
from pipeline.results.totals import Summary, summarize

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pipeline.model import Record

_ADDED: Final = tuple(
    field.name for field in fields(Summary) if field.name not in ("counts", "began_at", "ended_at", "sandbox")
)
_TROUBLED: Final = frozenset({State.FAILED, State.IN_DOUBT})
_PLACES: Final = 6
"""Of USD and seconds: what a million changes leave behind in a float is smaller by far."""


class RunningSums:
    """The sums over `records`, a mapping of which every later change is told to `replace`."""

    def __init__(self, records: Mapping[str, Record]) -> None:
        self._records = records
        rows = self._rows()
        self._sums = summarize(rows)
        self._times = overview.rendering_times(rows)
        self._troubled = {row.key: row for row in rows if row.state in _TROUBLED}
        self._batch_size = (-1, "")

    def replace(self, before: Record | None, after: Record) -> None:
        """Take over that `records` now has `after` in the place of `before`, or besides the others."""
        old = [] if before is None else page_records([before], live=True)
        new = page_records([after], live=True)
        for time_s in overview.rendering_times(old):
            del self._times[bisect_left(self._times, time_s)]
        for time_s in overview.rendering_times(new):
            insort(self._times, time_s)
        self._troubled.pop(after.key, None)
        self._troubled.update({row.key: row for row in new if row.state in _TROUBLED})
        self._add(summarize(old), summarize(new))

    def summary(self, *, sandbox: bool = False) -> Summary:
        """Return the sums as they are now."""
        values = {name: getattr(self._sums, name) for name in _ADDED}
        rounded: dict[str, Any] = {
            name: round(value, _PLACES) for name, value in values.items() if isinstance(value, float)
        }
        return replace(self._sums, **rounded, sandbox=sandbox)

    def figures(self, totals: Summary) -> list[overview.Figure]:
        """Return the numbers at the top of the page."""
        if self._batch_size[0] != totals.total:  # takes and rows stay what they are
            self._batch_size = totals.total, overview.batch_size(self._rows())
        return overview.figures_of(totals, self._batch_size[1], self._times)

    def troubled(self) -> list[Record]:
        """Return the rows that failed or are in doubt, in the page's order."""
        return visible_records(self._troubled.values())

    def _rows(self) -> list[Record]:
        return page_records(list(self._records.values()), live=True)

    def _add(self, old: Summary, new: Summary) -> None:
        sums = self._sums
        added: dict[str, Any] = {
            name: getattr(sums, name) + getattr(new, name) - getattr(old, name) for name in _ADDED
        }
        counts = {
            state: count
            for state in {*sums.counts, *new.counts}
            if (count := sums.counts.get(state, 0) + new.counts.get(state, 0) - old.counts.get(state, 0))
        }
        began_at = self._outermost(min, attrgetter("began_at"), old, new)
        ended_at = self._outermost(max, attrgetter("ended_at"), old, new)
        self._sums = replace(sums, counts=counts, began_at=began_at, ended_at=ended_at, **added)

    def _outermost(
        self,
        pick: Callable[[Sequence[float]], float],
        moment_of: Callable[[Summary], float | None],
        old: Summary,
        new: Summary,
    ) -> float | None:
        """Return the first or last moment of all; only when the row that had it has lost it, ask them all."""
        known, was, now = moment_of(self._sums), moment_of(old), moment_of(new)
        if was is not None and was == known and (now is None or pick([now, was]) != now):
            return moment_of(summarize(self._rows()))
        moments = [moment for moment in (known, now) if moment is not None]
        return pick(moments) if moments else None
