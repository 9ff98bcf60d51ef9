"""The batch in a few sentences and figures, and how money, bytes and durations are written.

Pure: records in, text out. Knows nothing of how a page is drawn.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from pipeline.compact_rows import column
from pipeline.model import Record, State
from pipeline.results.csv_rows import STATUSES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipeline.results.totals import Summary

_submitted_at_of: Final = attrgetter("submitted_at")
_finished_at_of: Final = column(Record, "finished_at")
_takes_of: Final = column(Record, "take")

MAX_FAILURE_GROUPS: Final = 40
"""How many groups of failures the page spells out; `results.csv` has them all."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number for the top of the page, with its label and a detail."""

    value: str
    label: str
    detail: str = ""


def headline(totals: Summary, *, live: bool = False) -> tuple[str, str]:
    """Return one sentence on how the batch stands, and a second one about its other rows (or empty)."""
    done_count = totals.counts.get(State.DONE, 0)
    if totals.total == 0:
        return "Nothing here yet.", "The manifest has no rows."
    return _done_sentence(done_count, totals.total, live), _remaining_sentence(totals, live)


def figures(totals: Summary, records: Iterable[Record]) -> list[Figure]:
    """Return the numbers at the top of the page, only those that are known."""
    records = list(records)
    return figures_of(totals, batch_size(records), rendering_times(records))


def figures_of(totals: Summary, size: str, times: Sequence[float]) -> list[Figure]:
    """Return `figures` of a batch of that size with these `rendering_times`."""
    out = [Figure(f"{totals.counts.get(State.DONE, 0):,}", "videos", size)]
    if totals.video_s:
        out.append(Figure(format_duration(totals.video_s), "of footage", format_bytes(totals.saved_bytes)))
    out.append(_money_figure(totals))
    if times:
        slowest = f"slowest {format_duration(times[-1])}"
        out.append(Figure(format_duration(statistics.median(times)), "median rendering", slowest))
    if totals.began_at is not None and totals.ended_at is not None and totals.ended_at > totals.began_at:
        elapsed = format_duration(totals.ended_at - totals.began_at)
        out.append(Figure(elapsed, "from first to last", counted(totals.polls, "poll")))
    return out


def rendering_times(records: Sequence[Record]) -> list[float]:
    """Return how long the renderings took that have ended, in seconds, the shortest first."""
    return sorted(
        max(0.0, finished_at - submitted_at)
        for submitted_at, finished_at in zip(
            map(_submitted_at_of, records), _finished_at_of(records), strict=True
        )
        if submitted_at is not None and finished_at is not None
    )


def batch_size(records: Sequence[Record]) -> str:
    """Return what there could be: rows, or takes of rows."""
    if not any(take > 1 for take in _takes_of(records)):
        return f"of {counted(len(records), 'row')}"
    rows = counted(len({record.row_id for record in records}), "row")
    return f"of {counted(len(records), 'take')} of {rows}"


def _money_figure(totals: Summary) -> Figure:
    value = "unknown" if totals.price_unknown else format_usd(totals.usd_total)
    if totals.sandbox:
        return Figure(value, "play money", "sandbox: nothing was spent")
    detail = "confirmed by the vendor" if totals.usd_total else "nothing yet"
    if totals.usd_assumed:
        detail = f"{format_usd(totals.usd_assumed)} of it estimated"
    elif totals.unpriced:
        detail = f"the price of {counted(totals.unpriced, 'row')} is unknown"
    elif totals.usd_open:
        detail = f"{format_usd(totals.usd_open)} more reserved"
    return Figure(value, "spent", detail)


def status_shares(totals: Summary) -> list[tuple[State, int, float]]:
    """Return (status, count, percent of the rows) for every status that occurs, for the status bar."""
    return [
        (state, count, 100 * count / totals.total)
        for state in STATUSES
        if totals.total and (count := totals.counts.get(state, 0))
    ]


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: `1 row`, `1,200 rows`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


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
        return "The video is saved." if total == 1 else f"All {total:,} videos are saved."
    if done_count == 0:
        return "No video is saved yet." if live else "No video was saved."
    return f"{done_count:,} of {total:,} videos {'is' if done_count == 1 else 'are'} saved."


def _remaining_sentence(totals: Summary, live: bool) -> str:
    counts = totals.counts
    submitted = "submitted yet" if live else "submitted"
    remaining = (
        (counts.get(State.FAILED, 0), "failed", "failed"),
        (counts.get(State.IN_DOUBT, 0), "is in doubt", "are in doubt"),
        (counts.get(State.READY, 0), "is rendered but not saved yet", "are rendered but not saved yet"),
        (counts.get(State.GENERATING, 0), "is rendering", "are rendering"),
        (counts.get(State.PENDING, 0), f"is not {submitted}", f"are not {submitted}"),
    )
    phrases = [f"{count:,} {one if count == 1 else many}" for count, one, many in remaining if count]
    return f"{_join_and(phrases)}." if phrases else ""


def _join_and(phrases: Sequence[str]) -> str:
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
