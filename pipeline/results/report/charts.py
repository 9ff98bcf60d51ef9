"""The shapes of the page's two charts: when things happened to each job, and how long rendering took.

Pure geometry in the units of the SVG's view box; drawing is the template's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pipeline.model import rendering_s
from pipeline.results.report.axis import WIDTH, Tick, TimeAxis, round_step, ticks_between
from pipeline.results.report.story import span

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipeline.model import Record

LANES: Final = 240
"""How many jobs the timeline draws one by one; of more, it takes an even sample and says so."""

_BINS: Final = 28
_BAR_HEIGHT: Final = 200.0


@dataclass(frozen=True, slots=True)
class Lane:
    """One job's line: pieces are (kind, from, width), kinds `sent`, `rendering`, `noticed`, `saved`."""

    y: float
    height: float
    title: str
    pieces: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    height: float
    lanes: tuple[Lane, ...]
    ticks: tuple[Tick, ...]
    pauses: tuple[Tick, ...]
    of: int
    words: str


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
    late: Tick
    height: float
    words: str


def timeline(records: Iterable[Record]) -> Timeline | None:
    """Return the lanes of the jobs that were sent, the first one on top; None when none was."""
    sent = sorted(
        (r for r in records if r.submitted_at is not None), key=lambda r: (r.submitted_at, r.position)
    )
    if not sent:
        return None
    shown = sent if len(sent) <= LANES else [sent[i * len(sent) // LANES] for i in range(LANES)]
    moments = [_moments(record) for record in sent]
    axis = TimeAxis((known[0], max(known)) for known in moments)
    pitch = min(14.0, max(1.6, 380.0 / len(shown)))
    lanes = tuple(_lane(record, axis, i * pitch, pitch) for i, record in enumerate(shown))
    words = (
        f"{len(sent):,} {'job was' if len(sent) == 1 else 'jobs were'} sent; from the first create to the "
    )
    words += f"last file it took {span(axis.length_s)}{', pauses left out' if axis.pauses() else ''}."
    return Timeline(len(shown) * pitch, lanes, axis.ticks(), axis.pauses(), len(sent), words)


def distribution(records: Iterable[Record]) -> Distribution | None:
    """Return how often rendering took how long; None while no rendering has ended."""
    times = sorted(taken for record in records if (taken := rendering_s(record)) is not None)
    if not times:
        return None
    low, step = _binning(times)
    counts = [0] * (int((times[-1] - low) / step) + 1)
    for taken in times:
        counts[int((taken - low) / step)] += 1
    reach = len(counts) * step
    width = WIDTH / len(counts)
    bars = tuple(
        Bar(i * width, width, _BAR_HEIGHT * n / max(counts), _bar_words(low + i * step, step, n))
        for i, n in enumerate(counts)
        if n
    )
    middle, late = (times[min(len(times) - 1, int(len(times) * share))] for share in (0.5, 0.9))
    words = f"Half of {len(times):,} renderings took no more than {span(middle)}, "
    words += f"nine in ten no more than {span(late)}."
    marks = [Tick(WIDTH * (taken - low) / reach, span(taken)) for taken in (middle, late)]
    return Distribution(bars, ticks_between(low, low + reach), marks[0], marks[1], _BAR_HEIGHT, words)


def _binning(times: Sequence[float]) -> tuple[float, float]:
    low, high = times[0], times[-1]
    step = round_step(max((high - low) / _BINS, high / 200, 0.1))
    return math.floor(low / step) * step, step


def _bar_words(low: float, step: float, count: int) -> str:
    return f"{span(low)} to {span(low + step)}: {count:,}"


def _moments(record: Record) -> list[float]:
    known = (
        record.submitted_at,
        record.accepted_at,
        record.not_yet_at,
        record.finished_at,
        record.downloaded_at,
    )
    return [moment for moment in known if moment is not None]


def _lane(record: Record, axis: TimeAxis, y: float, pitch: float) -> Lane:
    at = record.submitted_at or 0.0
    pieces: list[tuple[str, float, float]] = []
    for kind, until in (
        ("sent", record.accepted_at),
        ("rendering", record.finished_at if record.not_yet_at is None else record.not_yet_at),
        ("noticed", record.finished_at),
        ("saved", record.downloaded_at),
    ):
        if until is not None and until > at:
            begin = axis.place(at)
            pieces.append((kind, begin, max(0.8, axis.place(until) - begin)))
            at = until
    taken = rendering_s(record)
    words = f"{record.id}: {record.state.value}" + (
        f", rendered in {span(taken)}" if taken is not None else ""
    )
    return Lane(y, pitch * 0.72, words, tuple(pieces))
