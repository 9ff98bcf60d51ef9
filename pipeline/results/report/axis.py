"""Axes for the page's charts: round ticks, and a time axis that leaves out the nights between two runs.

Pure geometry; widths in the units of the SVG's view box.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pipeline.results.overview import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable

WIDTH: Final = 1000.0
_MAX_PAUSE_WIDTH: Final = 60.0
_MIN_PAUSE_S: Final = 300.0
_ROUND_STEPS_S: Final = (
    *(0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600),
    *(7200, 14400, 21600, 43200, 86400, 172800, 604800),
)


@dataclass(frozen=True, slots=True)
class Tick:
    x: float
    label: str


@dataclass(frozen=True, slots=True)
class BusyPeriod:
    """Time in which something went on, and where it is drawn. Seconds since the epoch."""

    begin: float
    end: float
    x: float


class TimeAxis:
    """Places moments on the width; a pause longer than all the work together is drawn as a gap."""

    def __init__(self, busy_periods: Iterable[tuple[float, float]]) -> None:
        merged = _merge_overlapping(busy_periods)
        work = sum(end - begin for begin, end in merged)
        runs = _merge_close(merged, max(_MIN_PAUSE_S, work))
        self.busy_s = sum(end - begin for begin, end in runs)
        self._pause_width = min(_MAX_PAUSE_WIDTH, WIDTH / 2 / max(1, len(runs) - 1))
        self.units_per_s = (WIDTH - self._pause_width * (len(runs) - 1)) / max(self.busy_s, 1e-9)
        self._periods: list[BusyPeriod] = []
        at = 0.0
        for begin, end in runs:
            self._periods.append(BusyPeriod(begin, end, at))
            at += (end - begin) * self.units_per_s + self._pause_width

    def x_of(self, moment: float) -> float:
        """Return where a moment is drawn; those in a pause go to its edges."""
        for period in self._periods:
            if moment <= period.end:
                return period.x + max(0.0, moment - period.begin) * self.units_per_s
        return WIDTH

    def ticks(self) -> tuple[Tick, ...]:
        """Return round times since the begin of each stretch."""
        out: list[Tick] = []
        for period in self._periods:
            length = period.end - period.begin
            width = length * self.units_per_s
            period_ticks = ticks_between(0.0, length, max(1, round(8 * width / WIDTH)))
            out += [Tick(period.x + tick.x * width / WIDTH, tick.label) for tick in period_ticks]
        return tuple(out)

    def pauses(self) -> tuple[Tick, ...]:
        """Return the middle of each gap, with how long it was."""
        return tuple(
            Tick(after.x - self._pause_width / 2, f"{format_duration(after.begin - before.end)} later")
            for before, after in zip(self._periods, self._periods[1:], strict=False)
        )


def ticks_between(low: float, high: float, max_ticks: int = 8) -> tuple[Tick, ...]:
    """Return round times between `low` and `high` seconds, at most `most` and one more, over the width."""
    length = high - low
    if length <= 0:
        return (Tick(0.0, _tick_label(low)),)
    step = round_step(length / max_ticks)
    first = math.ceil(low / step - 1e-9)
    count = int(high / step + 1e-9) - first + 1
    moments = ((first + i) * step for i in range(count))
    return tuple(Tick(WIDTH * (moment - low) / length, _tick_label(moment)) for moment in moments)


def round_step(min_step_s: float) -> float:
    """Return a length of time that people count in, not shorter than `at_least` seconds."""
    return next((step for step in _ROUND_STEPS_S if step >= min_step_s), min_step_s)


def _merge_overlapping(busy_periods: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    return _merge_close(sorted(busy_periods), 0.0)


def _merge_close(times: list[tuple[float, float]], max_gap_s: float) -> list[tuple[float, float]]:
    """Return the sorted `times`, those with no more than `pause_s` between them made one."""
    out = [times[0]]
    for begin, end in times[1:]:
        if begin - out[-1][1] <= max_gap_s:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((begin, end))
    return out


def _tick_label(seconds: float) -> str:
    if seconds == 0:
        return "0"
    if seconds < 120 and seconds % 60:
        return f"{seconds:.3g} s"
    if seconds < 7200 and seconds % 3600:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h" if seconds < 172800 else f"{seconds / 86400:.3g} d"
