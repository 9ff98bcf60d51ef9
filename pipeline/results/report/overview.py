"""The batch in words: the headline, the figures, and the failures grouped by what was said.

Pure: records in, words out. Knows nothing of how a page is drawn.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pipeline.model import State, render_duration_s
from pipeline.results.csv import STATUSES, status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipeline.model import Record
    from pipeline.results.csv import Summary

MAX_FAILURE_GROUPS: Final = 40
"""How many groups of failures the page spells out; `results.csv` has them all."""

MAX_ROWS_PER_GROUP: Final = 25
"""How many rows of a group the page names."""

IN_DOUBT_MESSAGE: Final = (
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
class FailureGroup:
    """Rows that share one reason. `rows` is bounded, `count` is not."""

    state: State
    code: str
    message: str
    count: int
    rows: tuple[Record, ...]


def headline(totals: Summary, *, live: bool = False) -> tuple[str, str]:
    """Return one sentence that says how the batch stands, and a second one about the rest (or empty)."""
    done_count = totals.counts.get(State.DONE, 0)
    if totals.total == 0:
        return "Nothing here yet.", "The manifest has no rows."
    return _done_sentence(done_count, totals.total, live), _remaining_sentence(totals, live)


def figures(totals: Summary, records: Iterable[Record]) -> list[Figure]:
    """Return the numbers at the top of the page, only those that are known."""
    out = [Figure(f"{totals.counts.get(State.DONE, 0):,}", "videos", f"of {totals.total:,} rows")]
    if totals.video_s:
        out.append(Figure(format_duration(totals.video_s), "of footage", format_bytes(totals.saved_bytes)))
    detail = "confirmed by the vendor"
    if totals.usd_assumed:
        detail = f"${totals.usd_assumed:,.2f} of it estimated"
    elif totals.unpriced:
        detail = f"{totals.unpriced} of unknown price"
    elif totals.usd_open:
        detail = f"{format_usd(totals.usd_open)} more set aside"
    out.append(
        Figure(
            "unknown" if totals.price_unknown else format_usd(totals.usd_total),
            "spent",
            detail if totals.usd_total or totals.unpriced or totals.usd_open else "nothing yet",
        )
    )
    times = sorted(taken for row in records if (taken := render_duration_s(row)) is not None)
    if times:
        out.append(
            Figure(
                format_duration(statistics.median(times)),
                "median rendering",
                f"slowest {format_duration(times[-1])}",
            )
        )
    if totals.began_at is not None and totals.ended_at is not None and totals.ended_at > totals.began_at:
        out.append(
            Figure(
                format_duration(totals.ended_at - totals.began_at),
                "from first to last",
                f"{totals.polls:,} looks",
            )
        )
    return out


def failure_groups(records: Iterable[Record]) -> list[FailureGroup]:
    """Return failures grouped by code and words, the largest group first; rows in doubt come last."""
    groups: dict[tuple[State, str, str], list[Record]] = {}
    for record in records:
        row_status = status(record)
        failure = record.failure
        if row_status is State.FAILED:
            code_and_message = (failure.code, failure.message) if failure else ("failed", "")
            groups.setdefault((row_status, *code_and_message), []).append(record)
        elif row_status is State.IN_DOUBT:
            groups.setdefault((row_status, "in_doubt", IN_DOUBT_MESSAGE), []).append(record)
    ranked = sorted(groups.items(), key=lambda item: (item[0][0] is State.IN_DOUBT, -len(item[1])))
    return [FailureGroup(*reason, len(rows), tuple(rows[:MAX_ROWS_PER_GROUP])) for reason, rows in ranked]


def status_shares(totals: Summary) -> list[tuple[State, int, float]]:
    """Return (status, count, percent of the rows) for every status that occurs, for the bar of states."""
    return [
        (word, count, 100 * count / totals.total)
        for word in STATUSES
        if totals.total and (count := totals.counts.get(word, 0))
    ]


def format_usd(usd: float) -> str:
    """Return USD with cents, and with more places only when cents would hide it."""
    return f"${usd:,.4f}" if 0 < usd < 0.01 else f"${usd:,.2f}"


def format_duration(seconds: float) -> str:
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


def format_bytes(count: int) -> str:
    """Return bytes in decimal units, as file managers and vendors count them."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if value >= 100 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _done_sentence(done_count: int, total: int, live: bool) -> str:
    if done_count == total:
        return "The video is here." if total == 1 else f"All {total:,} videos are here."
    if done_count == 0:
        return "No video is here yet." if live or total == 0 else "No video is here."
    return f"{done_count:,} of {total:,} videos are here."


def _remaining_sentence(totals: Summary, live: bool) -> str:
    counts = totals.counts
    remaining = (
        (counts.get(State.FAILED, 0), "failed", "failed"),
        (counts.get(State.IN_DOUBT, 0), "is in doubt", "are in doubt"),
        (counts.get(State.READY, 0), "is rendered but not saved yet", "are rendered but not saved yet"),
        (counts.get(State.GENERATING, 0), "is rendering", "are rendering"),
        (
            counts.get(State.PENDING, 0),
            *(("waits its turn", "wait their turn") if live else ("waits", "wait")),
        ),
    )
    phrases = [f"{count:,} {one if count == 1 else many}" for count, one, many in remaining if count]
    if not phrases:
        return ""
    return f"{_join_and(phrases)}{'.' if live or not counts.get(State.PENDING, 0) else ' for the next run.'}"


def _join_and(phrases: Sequence[str]) -> str:
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
