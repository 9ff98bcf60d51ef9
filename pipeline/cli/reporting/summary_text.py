"""The text at the end of a run: what was done, what failed and what helps, where the results are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline.cli.reporting.terminal import one_line, truncated
from pipeline.model import State, render_duration_s
from pipeline.results.csv_rows import status, visible_records
from pipeline.results.failures import failure_groups
from pipeline.results.overview import counted, format_bytes, format_duration, format_usd, headline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.model import Record
    from pipeline.results.failures import FailureGroup
    from pipeline.results.run_delta import RunDelta
    from pipeline.results.totals import Summary

MAX_GROUPS: Final = 8
MAX_ROWS_PER_GROUP: Final = 5
MAX_SLOWEST_ROWS: Final = 3
_MAX_REASON_COLUMNS: Final = 500
_PROMPT_COLUMNS: Final = 48


def summary_text(
    totals: Summary,
    records: Sequence[Record],
    output_files: Mapping[str, str],
    next_line: str = "",
    *,
    wall_s: float | None = None,
    stop_explanation: str = "",
    unfinished: Mapping[str, str] | None = None,
    delta: RunDelta | None = None,
) -> str:
    """Return the text, without a final newline.

    `output_files` maps a label (`report`, `table`, ...) to a path. `next_line` is the last line, empty when
    nothing is left to do. `stop_explanation` says why the run ended early, if it did; `unfinished` gives
    the reasons for which rows stay open, by their keys. Without `delta` nothing is said of this run alone.
    """
    rows = visible_records(records)
    table = output_files.get("table", "results.csv")
    sections = [
        _headline_section(totals, wall_s, stop_explanation, delta),
        _slowest_section([row for row in rows if delta is None or row.key in delta.rendered]),
        _failures_section(rows, table),
        _unfinished_section(rows, unfinished or {}, stop_explanation),
        _output_files_section(output_files),
        next_line,
    ]
    return "\n\n".join(section for section in sections if section)


def rows_text(count: int) -> str:
    return counted(count, "row")


def failure_text(row: Record) -> str:
    """Return a failure as `code: message`, on one line and of bounded length."""
    if row.failure is None:
        return "no reason was recorded"
    return truncated(one_line(f"{row.failure.code}: {row.failure.message}".rstrip(" :")), _MAX_REASON_COLUMNS)


def row_label(row: Record) -> str:
    """Return a row's id with its line in the manifest, on one line."""
    return f"{one_line(row.id)} (line {row.line})" if row.line else one_line(row.id)


def row_with_prompt(row: Record) -> str:
    """Return a row's label and the beginning of its prompt, by which its author knows it."""
    prompt = truncated(one_line(row.prompt).strip(), _PROMPT_COLUMNS)
    return f'{row_label(row)}: "{prompt}"' if prompt else row_label(row)


def _headline_section(
    totals: Summary, wall_s: float | None, stop_explanation: str, delta: RunDelta | None
) -> str:
    idle = delta is not None and not delta.changed and not stop_explanation
    lines = [
        one_line(stop_explanation),
        _idle_sentence(totals) if idle else " ".join(part for part in headline(totals) if part),
        _delta_sentence(delta) if delta is not None and not idle else "",
        _facts_sentence(totals, None if idle else wall_s, delta),
    ]
    return "\n".join(line for line in lines if line)


def _idle_sentence(totals: Summary) -> str:
    if totals.total and totals.counts.get(State.DONE, 0) == totals.total:
        videos = "the video was" if totals.total == 1 else f"all {totals.total:,} videos were"
        return f"Nothing to do: {videos} saved before."
    return f"Nothing to do. {' '.join(part for part in headline(totals) if part)}"


def _delta_sentence(delta: RunDelta) -> str:
    """Tell this run from earlier ones; empty when there was no earlier one."""
    if not delta.saved_before:
        return ""
    counts = ((delta.submitted, "submitted"), (delta.saved, "saved"), (delta.failed, "failed"))
    done = ", ".join(f"{count:,} {what}" for count, what in counts if count) or "nothing new"
    videos = "1 video was" if delta.saved_before == 1 else f"{delta.saved_before:,} videos were"
    return f"In this run: {done}. {videos} saved before."


