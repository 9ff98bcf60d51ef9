"""A run's summary as a person or a script reads it on standard output."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Final

import click

from pipeline.cli.reporting.summary_text import summary_text
from pipeline.cli.reporting.terminal import wrapped_to_width
from pipeline.cli.streams import discard_stdout
from pipeline.errors import ExitCode
from pipeline.results.run_delta import RunDelta
from pipeline.results.totals import summarize

if TYPE_CHECKING:
    from pipeline.runner.summary import RunSummary

NEXT_PREFIX: Final = "Next: "


def show_summary(summary: RunSummary, *, as_json: bool, quiet: bool) -> None:
    """Print one JSON object, or text; a quiet run that succeeded prints nothing."""
    if as_json:
        text = json.dumps(summary.to_json())
    elif quiet and summary.exit_code is ExitCode.DONE:
        return
    else:
        text = _wrapped_for_terminal(to_text(summary))
    try:
        click.echo(text)
    except BrokenPipeError:  # the reader has gone; the exit code still says how the run ended
        discard_stdout()


def to_text(summary: RunSummary) -> str:
    """Return the summary as text, the command that continues on its last line."""
    records, initial = summary.outcome.records, summary.initial_records
    step = summary.next_step()
    return summary_text(
        summarize(records, sandbox=summary.sandbox, money=summary.money),
        records,
        summary.output_files(),
        f"{NEXT_PREFIX}{step}" if step.command else "",
        wall_s=summary.wall_s,
        stop_explanation=summary.stop_explanation(),
        unfinished=summary.outcome.unfinished,
        delta=RunDelta.between(initial, records) if initial is not None else None,
    )


def _wrapped_for_terminal(text: str) -> str:
    """Break long lines between words on a terminal; a command stays whole, to be copied."""
    if not sys.stdout.isatty():
        return text
    width = os.get_terminal_size(sys.stdout.fileno()).columns
    lines = text.split("\n")
    return "\n".join(
        line if line.startswith(NEXT_PREFIX) else wrapped_to_width(line, width) for line in lines
    )
