"""Opening a batch's ledger, wherever it is: one run at a time, pauses told, no password shown."""

from __future__ import annotations

import re
import time
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

import click

from pipeline.events import Event, Level, Topic
from pipeline.ledger import Ledger
from pipeline.ledger.lock import hold
from pipeline.results.csv import iso

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractContextManager

    from pipeline.cli.paths import Place
    from pipeline.events import Observer

_USER: Final = re.compile(r"(://[^:/?#]*:)(.*)(@)")
_QUERY: Final = re.compile(r"([?&](?:ssl)?password=)([^&]*)")
_SHORTEST_SECRET: Final = 4
"""A shorter password would blacken half of what is written; it is still never written on purpose."""


class Pauses:
    """Says that a database is waited for: to the run's observers once there are any, till then aloud."""

    def __init__(self) -> None:
        self.observer: Observer | None = None

    def say(self, words: str) -> None:
        if self.observer is None:
            click.echo(words, err=True)
        else:
            self.observer.said(Event(Topic.WAITING, words, Level.WARNING))


@asynccontextmanager
async def held_ledger(place: Place, *, what: str, pauses: Pauses | None = None) -> AsyncIterator[Ledger]:
    """Open the ledger of `place` to write, and keep every other run out of it meanwhile.

    Raises `Held` when another process has the folder or the batch, else as `Ledger.open` does.
    """
    since = iso(time.time())
    pauses = pauses or Pauses()
    with hold(place.home, what=what, since=since), _held_file(place, what, since):
        opening = Ledger.open(place.ledger, batch=place.batch, exclusive=True, on_pause=pauses.say)
        async with await opening as ledger:
            yield ledger


def _held_file(place: Place, what: str, since: str) -> AbstractContextManager[None]:
    """Hold a batch in a file that other folders may use too; a database holds its batches by itself."""
    path = Path(place.elsewhere.removeprefix("sqlite:///"))
    if not place.elsewhere or "://" in str(place.elsewhere).removeprefix("sqlite:///"):
        return nullcontext()
    return hold(path.with_name(f"{path.name}.{quote(place.batch, safe='')}.lock"), what=what, since=since)


async def looked_at(place: Place) -> Ledger:
    """Open the ledger of `place` for reading, as `Ledger.open` does."""
    return await Ledger.open(place.ledger, batch=place.batch, read_only=True, on_pause=Pauses().say)


def without_password(word: str) -> str:
    """Return a word of the command line with the password of a URL in it made illegible."""
    if "://" not in word:
        return word
    return _QUERY.sub(r"\1***", _USER.sub(r"\1***\3", word))


def secrets_of(url: str) -> Sequence[str]:
    """Return the passwords that a ledger's URL holds, for those who write logs."""
    if "://" not in url:
        return ()
    found = [match[2] for pattern in (_USER, _QUERY) for match in pattern.finditer(url)]
    plain = {form for text in found for form in (text, unquote(text))}
    return sorted(form for form in plain if len(form) >= _SHORTEST_SECRET)
