"""What is left to say and write when a run has ended: to CI, to a JUnit file, to whoever is notified."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio
import click

from pipeline.cli.ci import (
    annotation_lines,
    manifest_in_repository,
    on_github,
    step_summary,
    write_junit,
    write_step_summary,
)
from pipeline.cli.notify import send

if TYPE_CHECKING:
    from pipeline.cli.request import Request
    from pipeline.cli.summary import Ending


async def tell(request: Request, ending: Ending) -> None:
    """Tell everyone who is not in front of the terminal. Nothing here can fail the run."""
    records = list(ending.outcome.records)
    manifest = manifest_in_repository(request.manifest, os.environ)
    if request.junit is not None:
        try:
            write_junit(records, request.junit, name=request.manifest.stem, manifest=manifest)
        except OSError as error:
            click.echo(f"--junit {request.junit}: {error.strerror}", err=True)
    if on_github(os.environ):
        for line in annotation_lines(records, manifest):
            click.echo(line, err=True)
    following = ending.next_command()
    write_step_summary(step_summary(records, title=request.manifest.stem, next_command=following), os.environ)
    if request.notify:
        title = f"veobatch {request.manifest.stem}: {ending.headline()}"
        words = ending.words()
        for trouble in await anyio.to_thread.run_sync(send, request.notify, title, words, int(ending.code)):
            click.echo(trouble, err=True)
