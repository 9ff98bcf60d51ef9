"""Reports of how a run ended, for those who are not at its terminal: CI, a JUnit file, messages."""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING, Any

import anyio
import click

from pipeline.cli.reporting.ci import (
    STEP_OUTPUTS,
    STEP_SUMMARY,
    annotation_lines,
    early_end_summary,
    end_annotation,
    on_github,
    repository_path,
    step_summary,
    write_step_outputs,
    write_step_summary,
)
from pipeline.cli.reporting.junit import write_junit
from pipeline.cli.reporting.problems import error_text
from pipeline.cli.reporting.summary import to_text
from pipeline.errors import ExitCode, StopRun, UsageError, VeobatchError
from pipeline.extras import missing_extra
from pipeline.manifest import ManifestProblems
from pipeline.results.overview import headline
from pipeline.results.summary_json import summary_json
from pipeline.results.totals import summarize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.cli.options import RunOptions
    from pipeline.model import Record
    from pipeline.runner.summary import RunSummary


async def send_notifications(options: RunOptions, summary: RunSummary) -> None:
    """Report the end everywhere but on the terminal. Nothing here can fail the run."""
    records = list(summary.outcome.records)
    cause, step = _cause(summary), summary.next_step()
    stop = summary.outcome.stop_reason
    manifest = repository_path(options.manifest, os.environ)
    _write_junit(options, records, manifest, cause=cause if stop else "", code=stop.value if stop else "")
    if on_github(os.environ):
        for line in annotation_lines(records, manifest, cause=cause, next_step=step):
            click.echo(line, err=True)
    title = options.manifest.stem
    if STEP_SUMMARY in os.environ:
        text = step_summary(
            records, title=title, cause=cause, next_step=step, sandbox=summary.sandbox, money=summary.money
        )
        write_step_summary(text, os.environ)
    if STEP_OUTPUTS in os.environ:
        write_step_outputs(summary.to_json(), os.environ)
    if options.notify:
        body, code = to_text(summary), int(summary.exit_code)
        subject = f"veobatch {title}: {summary.headline()}"
        errors = await anyio.to_thread.run_sync(send_to_urls, options.notify, subject, body, code)
        for delivery_error in errors:
            click.echo(delivery_error, err=True)


def report_early_end(error: VeobatchError, options: RunOptions) -> int:
    """Report a run that ended before it could begin, on the terminal and to CI; return its exit code.

    Prints the error, its annotation and, with `--json`, the summary object; writes the JUnit file, the step's
    summary and outputs, and sends the messages that were asked for.
    """
    message, reason = str(error), error.reason if isinstance(error, StopRun) else None
    code = ExitCode(error.exit_code)
    click.echo(error_text(error), err=True)
    manifest = repository_path(options.manifest, os.environ)
    if on_github(os.environ) and not isinstance(error, ManifestProblems):
        click.echo(end_annotation(message, None, manifest), err=True)
    summary = summary_json([], code, reason, sandbox=options.request.sandbox, message=message)
    if options.as_json:
        click.echo(json.dumps(summary))
    _write_junit(options, [], manifest, cause=message, code=reason.value if reason else "usage")
    write_step_summary(early_end_summary(options.manifest.stem, message), os.environ)
    write_step_outputs(summary, os.environ)
    title = f"veobatch {options.manifest.stem}: {reason.value if reason else 'not started'}"
    for line in _try_send(options.notify, title, message, int(code)):
        click.echo(line, err=True)
    return int(code)


def _cause(summary: RunSummary) -> str:
    """Return why the exit code is not 0; empty when it is."""
    if summary.exit_code is ExitCode.DONE:
        return ""
    return summary.stop_explanation() or " ".join(
        headline(summarize(summary.outcome.records, money=summary.money))
    )


def _write_junit(options: RunOptions, records: Sequence[Record], manifest: str, **end: Any) -> None:
    if options.junit is None:
        return
    try:
        write_junit(records, options.junit, name=options.manifest.stem, manifest=manifest, **end)
    except OSError as error:
        click.echo(f"--junit {options.junit}: {error.strerror}", err=True)


def check_notify_urls(urls: Sequence[str]) -> None:
    """Raise `UsageError` when the extra is missing or a URL names no service, without showing the URL.

    Notification URLs carry tokens: messages name only their scheme.
    """
    if not urls:
        return
    try:
        import apprise
    except ModuleNotFoundError as error:
        raise missing_extra("--notify", "notify") from error
    logging.getLogger("apprise").setLevel(logging.CRITICAL)
    for url in urls:
        if not apprise.Apprise().add(url):
            raise UsageError(f"--notify: apprise does not know the service {_scheme(url)}://...")


def send_to_urls(urls: Sequence[str], title: str, body: str, code: int) -> list[str]:
    """Send the message to every URL; return one line for each delivery that failed. Blocks.

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


def _try_send(urls: Sequence[str], title: str, body: str, code: int) -> list[str]:
    """Send like `send_to_urls`; without apprise, which the error itself may be about, send nothing."""
    try:
        return send_to_urls(urls, title, body, code)
    except ModuleNotFoundError:
        return []


def _scheme(url: str) -> str:
    return url.partition("://")[0][:20]
