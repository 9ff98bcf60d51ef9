"""Which windows of the vendor's request log cover given times, in the fewest queries. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil, inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

HOUR_S: Final = 3600.0

DAY_S: Final = 86_400.0

MAX_WINDOW_S: Final = 92 * DAY_S
"""The longest `start` to `end` that the vendor allows (its OpenAPI)."""

PERIODS: Final = (("24h", DAY_S), ("7d", 7 * DAY_S))

MERGE_GAP_S: Final = 7 * DAY_S
"""Windows of old submissions that lie closer than this are read as one."""


@dataclass(frozen=True, slots=True)
class Window:
    """A query of the log, and the time that it covers."""

    query: Mapping[str, str]
    start: float
    end: float = inf


def plan_windows(spans: Iterable[tuple[float, float]], now: float) -> tuple[Window, ...]:
    """Return the fewest windows that cover every (start, end) of `spans`, the recent one first.

    Recent ones are asked for by `period`, which the vendor reckons by its own clock; older ones by `start`
    and `end` around them, in several windows where they lie far apart. Never both in one query.
    """
    recent: list[tuple[float, float]] = []
    old: list[tuple[float, float]] = []
    for span in sorted(spans):
        (recent if now - span[0] + HOUR_S < PERIODS[-1][1] else old).append(span)
    windows = []
    if recent:
        # An hour of margin, since `now` is this machine's and the vendor reckons by its own clock.
        age_s = now - recent[0][0] + HOUR_S
        name, reach_s = next(period for period in PERIODS if age_s < period[1])
        windows.append(Window({"period": name}, now - reach_s))
    merged: list[tuple[float, float]] = []
    for start, end in (part for span in old for part in _split(*span)):
        if merged and start - merged[-1][1] < MERGE_GAP_S and end - merged[-1][0] < MAX_WINDOW_S - DAY_S:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    # A day more, so that a row from before the submission shows how far back the log still reaches.
    merged = [(max(start - DAY_S, end - MAX_WINDOW_S), end) for start, end in merged]
    windows += [Window({"start": _iso(start), "end": _iso(end)}, start, end) for start, end in merged]
    return tuple(windows)


def _split(start: float, end: float) -> list[tuple[float, float]]:
    """Cut a span into pieces that one window may cover."""
    step_s = MAX_WINDOW_S - DAY_S
    count = max(1, ceil((end - start) / step_s))
    return [(start + i * step_s, min(end, start + (i + 1) * step_s)) for i in range(count)]


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
