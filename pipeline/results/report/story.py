"""The batch in words: the headline, the figures, and the failures grouped by what was said.

Pure: records in, words out. Knows nothing of how a page is drawn.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pipeline.model import State, rendering_s
from pipeline.results.csv import STATUSES, status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipeline.model import Record
    from pipeline.results.csv import Summary

GROUPS: Final = 40
"""How many groups of failures the page spells out; `results.csv` has them all."""

ROWS_A_GROUP: Final = 25
"""How many rows of a group the page names."""

DOUBT_WORDS: Final = (
    "The create was sent, but its answer never came. The next run looks each up by its correlation id "
    "and takes over what the vendor accepted; nothing is sent twice on a guess."
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One number worth a place at the top, with what it counts and a word of detail."""

    value: str
    label: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Rows that share one reason. `rows` is bounded, `count` is not."""

    state: State
    code: str
    message: str
    count: int
    rows: tuple[Record, ...]


def headline(totals: Summary, *, live: bool = False) -> tuple[str, str]:
    """Return one sentence that says how the batch stands, and a second one about the rest (or empty)."""
    done = totals.counts.get(State.DONE, 0)
    if totals.total == 0:
        return "Nothing here yet.", "The manifest has no rows."
    return _first(done, totals.total, live), _second(totals, live)


def figures(totals: Summary, records: Iterable[Record]) -> list[Figure]:
    """Return the numbers at the top of the page, only those that are known."""
    out = [Figure(f"{totals.counts.get(State.DONE, 0):,}", "videos", f"of {totals.total:,} rows")]
    if totals.video_s:
        out.append(Figure(span(totals.video_s), "of footage", size(totals.saved_bytes)))
    detail = "confirmed by the vendor"
    if totals.usd_assumed:
        detail = f"${totals.usd_assumed:,.2f} of it estimated"
    elif totals.unpriced:
        detail = f"{totals.unpriced} of unknown price"
    elif totals.usd_open:
        detail = f"{money(totals.usd_open)} more set aside"
    out.append(
        Figure(
            "unknown" if totals.price_unknown else money(totals.usd),
            "spent",
            detail if totals.usd or totals.unpriced or totals.usd_open else "nothing yet",
        )
    )
    times = sorted(taken for row in records if (taken := rendering_s(row)) is not None)
    if times:
        out.append(Figure(span(statistics.median(times)), "median rendering", f"slowest {span(times[-1])}"))
    if totals.began_at is not None and totals.ended_at is not None and totals.ended_at > totals.began_at:
        out.append(
            Figure(span(totals.ended_at - totals.began_at), "from first to last", f"{totals.polls:,} looks")
        )
    return out


def troubles(records: Iterable[Record]) -> list[Trouble]:
    """Return failures grouped by code and words, the largest group first; rows in doubt come last."""
    groups: dict[tuple[State, str, str], list[Record]] = {}
    for record in records:
        word = status(record)
        failure = record.failure
        if word is State.FAILED:
            said = (failure.code, failure.message) if failure else ("failed", "")
            groups.setdefault((word, *said), []).append(record)
        elif word is State.IN_DOUBT:
            groups.setdefault((word, "in_doubt", DOUBT_WORDS), []).append(record)
    ranked = sorted(groups.items(), key=lambda item: (item[0][0] is State.IN_DOUBT, -len(item[1])))
    return [Trouble(*reason, len(rows), tuple(rows[:ROWS_A_GROUP])) for reason, rows in ranked]


def shares(totals: Summary) -> list[tuple[State, int, float]]:
    """Return (status, count, percent of the rows) for every status that occurs, for the bar of states."""
    return [
        (word, count, 100 * count / totals.total)
        for word in STATUSES
        if totals.total and (count := totals.counts.get(word, 0))
    ]


def money(usd: float) -> str:
    """Return USD with cents, and with more places only when cents would hide it."""
    return f"${usd:,.4f}" if 0 < usd < 0.01 else f"${usd:,.2f}"


def span(seconds: float) -> str:
    """Return a duration for reading: `8.0 s`, `1 min 20 s`, `2 h 05 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes:02} min"


def size(count: int) -> str:
    """Return bytes in decimal units, as file managers and vendors count them."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if value >= 100 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _first(done: int, total: int, live: bool) -> str:
    if done == total:
        return "The video is here." if total == 1 else f"All {total:,} videos are here."
    if done == 0:
        return "No video is here yet." if live or total == 0 else "No video is here."
    return f"{done:,} of {total:,} videos are here."


def _second(totals: Summary, live: bool) -> str:
    counts = totals.counts
    rest = (
        (counts.get(State.FAILED, 0), "failed", "failed"),
        (counts.get(State.IN_DOUBT, 0), "is in doubt", "are in doubt"),
        (counts.get(State.READY, 0), "is rendered but not saved yet", "are rendered but not saved yet"),
        (counts.get(State.GENERATING, 0), "is rendering", "are rendering"),
        (
            counts.get(State.PENDING, 0),
            *(("waits its turn", "wait their turn") if live else ("waits", "wait")),
        ),
    )
    words = [f"{count:,} {one if count == 1 else many}" for count, one, many in rest if count]
    if not words:
        return ""
    return f"{_and(words)}{'.' if live or not counts.get(State.PENDING, 0) else ' for the next run.'}"


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
