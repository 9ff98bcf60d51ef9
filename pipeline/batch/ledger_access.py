"""Opening a batch's ledger, wherever it is: one run at a time, pauses reported, no password shown."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

import click

from pipeline import clocks
from pipeline.events import Event, Level, Topic
from pipeline.ledger import Ledger
from pipeline.ledger.lock import hold_lock
from pipeline.results.csv_rows import iso

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractContextManager

    from pipeline.batch.paths import BatchPaths
    from pipeline.events import Observer

SANDBOX_VENDOR: Final = "sandbox"
"""The ledger's fact `vendor` of a rehearsal."""

_USERINFO_PASSWORD: Final = re.compile(r"(://[^:/?#]*:)(.*)(@)")
_QUERY_PASSWORD: Final = re.compile(r"([?&](?:ssl)?password=)([^&]*)")
_MIN_SECRET_CHARS: Final = 4
"""Shorter passwords are not redacted from logs: they would blot out ordinary text."""


class ReconnectNotifier:
    """Reports that a database is waited for: to the run's observers once there are any, else on stderr."""

    def __init__(self) -> None:
        self.observer: Observer | None = None

    def notify(self, message: str) -> None:
        if self.observer is None:
            click.echo(message, err=True)
        else:
            self.observer.on_event(Event(Topic.WAITING, message, Level.WARNING))


@asynccontextmanager
async def open_exclusive_ledger(
    paths: BatchPaths,
    *,
    what: str,
    notifier: ReconnectNotifier | None = None,
    before_open: Callable[[], object] | None = None,
    identity: str | None = None,
) -> AsyncIterator[Ledger]:
    """Open the ledger to write, and keep every other run out of it meanwhile.

    `before_open` is called once the folder is locked, before a ledger is made in it.
    `identity` is the one that a batch without rows takes over. Raises `BatchLocked`
    when another process has the folder or the batch, else as `Ledger.open` does.
    """
    since = iso(clocks.wall())
    notifier = notifier or ReconnectNotifier()
    with hold_lock(paths.folder, command=what, started_at=since), _external_file_lock(paths, what, since):
        if before_open is not None:
            before_open()
        opening = Ledger.open(
            paths.ledger, batch=paths.batch, exclusive=True, on_pause=notifier.notify, new_as=identity
        )
        async with await opening as ledger:
            yield ledger


def _external_file_lock(paths: BatchPaths, what: str, since: str) -> AbstractContextManager[None]:
    """Hold a batch in a file that other folders may use too; a database holds its batches by itself."""
    path = Path(paths.external_ledger.removeprefix("sqlite:///"))
    if not paths.external_ledger or "://" in str(paths.external_ledger).removeprefix("sqlite:///"):
        return nullcontext()
    return hold_lock(
        path.with_name(f"{path.name}.{quote(paths.batch, safe='')}.lock"), command=what, started_at=since
    )


async def open_read_only_ledger(paths: BatchPaths) -> Ledger:
    """Open the ledger for reading, as `Ledger.open` does."""
    return await Ledger.open(
        paths.ledger, batch=paths.batch, read_only=True, on_pause=ReconnectNotifier().notify
    )


async def open_shared_ledger(paths: BatchPaths) -> Ledger:
    """Open a ledger to write what no run holds, such as picks: also while a run is going on."""
    return await Ledger.open(paths.ledger, batch=paths.batch, on_pause=ReconnectNotifier().notify)


async def made_by_sandbox(ledger: Ledger) -> bool:
    """Return whether the batch is a rehearsal in the sandbox, whose figures are no money."""
    return await ledger.meta_get("vendor") == SANDBOX_VENDOR


def redact_password(text: str) -> str:
    """Return a command-line argument with the password of a URL in it replaced by asterisks."""
    if "://" not in text:
        return text
    return _QUERY_PASSWORD.sub(r"\1***", _USERINFO_PASSWORD.sub(r"\1***\3", text))


def ledger_passwords(url: str) -> Sequence[str]:
    """Return the passwords that a ledger's URL holds, for those who write logs."""
    if "://" not in url:
        return ()
    found = [match[2] for pattern in (_USERINFO_PASSWORD, _QUERY_PASSWORD) for match in pattern.finditer(url)]
    passwords = {form for text in found for form in (text, unquote(text))}
    return sorted(form for form in passwords if len(form) >= _MIN_SECRET_CHARS)
