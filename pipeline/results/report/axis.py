"""Axes for the page's charts: round ticks, and a time axis that leaves out the nights between two runs.

Pure geometry; widths in the units of the SVG's view box.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pipeline.results.report.story import span

if TYPE_CHECKING:
    from collections.abc import Iterable

WIDTH: Final = 1000.0
_PAUSE_WIDTH: Final = 60.0
_SHORTEST_PAUSE_S: Final = 300.0
_STEPS_S: Final = (
    *(0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600),
    *(7200, 14400, 21600, 43200, 86400, 172800, 604800),
)


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Stretch:
    """Time in which something went on, and where it is drawn. Seconds since the epoch."""

    begin: float
    end: float
    drawn_at: float


class TimeAxis:
    """Places moments on the width; a pause longer than all the work together is drawn as a gap."""

    def __init__(self, busy: Iterable[tuple[float, float]]) -> None:
        merged = _merged(busy)
        work = sum(end - begin for begin, end in merged)
        runs = _joined(merged, max(_SHORTEST_PAUSE_S, work))
        self.length_s = sum(end - begin for begin, end in runs)
        self._pause = min(_PAUSE_WIDTH, WIDTH / 2 / max(1, len(runs) - 1))
        self.scale = (WIDTH - self._pause * (len(runs) - 1)) / max(self.length_s, 1e-9)
        self._stretches: list[Stretch] = []
        at = 0.0
        for begin, end in runs:
            self._stretches.append(Stretch(begin, end, at))
            at += (end - begin) * self.scale + self._pause

    def place(self, moment: float) -> float:
        """Return where a moment is drawn; those in a pause go to its edges."""
        for stretch in self._stretches:
            if moment <= stretch.end:
                return stretch.drawn_at + max(0.0, moment - stretch.begin) * self.scale
        return WIDTH

    def ticks(self) -> tuple[Tick, ...]:
        """Return round times since the begin of each stretch."""
        out: list[Tick] = []
        for stretch in self._stretches:
            length = stretch.end - stretch.begin
            width = length * self.scale
            inner = ticks_between(0.0, length, max(1, round(8 * width / WIDTH)))
            out += [Tick(stretch.drawn_at + tick.at * width / WIDTH, tick.label) for tick in inner]
        return tuple(out)

    def pauses(self) -> tuple[Tick, ...]:
        """Return the middle of each gap, with how long it was."""
        return tuple(
            Tick(after.drawn_at - self._pause / 2, f"{span(after.begin - before.end)} later")
            for before, after in zip(self._stretches, self._stretches[1:], strict=False)
        )


def ticks_between(low: float, high: float, most: int = 8) -> tuple[Tick, ...]:
    """Return round times between `low` and `high` seconds, at most `most` and one more, over the width."""
    length = high - low
    if length <= 0:
        return (Tick(0.0, _label(low)),)
    step = round_step(length / most)
    first = math.ceil(low / step - 1e-9)
    count = int(high / step + 1e-9) - first + 1
    moments = ((first + i) * step for i in range(count))
    return tuple(Tick(WIDTH * (moment - low) / length, _label(moment)) for moment in moments)


def round_step(at_least: float) -> float:
    """Return a length of time that people count in, not shorter than `at_least` seconds."""
    return next((step for step in _STEPS_S if step >= at_least), at_least)


def _merged(busy: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    return _joined(sorted(busy), 0.0)


def _joined(times: list[tuple[float, float]], pause_s: float) -> list[tuple[float, float]]:
    """Return the sorted `times`, those with no more than `pause_s` between them made one."""
    out = [times[0]]
    for begin, end in times[1:]:
        if begin - out[-1][1] <= pause_s:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((begin, end))
    return out


def _label(seconds: float) -> str:
    if seconds == 0:
        return "0"
    if seconds < 120 and seconds % 60:
        return f"{seconds:.3g} s"
    if seconds < 7200 and seconds % 3600:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h" if seconds < 172800 else f"{seconds / 86400:.3g} d"
