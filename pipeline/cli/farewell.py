"""The last words of a run: counts, money, time, what failed and why, where things are, what to do next.

Pure: records in, text out. The text stands on its own, so that it can also be mailed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline.cli.terminal import duration_text, one_line, truncated
from pipeline.model import State, render_duration_s
from pipeline.results.csv import status, visible_records
from pipeline.results.report.overview import format_bytes, format_duration, format_usd, headline

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pipeline.model import Record
    from pipeline.results.csv import Summary

MAX_LISTED_ROWS: Final = 20
MAX_SLOWEST_ROWS: Final = 3
_MAX_REASON_COLUMNS: Final = 500


def summary_text(
    totals: Summary,
    records: Sequence[Record],
    output_files: Mapping[str, str],
    next_command: str = "",
    *,
    wall_s: float | None = None,
    stop_explanation: str = "",
    unfinished: Mapping[str, str] | None = None,
) -> str:
    """Return what to say at the end, without a final newline.

    `paths` maps a label (`page`, `table`, ...) to where it lies. `next_command` is the exact command
    that goes on, empty when nothing is left to do. `opening` says why the run ended before its time, if
    it did; `left` says of rows (by their keys) why they stay open.
    """
    rows = visible_records(records)
    table = output_files.get("table", "results.csv")
    sections = [
        _headline_section(totals, wall_s, stop_explanation),
        _slowest_section(rows),
        _failed_section(rows, table),
        _in_doubt_section(rows, table),
        _unfinished_section(rows, unfinished or {}, table),
        _output_files_section(output_files),
        f"Next: {next_command}" if next_command else "",
    ]
    return "\n\n".join(block for block in sections if block)


def failure_text(row: Record) -> str:
    """Return a failure as `code: the vendor's words`, on one line and of bounded length."""
    if row.failure is None:
        return "no reason was recorded"
    return truncated(one_line(f"{row.failure.code}: {row.failure.message}".rstrip(" :")), _MAX_REASON_COLUMNS)


def row_label(row: Record) -> str:
    """Return a row's id with its place in the manifest, on one line."""
    return f"{one_line(row.id)} (line {row.line})" if row.line else one_line(row.id)


def _headline_section(totals: Summary, wall_s: float | None, stop_explanation: str) -> str:
    lines = [one_line(stop_explanation)] if stop_explanation else []
    lines.append(" ".join(part for part in headline(totals) if part))
    spent = f"{format_usd(totals.usd_total)} spent{_estimated_note(totals)}"
    facts = ["what was spent is unknown" if totals.price_unknown else spent]
    if totals.usd_open:
        facts.append(f"{format_usd(totals.usd_open)} set aside for rows that are not settled")
    if wall_s is not None:
        facts.append(f"{duration_text(wall_s)} in all")
    if totals.saved_bytes:
        footage = f"{format_duration(totals.video_s)} of footage, " if totals.video_s else ""
        facts.append(f"{footage}{format_bytes(totals.saved_bytes)}")
    lines.append("; ".join(facts) + ".")
    return "\n".join(lines)


def _estimated_note(totals: Summary) -> str:
    if totals.usd_assumed:
        return f" ({format_usd(totals.usd_assumed)} of it estimated)"
    return f" (the price of {totals.unpriced} is unknown)" if totals.unpriced else ""


def _slowest_section(rows: Iterable[Record]) -> str:
    timed = [(taken, row) for row in rows if (taken := render_duration_s(row)) is not None]
    if len(timed) <= MAX_SLOWEST_ROWS:
        return ""
    slowest = sorted(timed, key=lambda item: -item[0])[:MAX_SLOWEST_ROWS]
    return "\n".join(
        [
            "Slowest to render:",
            *(f"  {format_duration(taken):>12}  {row_label(row)}" for taken, row in slowest),
        ]
    )


def _failed_section(rows: Iterable[Record], table: str) -> str:
    failed = [f"{row_label(row)}: {failure_text(row)}" for row in rows if row.state is State.FAILED]
    return _section("Failed:", failed, table)


def _in_doubt_section(rows: Iterable[Record], table: str) -> str:
    lines = [
        f"{row_label(row)}: correlation id {row.correlation_id}"
        for row in rows
        if status(row) is State.IN_DOUBT
    ]
    return _section("In doubt (sent, but no answer came: they may be paid):", lines, table)


def _unfinished_section(rows: Iterable[Record], unfinished: Mapping[str, str], table: str) -> str:
    lines = [f"{row_label(row)}: {one_line(unfinished[row.key])}" for row in rows if row.key in unfinished]
    return _section("Left for the next run:", lines, table)


def _section(title: str, lines: Sequence[str], table: str) -> str:
    if not lines:
        return ""
    shown = [title, *(f"  {line}" for line in lines[:MAX_LISTED_ROWS])]
    if len(lines) > MAX_LISTED_ROWS:
        shown.append(f"  … and {len(lines) - MAX_LISTED_ROWS:,} more in {table}")
    return "\n".join(shown)


def _output_files_section(output_files: Mapping[str, str]) -> str:
    width = max(map(len, output_files), default=0)
    return "\n".join(f"{label.capitalize():<{width}}  {path}" for label, path in output_files.items())
