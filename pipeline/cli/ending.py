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
from pipeline.cli.ledgers import without_password
from pipeline.cli.places import CSV_NAME, LOG_NAME, REPORT_NAME, Place
from pipeline.errors import ExitCode, StopReason
from pipeline.model import State
from pipeline.results import summary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.engine import Outcome

NEXT_WORDS = {
    StopReason.CREDITS: "  (after topping up the account)",
    StopReason.KEY: "  (with a key that works)",
    StopReason.QUOTA: "  (when the quota allows; --wait-for-quota waits for it)",
    StopReason.BUDGET: "  (with a larger --max-cost)",
    StopReason.DISK: "  (once the output can be written)",
    StopReason.IN_DOUBT: "  (asks the log again; --resubmit-in-doubt sends them again and may pay twice)",
}


@dataclass(frozen=True, slots=True)
class Ending:
    """What is said last. `wall_s` is the run's duration in seconds, `argv` the command's own words."""

    argv: Sequence[str]
    place: Place
    outcome: Outcome
    wall_s: float
    code: ExitCode

    def show(self, *, as_json: bool, quiet: bool) -> None:
        """Print one JSON object, or words; a quiet run that is done says nothing."""
        words = json.dumps(self.to_json()) if as_json else self.words()
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
            "message": outcome.message,
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
            stopped=outcome.message if outcome.stop else "",
            left=outcome.left,
        )

    def headline(self) -> str:
        """Return the shortest word on how it ended, for a subject line."""
        counts = summary(self.outcome.records).counts
        told = ", ".join(f"{counts[state]} {state.value}" for state in State if counts.get(state))
        reason = f" (stopped: {self.outcome.stop.value})" if self.outcome.stop else ""
        return (told or "no rows") + reason

    def next_command(self, *, hints: bool = True) -> str:
        """Return the command that goes on from here, or nothing when there is nothing to do.

        With `hints` it may end in words for a person, in parentheses.
        """
        outcome = self.outcome
        again = shlex.join(["veobatch", *shown_words(self.argv)])
        if outcome.stop is not None or outcome.open_rows:
            return again + (NEXT_WORDS.get(outcome.stop, "") if outcome.stop and hints else "")
        failed = any(r.state is State.FAILED and r.position >= 0 for r in outcome.records)
        return f"{again} --retry-failed" if failed and "--retry-failed" not in self.argv else ""


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
