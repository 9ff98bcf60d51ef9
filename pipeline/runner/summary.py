"""How a run ended: the facts, one JSON object of them, and the exact command that continues."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline.batch.ledger_access import redact_password
from pipeline.errors import ExitCode, StopReason
from pipeline.model import State
from pipeline.results import CSV_NAME, LOG_NAME, REPORT_NAME
from pipeline.results.csv_rows import status, visible_records
from pipeline.results.next_step import NextStep, next_step, without_option
from pipeline.results.overview import counted
from pipeline.results.summary_json import summary_json
from pipeline.results.totals import count_statuses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.batch.paths import BatchPaths
    from pipeline.ledger.totals import Totals
    from pipeline.model import Record
    from pipeline.run_state import RunOutcome

RESULTS_NOT_WRITTEN: Final = "results.csv or report.html could not be written"
_SECRET_OPTIONS: Final = ("--notify", "--webhook")
_ASKED_EACH_TIME: Final = ("--resubmit-in-doubt", "--begin-anew", "--as-new")


@dataclass(frozen=True, slots=True)
class RunSummary:
    """The end of a run. `wall_s` is its duration in seconds, `argv` the command's arguments, if it was one.

    `initial_records` are the rows as the run found them, without those that were new, None when that is
    unknown. `results_not_written` says that CSV or page could not be written at the end, whatever became of
    the rows. `batch_usd` is what the whole batch is expected to cost. `submits` is False for a run that was
    to submit nothing: the ledger has nothing of what was asked for this once.
    """

    argv: Sequence[str]
    paths: BatchPaths
    outcome: RunOutcome
    wall_s: float
    exit_code: ExitCode
    results_not_written: bool = False
    sandbox: bool = False
    initial_records: Sequence[Record] | None = None
    batch_usd: float | None = None
    money: Totals | None = None
    submits: bool = True

    def to_json(self) -> dict[str, Any]:
        files, step = self.output_files(), self.next_step()
        return summary_json(
            self.outcome.records,
            self.exit_code,
            self.outcome.stop_reason,
            sandbox=self.sandbox,
            money=self.money,
            message=self.outcome.message or (RESULTS_NOT_WRITTEN if self.results_not_written else ""),
            wall_s=round(self.wall_s, 3),
            results=files.get("table"),
            report=files.get("report"),
            videos=files.get("videos"),
            next=step.command,
            next_hint=step.hint,
        )

    def output_files(self) -> dict[str, str]:
        """Return what the run left, by label; only what exists."""
        paths = self.paths
        in_object_store = "://" in paths.output
        has_videos = any(record.state is State.DONE for record in self.outcome.records)
        files = {"report": REPORT_NAME, "table": CSV_NAME, "videos": "videos"}
        found = {
            label: paths.output_path(name)
            for label, name in files.items()
            if (has_videos or label != "videos")
            and (not self.results_not_written if in_object_store else Path(paths.output, name).exists())
        }
        log = paths.folder / LOG_NAME
        return found | ({"log": str(log)} if log.exists() else {})

    def stop_explanation(self) -> str:
        """Return why the run ended as it did, in whole sentences; empty when it simply finished."""
        stop = self.outcome.stop_reason
        sentences = [self._explain_stop(stop)] if stop is not None else []
        if pending := sum(row.state is State.PENDING for row in self._unselected_rows()):
            sentences.append(f"Not selected in this run, and still pending: {counted(pending, 'row')}.")
        if failed := sum(row.state is State.FAILED for row in self._unselected_rows()):
            sentences.append(f"Not selected either: {counted(failed, 'row')} that failed before.")
        if self.results_not_written and stop is not StopReason.DISK:
            sentences.append(f"{RESULTS_NOT_WRITTEN}.")
        return " ".join(sentences)

    def _unselected_rows(self) -> list[Record]:
        return [row for row in self.outcome.records if row.key in self.outcome.unselected]

    def _explain_stop(self, stop: StopReason) -> str:
        outcome, finished = self.outcome, not self.outcome.open_rows
        match stop:
            case StopReason.INTERRUPTED:
                number = "SIGHUP (the terminal was closed)" if "SIGHUP" in outcome.message else "SIGTERM"
                signal = f"Ended by {number}" if self.exit_code is ExitCode.TERMINATED else "Interrupted"
                return f"{signal}{', with nothing left to do' if finished else ' before the end'}."
            case _ if finished:
                return f"Every row is finished, but {outcome.message}"
            case StopReason.DEADLINE:
                return f"Not finished before --timeout: {counted(len(outcome.unfinished), 'row')}."
            case StopReason.UNFINISHED if outcome.unfinished:
                return f"{counted(len(outcome.unfinished), 'row')} could not be finished in this run."
            case StopReason.IN_DOUBT if in_doubt := sum(
                status(row) is State.IN_DOUBT for row in outcome.records
            ):
                return f"The vendor's log does not yet show what became of {counted(in_doubt, 'row')}."
            case _:
                return f"Stopped early: {outcome.message}"

    def headline(self) -> str:
        """Return how it ended in a few words, for a subject line."""
        stop, counts = self.outcome.stop_reason, count_statuses(visible_records(self.outcome.records))
        counts_text = ", ".join(f"{counts[state]} {state.value}" for state in State if counts.get(state))
        idle = stop is StopReason.INTERRUPTED and not self.outcome.open_rows
        reason = f" (stopped: {stop.value})" if stop and not idle else ""
        return (counts_text or "no rows") + reason + (" (sandbox)" if self.sandbox else "")

    def next_step(self) -> NextStep:
        """Return the command that continues from here; without a command when there is nothing to do."""
        stop = self.outcome.stop_reason
        if stop is None and self.results_not_written:
            stop = StopReason.DISK
        argv = continuing_argv(self.argv, self.outcome, submits=self.submits)
        return next_step(self.outcome.records, argv, stop, batch_usd=self.batch_usd)


def continuing_argv(
    argv: Sequence[str], outcome: RunOutcome | None = None, *, submits: bool = True
) -> list[str]:
    """Return the arguments that go on from `outcome`: without a selection that has nothing left to do.

    `--retake` asks for one more take each time. Those of a run that submits are in the ledger, and the batch
    goes on with them unasked.
    """
    plain = redacted_argv(argv)
    if submits:
        plain = without_option(plain, "--retake")
    if outcome is None or outcome.open_rows or not outcome.unselected:
        return plain
    return without_option(without_option(plain, "--select"), "--limit")


def redacted_argv(argv: Sequence[str]) -> list[str]:
    """Return the command's arguments as they may be shown and typed again.

    Notification URLs carry tokens, a ledger's URL a password, and reports are published. Submitting rows in
    doubt again has to be asked for each time.
    """
    shown = []
    skip = False
    for argument in argv:
        name = argument.partition("=")[0]
        if not skip and name not in (*_SECRET_OPTIONS, *_ASKED_EACH_TIME):
            shown.append(redact_password(argument))
        skip = not skip and argument in _SECRET_OPTIONS
    return shown