def _facts_sentence(totals: Summary, wall_s: float | None, delta: RunDelta | None) -> str:
    facts = [_spent_text(totals, delta)]
    if totals.usd_open and not totals.sandbox:
        facts.append(f"{format_usd(totals.usd_open)} reserved for rows that are not settled")
    if wall_s is not None:
        facts.append(f"finished in {format_duration(wall_s)}")
    if totals.video_s:
        facts.append(f"{format_duration(totals.video_s)} of footage")
    if totals.saved_bytes:
        facts.append(format_bytes(totals.saved_bytes))
    return "; ".join(facts) + "."


def _spent_text(totals: Summary, delta: RunDelta | None) -> str:
    if totals.sandbox:
        return f"Sandbox: no money was spent ({format_usd(totals.usd_total)} of play money)"
    if totals.price_unknown:
        return "The cost is unknown"
    notes = []
    if delta is not None and delta.saved_before and totals.usd_total:
        notes.append(f"{format_usd(delta.usd) if delta.usd > 0 else 'nothing'} in this run")
    if totals.usd_assumed:
        notes.append(f"{format_usd(totals.usd_assumed)} of it estimated")
    elif totals.unpriced:
        notes.append(f"the price of {rows_text(totals.unpriced)} is unknown")
    note = f" ({', '.join(notes)})" if notes else ""
    return f"{format_usd(totals.usd_total)} spent{note}"


def _slowest_section(rows: Sequence[Record]) -> str:
    timed = [
        (taken, row)
        for row in rows
        if row.state is State.DONE and (taken := render_duration_s(row)) is not None
    ]
    if len(timed) <= MAX_SLOWEST_ROWS:
        return ""
    slowest = sorted(timed, key=lambda item: -item[0])[:MAX_SLOWEST_ROWS]
    lines = [f"  {format_duration(taken):>12}  {row_label(row)}" for taken, row in slowest]
    return "\n".join(["Slowest to render:", *lines])


def _failures_section(rows: Sequence[Record], table: str) -> str:
    groups = failure_groups(rows)
    blocks = [_group_block(group, table) for group in groups[:MAX_GROUPS]]
    if len(groups) > MAX_GROUPS:
        blocks.append(f"… and {len(groups) - MAX_GROUPS:,} more reasons in {table}")
    return "\n\n".join(blocks)


def _group_block(group: FailureGroup, table: str) -> str:
    what = "in doubt" if group.state is State.IN_DOUBT else "failed"
    if group.code not in ("failed", "in_doubt"):
        what += f" with {group.code}"
    reason = truncated(one_line(group.message or "no reason was recorded"), _MAX_REASON_COLUMNS)
    lines = [f"{rows_text(group.count)} {what}: {reason}"]
    for row in group.rows[:MAX_ROWS_PER_GROUP]:
        in_doubt = f", correlation id {row.correlation_id}" if status(row) is State.IN_DOUBT else ""
        lines.append(f"  {row_with_prompt(row)}{in_doubt}")
    if group.count > MAX_ROWS_PER_GROUP:
        lines.append(f"  … and {group.count - MAX_ROWS_PER_GROUP:,} more in {table}")
    if group.state is not State.IN_DOUBT:
        lines.append(f"  {group.remedy}")
    return "\n".join(lines)


def _unfinished_section(rows: Sequence[Record], unfinished: Mapping[str, str], stop_explanation: str) -> str:
    """Name open rows by reason, with their prompts; a reason that was given already is not repeated."""
    by_reason: dict[str, list[Record]] = {}
    for row in rows:
        if row.key in unfinished:
            by_reason.setdefault(one_line(unfinished[row.key]), []).append(row)
    if not by_reason:
        return ""
    blocks = [
        _unfinished_block("" if reason in stop_explanation else reason, group)
        for reason, group in list(by_reason.items())[:MAX_GROUPS]
    ]
    return "\n\n".join(blocks)


def _unfinished_block(reason: str, group: Sequence[Record]) -> str:
    lines = [f"Left for the next run{f': {reason}' if reason else ':'}"]
    lines += [f"  {row_with_prompt(row)}" for row in group[:MAX_ROWS_PER_GROUP]]
    if len(group) > MAX_ROWS_PER_GROUP:
        lines.append(f"  … and {len(group) - MAX_ROWS_PER_GROUP:,} more")
    return "\n".join(lines)


def _output_files_section(output_files: Mapping[str, str]) -> str:
    width = max(map(len, output_files), default=0)
    return "\n".join(f"{label.capitalize():<{width}}  {path}" for label, path in output_files.items())
