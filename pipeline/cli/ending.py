"""The last words of a run: what happened, where it lies, and the exact command for what to do next."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any, Final

import click

from pipeline.cli.places import CSV_NAME, REPORT_NAME
from pipeline.cli.words import clock_words, one_line
from pipeline.errors import ExitCode, StopReason
from pipeline.model import State
from pipeline.results import summary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.cli.places import Place
    from pipeline.engine import Outcome

SHOWN: Final = 20


class Closing:
    """How a run ended, for a person or as one JSON object."""

    def __init__(self, request: Any, place: Place, outcome: Outcome, wall_s: float) -> None:
        self._request = request
        self._place = place
        self._outcome = outcome
        self._wall_s = wall_s
        self._summary = summary(outcome.records)

    def show(self, code: ExitCode | int) -> None:
        """Print the summary: JSON when asked for, else words (only troubles when quiet)."""
        if self._request.as_json:
            click.echo(json.dumps(self.to_json(int(code))))
        elif not self._request.quiet or code != ExitCode.DONE:
            click.echo("\n".join(self._words()))

    def to_json(self, code: int) -> dict[str, Any]:
        outcome = self._outcome
        return {
            **self._summary.to_json(),
            "exit_code": code,
            "stop": outcome.stop.value if outcome.stop else None,
            "message": outcome.message,
            "wall_s": round(self._wall_s, 3),
            "results": self._place.show(CSV_NAME),
            "report": self._place.show(REPORT_NAME),
            "videos": self._place.show("videos"),
            "next": self._next(),
        }

    def _words(self) -> list[str]:
        counts = self._summary.counts
        told = [f"{counts.get(state, 0)} {state.value}" for state in State if counts.get(state, 0)]
        money = f", ${self._summary.usd:.2f}" if self._summary.usd else ""
        lines = [f"{', '.join(told) or 'no rows'}{money} in {clock_words(self._wall_s)}"]
        failed = [r for r in self._outcome.records if r.state is State.FAILED and r.position >= 0]
        lines += _bounded(
            [f"  failed: {r.id} (line {r.line}): {r.failure.message if r.failure else ''}" for r in failed]
        )
        doubts = [r for r in self._outcome.records if r.state is State.IN_DOUBT]
        lines += _bounded([f"  in doubt: {r.id} (correlation id {r.correlation_id})" for r in doubts])
        lines += _bounded(
            [f"  left: {key.rpartition('@')[0]}: {why}" for key, why in self._outcome.left.items()]
        )
        if self._outcome.stop is not None:
            lines.append(f"stopped early ({self._outcome.stop.value}): {self._outcome.message}")
        lines += [f"results  {self._place.show(CSV_NAME)}", f"videos   {self._place.show('videos')}/"]
        lines.append(f"report   {self._place.show(REPORT_NAME)}")
        following = self._next()
        if following:
            lines.append(f"next     {following}")
        return [one_line(line) for line in lines]

    def _next(self) -> str:
        """Return the command that goes on from here, or nothing when there is nothing to do."""
        outcome = self._outcome
        again = shlex.join(["veobatch", *self._request.argv])
        if outcome.stop is StopReason.IN_DOUBT:
            return f"{again}  (asks the log again; --resubmit-in-doubt pays again if need be)"
        if outcome.stop is StopReason.BUDGET:
            return f"{again}  (with a larger --max-cost)"
        if outcome.stop is not None or outcome.open_rows:
            return again
        failed = any(r.state is State.FAILED and r.position >= 0 for r in outcome.records)
        return f"{again} --retry-failed" if failed else ""


def _bounded(lines: Sequence[str]) -> list[str]:
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], *([f"  ... and {more} more in {CSV_NAME}"] if more > 0 else [])]
