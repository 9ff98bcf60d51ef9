"""How a run ended, for a person or as one JSON object, with the exact command for what to do next."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from pipeline.cli.ledger_access import redact_password
from pipeline.cli.terminal import duration_text, one_line, truncated, wrapped_to_width
from pipeline.errors import ExitCode, StopReason
from pipeline.model import State, render_duration_s
from pipeline.results import CSV_NAME, LOG_NAME, REPORT_NAME
from pipeline.results.csv import status, summarize, visible_records
from pipeline.results.report.overview import format_bytes, format_duration, format_usd, headline

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pipeline.cli.paths import BatchPaths
    from pipeline.model import Record
    from pipeline.results.csv import Summary
    from pipeline.run_state import RunOutcome

NEXT_COMMAND_HINTS = {
    StopReason.CREDITS: "  (after topping up the account)",
    StopReason.KEY: "  (with a key that works)",
    StopReason.QUOTA: "  (when the quota allows; --wait-for-quota waits for it)",
    StopReason.BUDGET: "  (with a larger --max-cost)",
    StopReason.DISK: "  (once the output can be written)",
    StopReason.IN_DOUBT: "  (asks the log again; --resubmit-in-doubt sends them again and may pay twice)",
}
NEXT_COMMAND_PREFIX = "Next: "
RESULTS_NOT_WRITTEN = "the table or the page could not be written"


@dataclass(frozen=True, slots=True)
class ExitSummary:
    """What is said last. `wall_s` is the run's duration in seconds, `argv` the command's own words.

    `unwritten` says that table or page could not be written in the end, whatever became of the rows.
    """

    argv: Sequence[str]
    paths: BatchPaths
    outcome: RunOutcome
    wall_s: float
    exit_code: ExitCode
    results_not_written: bool = False

    def show(self, *, as_json: bool, quiet: bool) -> None:
        """Print one JSON object, or words; a quiet run that is done says nothing."""
        text = json.dumps(self.to_json()) if as_json else self.to_text()
        if sys.stdout.isatty() and not as_json:
            width = os.get_terminal_size(sys.stdout.fileno()).columns
            lines = text.split("\n")
            # A command stays whole, to be copied.
            text = "\n".join(
                line if line.startswith(NEXT_COMMAND_PREFIX) else wrapped_to_width(line, width)
                for line in lines
            )
        if quiet and not as_json and self.exit_code is ExitCode.DONE:
            return
        try:
            click.echo(text)
        except BrokenPipeError:  # nobody listens: the exit code still says how the run ended
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def to_json(self) -> dict[str, Any]:
        outcome = self.outcome
        return {
            **summarize(outcome.records).to_json(),
            "exit_code": int(self.exit_code),
            "stop": outcome.stop_reason.value if outcome.stop_reason else None,
            "message": outcome.message or (RESULTS_NOT_WRITTEN if self.results_not_written else ""),
            "wall_s": round(self.wall_s, 3),
            "results": self.paths.output_path(CSV_NAME),
            "report": self.paths.output_path(REPORT_NAME),
            "videos": self.paths.output_path("videos"),
            "next": self.next_command(hints=False),
        }

    def to_text(self) -> str:
        outcome, batch_paths = self.outcome, self.paths
        output_files = {
            "report": batch_paths.output_path(REPORT_NAME),
            "table": batch_paths.output_path(CSV_NAME),
            "videos": batch_paths.output_path("videos"),
            "log": str(batch_paths.folder / LOG_NAME),
        }
        return summary_text(
            summarize(outcome.records),
            outcome.records,
            output_files,
            self.next_command(),
            wall_s=self.wall_s,
            stop_explanation=self.stop_explanation(),
            unfinished=outcome.unfinished,
        )

    def stop_explanation(self) -> str:
        """Return why the run ended as it did, as whole sentences; nothing when it simply came to its end."""
        sentences = (
            [self._explain_stop(self.outcome.stop_reason)] if self.outcome.stop_reason is not None else []
        )
        if self.results_not_written and self.outcome.stop_reason is not StopReason.DISK:
            sentences.append(f"{RESULTS_NOT_WRITTEN[0].upper()}{RESULTS_NOT_WRITTEN[1:]}.")
        return " ".join(sentences)

    def _explain_stop(self, stop: StopReason) -> str:
        outcome = self.outcome
        match stop:
            case StopReason.INTERRUPTED:
                signal = "Ended by SIGTERM" if self.exit_code is ExitCode.TERMINATED else "Interrupted"
                return (
                    f"{signal}, with nothing left to do."
                    if self._all_finished()
                    else f"{signal} before the end."
                )
            case _ if self._all_finished():
                return f"Nothing is left to do, but {outcome.message}"
            case StopReason.DEADLINE:
                return f"Not finished in time: {rows_text(len(outcome.unfinished))}."
            case StopReason.UNFINISHED if outcome.unfinished:
                return (
                    f"Not everything could be finished: {rows_text(len(outcome.unfinished))} had to be left."
                )
            case StopReason.IN_DOUBT:
                in_doubt = sum(status(row) is State.IN_DOUBT for row in outcome.records)
                return f"The vendor's log does not tell yet what became of {rows_text(in_doubt)}."
            case _:
                return f"Stopped early: {outcome.message}"

    def _all_finished(self) -> bool:
        """Say whether every row has come to its end, be it a failure."""
        return not self.outcome.open_rows

    def headline(self) -> str:
        """Return the shortest word on how it ended, for a subject line."""
        stop, counts = self.outcome.stop_reason, summarize(self.outcome.records).counts
        counts_text = ", ".join(f"{counts[state]} {state.value}" for state in State if counts.get(state))
        idle = stop is StopReason.INTERRUPTED and self._all_finished()
        reason = f" (stopped: {stop.value})" if stop and not idle else ""
        return (counts_text or "no rows") + reason

    def next_command(self, *, hints: bool = True) -> str:
        """Return the command that goes on from here, or nothing when there is nothing to do.

        With `hints` it may end in words for a person, in parentheses.
        """
        outcome = self.outcome
        rerun_command = shlex.join(["veobatch", *redacted_argv(self.argv)])
        stop = (
            StopReason.DISK
            if self.results_not_written and outcome.stop_reason is None
            else outcome.stop_reason
        )
        if not self._all_finished() or stop not in (None, StopReason.INTERRUPTED):
            return rerun_command + (NEXT_COMMAND_HINTS.get(stop, "") if stop and hints else "")
        failed = any(r.state is State.FAILED and r.position >= 0 for r in outcome.records)
        return f"{rerun_command} --retry-failed" if failed and "--retry-failed" not in self.argv else ""


def rows_text(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def redacted_argv(argv: Sequence[str]) -> list[str]:
    """Return the command's words as they may be shown and typed again.

    Notification URLs carry tokens, a ledger's a password, and reports are published; sending doubts again
    is asked for each time.
    """
    shown = []
    skip = False
    for argument in argv:
        if (
            not skip
            and argument != "--notify"
            and not argument.startswith(("--notify=", "--resubmit-in-doubt", "--begin-anew"))
        ):
            shown.append(redact_password(argument))
        skip = argument == "--notify"
    return shown


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
