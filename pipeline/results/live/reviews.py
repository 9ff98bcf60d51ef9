"""What reviewers say on a served page: checked, written to the ledger, told to every other page.

Owns the guard against other sites: a request needs the token that only our own page has, and comes from our
own origin; no answer allows another one to read it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from aiohttp import web

from pipeline import clocks
from pipeline.errors import LedgerError, StoreError, UsageError
from pipeline.model import Pick
from pipeline.results.live.access import token_matches
from pipeline.results.picks import PicksFolder, resolve_picks, with_picks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipeline.ledger import Ledger
    from pipeline.results.live.change_feed import ChangeFeed
    from pipeline.storage import OutputStore

TOKEN_HEADER: Final = "X-Veobatch-Token"  # noqa: S105 - the name of a header
_LOOK_INTERVAL_S: Final = 1.0
"""How often the ledger is asked for what others said: the command, or a page served elsewhere."""


class Reviews:
    """The picks of one batch while its page is served. Run `keep_up` beside the server."""

    def __init__(
        self, ledger: Ledger, store: OutputStore, feed: ChangeFeed, *, notify: Callable[[str], object]
    ) -> None:
        """`notify` hears what could not be done to the folder of picks."""
        self._ledger = ledger
        self._store = store
        self._feed = feed
        self._notify = notify
        self._changed = asyncio.Event()
        self._lock = asyncio.Lock()
        self.token = clocks.token_hex(24)

    async def handle(self, request: web.Request) -> web.Response:
        """Answer `POST /picks` with 204, or with why nothing was changed."""
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            raise web.HTTPForbidden(text="Another site may not pick.\n")
        if not token_matches(self.token, request.headers.get(TOKEN_HEADER)):
            raise web.HTTPForbidden(text="The page is of an earlier server: load it again.\n")
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="Picks are JSON.\n")
        try:
            await self.apply(_read_wishes(await request.json()))
        except (UsageError, ValueError, TypeError, LookupError, RecursionError) as error:
            raise web.HTTPUnprocessableEntity(text=f"{error}\n") from None
        except (LedgerError, StoreError) as error:
            raise web.HTTPServiceUnavailable(text=f"{error}\n") from None
        return web.Response(status=204)

    async def apply(self, wishes: Mapping[str, Pick]) -> None:
        """Write what a reviewer said to the ledger, then tell every page.

        Raises `UsageError` for what cannot be, and `LedgerError`; nothing has changed then.
        """
        async with self._lock:
            await self._look()
            changes = resolve_picks(self._feed.records(), wishes)
            await self._ledger.set_picks(changes)
            self._feed.set_picks(changes)
        self._changed.set()

    async def keep_up(self) -> None:
        """Follow what others say and keep the folder of picks true, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(_LOOK_INTERVAL_S):
                    await self._changed.wait()
            except TimeoutError:
                async with self._lock:
                    await self._look()
            await self.update_folder()

    async def update_folder(self) -> None:
        """Bring the folder of picks up to date, if anything changed since it was."""
        if not self._changed.is_set():
            return
        self._changed.clear()
        try:
            for note in await PicksFolder(self._ledger, self._store).update(self._feed.records()):
                self._notify(note)
        except (LedgerError, StoreError) as error:
            self._notify(f"picks/ is not up to date: {error}")

    async def _look(self) -> None:
        records = self._feed.records()
        try:
            now = with_picks(records, await self._ledger.picks())
        except (LedgerError, StoreError):
            return  # the next write reports it
        changes = {
            record.key: Pick(record.pick, record.pick_note)
            for old, record in zip(records, now, strict=True)
            if record is not old
        }
        self._feed.set_picks(changes)
        if changes:
            self._changed.set()


def _read_wishes(document: Any) -> dict[str, Pick]:
    return {str(item["key"]): Pick(str(item["pick"]), str(item["note"])) for item in document["picks"]}
