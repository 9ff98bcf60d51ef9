"""What is left to say and write when a run has ended: to CI, to a JUnit file, to whoever is notified."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio
import click

from pipeline.cli.ci import (
    annotation_lines,
    on_github,
    repository_path,
    step_summary,
    write_junit,
    write_step_summary,
)
from pipeline.cli.notify import send_to_urls

if TYPE_CHECKING:
    from pipeline.cli.request import RunOptions
    from pipeline.cli.summary import ExitSummary


async def send_notifications(options: RunOptions, summary: ExitSummary) -> None:
    """Tell everyone who is not in front of the terminal. Nothing here can fail the run."""
    records = list(summary.outcome.records)
    manifest = repository_path(options.manifest, os.environ)
    if options.junit is not None:
        try:
            write_junit(records, options.junit, name=options.manifest.stem, manifest=manifest)
        except OSError as error:
            click.echo(f"--junit {options.junit}: {error.strerror}", err=True)
    if on_github(os.environ):
        for line in annotation_lines(records, manifest):
            click.echo(line, err=True)
    next_command = summary.next_command()
    write_step_summary(
        step_summary(records, title=options.manifest.stem, next_command=next_command), os.environ
    )
    if options.notify:
        title = f"veobatch {options.manifest.stem}: {summary.headline()}"
        body = summary.to_text()
        for delivery_error in await anyio.to_thread.run_sync(
            send_to_urls, options.notify, title, body, int(summary.exit_code)
        ):
            click.echo(delivery_error, err=True)
