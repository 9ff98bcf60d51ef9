"""The last words of a run: counts, money, time, what failed and why, where things are, what to do next.

Pure: records in, text out. The text stands on its own, so that it can also be mailed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline.cli.terminal import clock_words, fitted, one_line
from pipeline.model import State, rendering_s
from pipeline.results.csv import listed, status
from pipeline.results.report.story import headline, money, size, span

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pipeline.model import Record
    from pipeline.results.csv import Summary

FAILURES: Final = 20
SLOWEST: Final = 3
_LONGEST_REASON: Final = 500


def closing_words(
    totals: Summary,
    records: Sequence[Record],
    paths: Mapping[str, str],
    next_command: str = "",
    *,
    wall_s: float | None = None,
    opening: str = "",
    left: Mapping[str, str] | None = None,
) -> str:
    """Return what to say at the end, without a final newline.

    `paths` maps a label (`page`, `table`, ...) to where it lies. `next_command` is the exact command
    that goes on, empty when nothing is left to do. `opening` says why the run ended before its time, if
    it did; `left` says of rows (by their keys) why they stay open.
    """
    rows = listed(records)
    table = paths.get("table", "results.csv")
    blocks = [
        _top(totals, wall_s, opening),
        _slowest(rows),
        _failures(rows, table),
        _doubts(rows, table),
        _open(rows, left or {}, table),
        _aligned(paths),
        f"Next: {next_command}" if next_command else "",
    ]
    return "\n\n".join(block for block in blocks if block)


def reason(row: Record) -> str:
    """Return a failure as `code: the vendor's words`, on one line and of bounded length."""
    if row.failure is None:
        return "no reason was recorded"
    return fitted(one_line(f"{row.failure.code}: {row.failure.message}".rstrip(" :")), _LONGEST_REASON)


def name_of(row: Record) -> str:
    """Return a row's id with its place in the manifest, on one line."""
    return f"{one_line(row.id)} (line {row.line})" if row.line else one_line(row.id)


def _top(totals: Summary, wall_s: float | None, opening: str) -> str:
    lines = [one_line(opening)] if opening else []
    lines.append(" ".join(part for part in headline(totals) if part))
    spent = f"{money(totals.usd)} spent{_about(totals)}"
    facts = ["what was spent is unknown" if totals.price_unknown else spent]
    if totals.usd_open:
        facts.append(f"{money(totals.usd_open)} set aside for rows that are not settled")
    if wall_s is not None:
        facts.append(f"{clock_words(wall_s)} in all")
    if totals.saved_bytes:
        footage = f"{span(totals.video_s)} of footage, " if totals.video_s else ""
        facts.append(f"{footage}{size(totals.saved_bytes)}")
    lines.append("; ".join(facts) + ".")
    return "\n".join(lines)


def _about(totals: Summary) -> str:
    if totals.usd_assumed:
        return f" ({money(totals.usd_assumed)} of it estimated)"
    return f" (the price of {totals.unpriced} is unknown)" if totals.unpriced else ""


def _slowest(rows: Iterable[Record]) -> str:
    timed = [(taken, row) for row in rows if (taken := rendering_s(row)) is not None]
    if len(timed) <= SLOWEST:
        return ""
    slowest = sorted(timed, key=lambda item: -item[0])[:SLOWEST]
    return "\n".join(
        ["Slowest to render:", *(f"  {span(taken):>12}  {name_of(row)}" for taken, row in slowest)]
    )


def _failures(rows: Iterable[Record], table: str) -> str:
    failed = [f"{name_of(row)}: {reason(row)}" for row in rows if row.state is State.FAILED]
    return _listing("Failed:", failed, table)


def _doubts(rows: Iterable[Record], table: str) -> str:
    doubts = [
        f"{name_of(row)}: correlation id {row.correlation_id}"
        for row in rows
        if status(row) is State.IN_DOUBT
    ]
    return _listing("In doubt (sent, but no answer came: they may be paid):", doubts, table)


def _open(rows: Iterable[Record], left: Mapping[str, str], table: str) -> str:
    lines = [f"{name_of(row)}: {one_line(left[row.key])}" for row in rows if row.key in left]
    return _listing("Left for the next run:", lines, table)


def _listing(title: str, lines: Sequence[str], table: str) -> str:
    if not lines:
        return ""
    shown = [title, *(f"  {line}" for line in lines[:FAILURES])]
    if len(lines) > FAILURES:
        shown.append(f"  … and {len(lines) - FAILURES:,} more in {table}")
    return "\n".join(shown)


def _aligned(paths: Mapping[str, str]) -> str:
    wide = max(map(len, paths), default=0)
    return "\n".join(f"{label.capitalize():<{wide}}  {path}" for label, path in paths.items())
