"""What is left to say and write when a run has ended: to CI, to a JUnit file, to whoever is notified."""

from __future__ import annotations

import logging
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
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.cli.options import RunOptions
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


def check_notify_urls(urls: Sequence[str]) -> None:
    """Raise `UsageError` when the extra is missing or a URL names no service, without showing the URL.

    Notification URLs carry tokens: what is said of them is their scheme.
    """
    if not urls:
        return
    try:
        import apprise
    except ModuleNotFoundError as error:
        raise UsageError("--notify needs apprise: pip install 'veobatch[notify]'") from error
    logging.getLogger("apprise").setLevel(logging.CRITICAL)
    for url in urls:
        if not apprise.Apprise().add(url):
            raise UsageError(f"--notify: apprise knows no such service: {_scheme(url)}://...")


def send_to_urls(urls: Sequence[str], title: str, body: str, code: int) -> list[str]:
    """Send the message to every URL; return one line for each that did not take it. Blocks.

    `code` is the run's exit code: services show success, failure and warning in their own ways.
    """
    if not urls:
        return []
    import apprise

    kinds = {0: apprise.NotifyType.SUCCESS, 1: apprise.NotifyType.FAILURE}
    kind = kinds.get(code, apprise.NotifyType.WARNING)

    logging.getLogger("apprise").setLevel(logging.CRITICAL)
    errors = []
    for url in urls:
        service = apprise.Apprise()
        if not (service.add(url) and service.notify(body=body, title=title, notify_type=kind)):
            errors.append(f"--notify {_scheme(url)}://...: the message was not delivered")
    return errors


def _scheme(url: str) -> str:
    return url.partition("://")[0][:20]
