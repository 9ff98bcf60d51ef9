"""The geometry of the page's two charts: when things happened to each job, and how long rendering took.

Pure geometry in the units of the SVG's view box; drawing is the template's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from pipeline.model import render_duration_s
from pipeline.results.overview import format_duration
from pipeline.results.report.axis import WIDTH, Tick, TimeAxis, round_step, ticks_between

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipeline.model import Record

MAX_LANES: Final = 240
"""How many jobs the timeline draws one by one; of more, it takes an even sample and says so."""

_MAX_BINS: Final = 28
_BAR_HEIGHT: Final = 200.0
_sent_at: Final = attrgetter("submitted_at", "position")
_moments_of: Final = attrgetter("submitted_at", "accepted_at", "not_yet_at", "finished_at", "downloaded_at")


@dataclass(frozen=True, slots=True)
class Lane:
    """One job's line: segments are (kind, x, width) of `submit`, `rendering`, `undetected`, `download`."""

    y: float
    height: float
    title: str
    segments: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    height: float
    lanes: tuple[Lane, ...]
    ticks: tuple[Tick, ...]
    pauses: tuple[Tick, ...]
    total: int
    caption: str


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    width: float
    height: float
    title: str


@dataclass(frozen=True, slots=True)
class Distribution:
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    median: Tick
    p90: Tick
    height: float
    caption: str


def timeline(records: Iterable[Record]) -> Timeline | None:
    """Return the lanes of the jobs that were sent, the first one on top; None when none was."""
    submitted = sorted((r for r in records if r.submitted_at is not None), key=_sent_at)
    if not submitted:
        return None
    sample = (
        submitted
        if len(submitted) <= MAX_LANES
        else [submitted[i * len(submitted) // MAX_LANES] for i in range(MAX_LANES)]
    )
    timestamps = [_timestamps(record) for record in submitted]
    axis = TimeAxis((known[0], max(known)) for known in timestamps)
    pitch = min(14.0, max(1.6, 380.0 / len(sample)))
    lanes = tuple(_lane(record, axis, i * pitch, pitch) for i, record in enumerate(sample))
    jobs = "job was" if len(submitted) == 1 else "jobs were"
    caption = f"{len(submitted):,} {jobs} sent; from the first submission to the last file it took "
    caption += f"{format_duration(axis.busy_s)}{', pauses left out' if axis.pauses() else ''}."
    return Timeline(len(sample) * pitch, lanes, axis.ticks(), axis.pauses(), len(submitted), caption)


def distribution(times: Sequence[float]) -> Distribution | None:
    """Return how often rendering took how long, of `rendering_times`; None while no rendering has ended."""
    if not times:
        return None
    low, step = _bin_layout(times)
    counts = [0] * (int((times[-1] - low) / step) + 1)
    for duration_s in times:
        counts[int((duration_s - low) / step)] += 1
    total_s = len(counts) * step
    width = WIDTH / len(counts)
    bars = tuple(
        Bar(i * width, width, _BAR_HEIGHT * n / max(counts), _bar_title(low + i * step, step, n))
        for i, n in enumerate(counts)
        if n
    )
    median, p90 = (times[min(len(times) - 1, int(len(times) * share))] for share in (0.5, 0.9))
    caption = f"Half of {len(times):,} renderings took no more than {format_duration(median)}, "
    caption += f"nine in ten no more than {format_duration(p90)}."
    marks = [Tick(WIDTH * (taken - low) / total_s, format_duration(taken)) for taken in (median, p90)]
    return Distribution(bars, ticks_between(low, low + total_s), marks[0], marks[1], _BAR_HEIGHT, caption)


def _bin_layout(times: Sequence[float]) -> tuple[float, float]:
    low, high = times[0], times[-1]
    step = round_step(max((high - low) / _MAX_BINS, high / 200, 0.1))
    return math.floor(low / step) * step, step


def _bar_title(low: float, step: float, count: int) -> str:
    return f"{format_duration(low)} to {format_duration(low + step)}: {count:,}"


def _timestamps(record: Record) -> list[float]:
    return [moment for moment in _moments_of(record) if moment is not None]


def _lane(record: Record, axis: TimeAxis, y: float, pitch: float) -> Lane:
    at = record.submitted_at or 0.0
    segments: list[tuple[str, float, float]] = []
    for kind, until in (
        ("submit", record.accepted_at),
        ("rendering", record.finished_at if record.not_yet_at is None else record.not_yet_at),
        ("undetected", record.finished_at),
        ("download", record.downloaded_at),
    ):
        if until is not None and until > at:
            begin = axis.x_of(at)
            segments.append((kind, begin, max(0.8, axis.x_of(until) - begin)))
            at = until
    duration_s = render_duration_s(record)
    title = f"{record.id}: {record.state.value}" + (
        f", rendered in {format_duration(duration_s)}" if duration_s is not None else ""
    )
    return Lane(y, pitch * 0.72, title, tuple(segments))
