"""The sections of a live page, drawn once for all its listeners: sums at once, charts now and then."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from pipeline import clocks
from pipeline.results import report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipeline.results.live.change_feed import ChangeFeed

RENDER_INTERVAL_FACTOR: Final = 10.0
"""Drawing anew may take a tenth of the time, so that a huge batch is not slowed by its page."""


class LiveSections:
    """What the page shows of the whole batch, by the names of `report.SECTIONS`.

    Sums are kept as rows change; charts are drawn of all rows, a third of a second at 100,000.
    """

    def __init__(self, feed: ChangeFeed, *, sandbox: bool) -> None:
        self._feed = feed
        self._sandbox = sandbox
        self._drawings = (_Drawing(self._sums), _Drawing(self._charts))
        self._lock = asyncio.Lock()

    async def current(self, *, force: bool) -> dict[str, str]:
        """Return the sections; what has changed is drawn anew when it is due, or with `force`."""
        async with self._lock:
            html: dict[str, str] = {}
            for drawing in self._drawings:
                html |= await drawing.current(self._feed.cursor, force=force)
            return html

    def are_current(self) -> bool:
        """Return whether the sections show the feed as it is now."""
        return all(drawing.cursor == self._feed.cursor for drawing in self._drawings)

    def _sums(self) -> Callable[[], Mapping[str, str]]:
        totals = self._feed.sums.summary(sandbox=self._sandbox)
        figures, troubled = self._feed.sums.figures(totals), self._feed.sums.troubled()
        return lambda: report.render_sums(totals, figures, troubled, live=True)

    def _charts(self) -> Callable[[], Mapping[str, str]]:
        records = self._feed.records()
        return lambda: report.render_charts(records, live=True)


class _Drawing:
    """Some sections as they were drawn last. `prepare` takes from the feed what is drawn in a thread."""

    def __init__(self, prepare: Callable[[], Callable[[], Mapping[str, str]]]) -> None:
        self._prepare = prepare
        self.cursor = ""
        self._html: Mapping[str, str] = {}
        self._drawn_at = 0.0
        self._took_s = 0.0

    async def current(self, cursor: str, *, force: bool) -> Mapping[str, str]:
        began = clocks.monotonic()
        due = force or began - self._drawn_at >= RENDER_INTERVAL_FACTOR * self._took_s
        if self.cursor != cursor and due:
            self._html = await asyncio.to_thread(self._prepare())
            self.cursor, self._drawn_at = cursor, clocks.monotonic()
            self._took_s = self._drawn_at - began
        return self._html
