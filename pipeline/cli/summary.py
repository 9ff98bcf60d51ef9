"""How a run ended, for a person or as one JSON object, with the exact command for what to do next."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.farewell import closing_words
from pipeline.cli.ledger_access import without_password
from pipeline.cli.terminal import wrapped
from pipeline.errors import ExitCode, StopReason
from pipeline.model import State
from pipeline.results import CSV_NAME, LOG_NAME, REPORT_NAME
from pipeline.results.csv import status, summary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.cli.paths import Place
    from pipeline.run_state import Outcome

NEXT_WORDS = {
    StopReason.CREDITS: "  (after topping up the account)",
    StopReason.KEY: "  (with a key that works)",
    StopReason.QUOTA: "  (when the quota allows; --wait-for-quota waits for it)",
    StopReason.BUDGET: "  (with a larger --max-cost)",
    StopReason.DISK: "  (once the output can be written)",
    StopReason.IN_DOUBT: "  (asks the log again; --resubmit-in-doubt sends them again and may pay twice)",
}
COMMAND = "Next: "
UNWRITTEN = "the table or the page could not be written"


@dataclass(frozen=True, slots=True)
class Ending:
    """What is said last. `wall_s` is the run's duration in seconds, `argv` the command's own words.

    `unwritten` says that table or page could not be written in the end, whatever became of the rows.
    """

    argv: Sequence[str]
    place: Place
    outcome: Outcome
    wall_s: float
    code: ExitCode
    unwritten: bool = False

    def show(self, *, as_json: bool, quiet: bool) -> None:
        """Print one JSON object, or words; a quiet run that is done says nothing."""
        words = json.dumps(self.to_json()) if as_json else self.words()
        if sys.stdout.isatty() and not as_json:
            width = os.get_terminal_size(sys.stdout.fileno()).columns
            lines = words.split("\n")
            # A command stays whole, to be copied.
            words = "\n".join(line if line.startswith(COMMAND) else wrapped(line, width) for line in lines)
        if quiet and not as_json and self.code is ExitCode.DONE:
            return
        try:
            click.echo(words)
        except BrokenPipeError:  # nobody listens: the exit code still says how the run ended
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def to_json(self) -> dict[str, Any]:
        outcome = self.outcome
        return {
            **summary(outcome.records).to_json(),
            "exit_code": int(self.code),
            "stop": outcome.stop.value if outcome.stop else None,
            "message": outcome.message or (UNWRITTEN if self.unwritten else ""),
            "wall_s": round(self.wall_s, 3),
            "results": self.place.show(CSV_NAME),
            "report": self.place.show(REPORT_NAME),
            "videos": self.place.show("videos"),
            "next": self.next_command(hints=False),
        }

    def words(self) -> str:
        outcome, place = self.outcome, self.place
        paths = {
            "report": place.show(REPORT_NAME),
            "table": place.show(CSV_NAME),
            "videos": place.show("videos"),
            "log": str(place.home / LOG_NAME),
        }
        return closing_words(
            summary(outcome.records),
            outcome.records,
            paths,
            self.next_command(),
            wall_s=self.wall_s,
            opening=self.opening(),
            left=outcome.left,
        )

    def opening(self) -> str:
        """Return why the run ended as it did, as whole sentences; nothing when it simply came to its end."""
        words = [self._why(self.outcome.stop)] if self.outcome.stop is not None else []
        if self.unwritten and self.outcome.stop is not StopReason.DISK:
            words.append(f"{UNWRITTEN[0].upper()}{UNWRITTEN[1:]}.")
        return " ".join(words)

    def _why(self, stop: StopReason) -> str:
        outcome = self.outcome
        match stop:
            case StopReason.INTERRUPTED:
                signal = "Ended by SIGTERM" if self.code is ExitCode.TERMINATED else "Interrupted"
                return f"{signal}, with nothing left to do." if self._over() else f"{signal} before the end."
            case _ if self._over():
                return f"Nothing is left to do, but {outcome.message}"
            case StopReason.DEADLINE:
                return f"Not finished in time: {rows(len(outcome.left))}."
            case StopReason.UNFINISHED if outcome.left:
                return f"Not everything could be finished: {rows(len(outcome.left))} had to be left."
            case StopReason.IN_DOUBT:
                doubts = sum(status(row) is State.IN_DOUBT for row in outcome.records)
                return f"The vendor's log does not tell yet what became of {rows(doubts)}."
            case _:
                return f"Stopped early: {outcome.message}"

    def _over(self) -> bool:
        """Say whether every row has come to its end, be it a failure."""
        return not self.outcome.open_rows

    def headline(self) -> str:
        """Return the shortest word on how it ended, for a subject line."""
        stop, counts = self.outcome.stop, summary(self.outcome.records).counts
        told = ", ".join(f"{counts[state]} {state.value}" for state in State if counts.get(state))
        idle = stop is StopReason.INTERRUPTED and self._over()
        reason = f" (stopped: {stop.value})" if stop and not idle else ""
        return (told or "no rows") + reason

    def next_command(self, *, hints: bool = True) -> str:
        """Return the command that goes on from here, or nothing when there is nothing to do.

        With `hints` it may end in words for a person, in parentheses.
        """
        outcome = self.outcome
        again = shlex.join(["veobatch", *shown_words(self.argv)])
        stop = StopReason.DISK if self.unwritten and outcome.stop is None else outcome.stop
        if not self._over() or stop not in (None, StopReason.INTERRUPTED):
            return again + (NEXT_WORDS.get(stop, "") if stop and hints else "")
        failed = any(r.state is State.FAILED and r.position >= 0 for r in outcome.records)
        return f"{again} --retry-failed" if failed and "--retry-failed" not in self.argv else ""


def rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def shown_words(argv: Sequence[str]) -> list[str]:
    """Return the command's words as they may be shown and typed again.

    Notification URLs carry tokens, a ledger's a password, and reports are published; sending doubts again
    is asked for each time.
    """
    words = []
    skip = False
    for word in argv:
        if not skip and word != "--notify" and not word.startswith(("--notify=", "--resubmit-in-doubt")):
            words.append(without_password(word))
        skip = word == "--notify"
    return words
