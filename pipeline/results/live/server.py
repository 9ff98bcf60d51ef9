"""The live page's web server: the page, its events, the videos beside it, and metrics.

Owns HTTP and nothing of the run: it reads the feed, and files below the output folder. Read-only.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import web

from pipeline.errors import UsageError
from pipeline.results import report
from pipeline.results.csv import csv_bytes
from pipeline.results.live.guard import Bind, right_host, right_token
from pipeline.results.report import data, story

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from aiohttp.typedefs import Handler

    from pipeline.results.live.feed import Feed

_COOKIE: Final = "veobatch-token"
_FOLDERS: Final = frozenset({"videos", "posters"})
_GAP_S: Final = 0.5
_ALIVE_S: Final = 10.0
_LINGER_S: Final = 2.0
"""How long to stay for the pages that are open, which fetch the last posters only now."""

_SHARE: Final = 10.0
"""Drawing the sections anew may take a tenth of the time, so that a huge batch is not slowed by its page."""

_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class LivePage:
    """Serves a run's page while the context is open. `url` is where, with the token when there is one.

    `root` is the output folder, or None when videos lie elsewhere; `eta` returns the seconds left or None.
    A bind that others can reach gets a token unless `token` names one.
    """

    def __init__(
        self,
        feed: Feed,
        bind: Bind,
        *,
        title: str,
        manifest: str,
        root: Path | None,
        token: str = "",
        eta: Callable[[], float | None] | None = None,
    ) -> None:
        self._feed = feed
        self._bind = bind
        self._title = title
        self._manifest = manifest
        self._root = root
        self._token = token or ("" if bind.local else secrets.token_urlsafe(24))
        self._eta = eta
        self._parts: tuple[str, dict[str, str]] = ("", {})
        self._drawn_at = 0.0
        self._took_s = 0.0
        self._drawing = asyncio.Lock()
        self._listeners = 0
        self.url = ""

    async def __aenter__(self) -> LivePage:
        """Raises `UsageError` when the place cannot be listened at."""
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/", self._page)
        app.router.add_get("/events", self._events, allow_head=False)
        app.router.add_get("/results.csv", self._csv)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/{folder}/{path:.+}", self._file)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._bind.host, self._bind.port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise UsageError(
                f"--serve: cannot listen at {self._bind.host}:{self._bind.port}: {error.strerror}"
            ) from error
        self.url = self._address()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._feed.end()
        try:
            if self._listeners and error is None:
                await asyncio.sleep(_LINGER_S)
        finally:
            await self._runner.cleanup()

    def _address(self) -> str:
        port = self._runner.addresses[0][1]
        host = f"[{self._bind.host}]" if ":" in self._bind.host else self._bind.host
        return f"http://{host}:{port}/" + (f"?token={self._token}" if self._token else "")

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not right_host(self._bind, request.host):
            raise web.HTTPMisdirectedRequest(text="This server goes by another name.\n", headers=_HEADERS)
        if self._token:
            if right_token(self._token, request.query.get("token")):
                return self._welcome(request)
            bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if not right_token(self._token, request.cookies.get(_COOKIE), bearer):
                raise web.HTTPUnauthorized(text="Open the address that the run printed.\n", headers=_HEADERS)
        try:
            response = await handler(request)
        except web.HTTPException as error:
            error.headers.update(_HEADERS)
            raise
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    def _welcome(self, request: web.Request) -> web.StreamResponse:
        """Take the token out of the address bar, where history and screenshots would keep it."""
        response = web.Response(
            status=303, headers={**_HEADERS, "Location": "/" + request.rel_url.raw_path.lstrip("/")}
        )
        response.set_cookie(_COOKIE, self._token, httponly=True, samesite="Strict", path="/")
        return response

    async def _page(self, request: web.Request) -> web.Response:
        mark, records = self._feed.mark, self._feed.records()

        def page() -> str:
            return report.render(
                records,
                title=self._title,
                manifest=self._manifest,
                generated_at=time.time(),
                live=True,
                since=mark,
            )

        return web.Response(text=await asyncio.to_thread(page), content_type="text/html")

    async def _csv(self, request: web.Request) -> web.Response:
        table = await asyncio.to_thread(csv_bytes, self._feed.records())
        return web.Response(body=table, content_type="text/csv", charset="utf-8")

    async def _metrics(self, request: web.Request) -> web.Response:
        from pipeline.results.live.metrics import CONTENT_TYPE, exposition

        try:
            text = await asyncio.to_thread(exposition, self._feed.records(), self._feed.throttled)
        except ImportError:
            raise web.HTTPNotFound(
                text="metrics need prometheus-client: pip install 'veobatch[metrics]'\n"
            ) from None
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    async def _file(self, request: web.Request) -> web.StreamResponse:
        """Answer with a file of the gallery; nothing outside its folders, and no hidden or unfinished one."""
        folder, path = request.match_info["folder"], request.match_info["path"]
        found = await asyncio.to_thread(self._find, folder, path)
        if found is None:
            raise web.HTTPNotFound(text="No such file.\n")
        return web.FileResponse(found)

    def _find(self, folder: str, path: str) -> Path | None:
        if self._root is None or folder not in _FOLDERS or "\0" in path:
            return None
        if any(part.startswith(".") for part in path.split("/")) or Path(path).suffix not in (".mp4", ".jpg"):
            return None
        place = (self._root / folder).resolve()
        found = (place / path).resolve()
        return found if found.is_relative_to(place) and found.is_file() else None

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Tell a page what it has not seen, until it goes away or the run ends."""
        seen = request.headers.get("Last-Event-ID") or request.query.get("since", "")
        response = web.StreamResponse(headers={**_HEADERS, "Content-Type": "text/event-stream"})
        await response.prepare(request)
        self._listeners += 1
        try:
            await response.write(b"retry: 2000\n\n")
            await self._tell(response, seen)
        except ConnectionResetError:
            pass  # the page was closed
        finally:
            self._listeners -= 1
        return response

    async def _tell(self, response: web.StreamResponse, seen: str) -> None:
        drawn: dict[str, str] = {}
        while True:
            over = self._feed.over
            mark = self._feed.mark
            changed = report.shown(self._feed.since(seen), live=True)
            seen = mark
            if changed:
                await response.write(_event("rows", data.rows(changed), mark))
            parts = await self._sections(fresh=over)
            news = {name: html for name, html in parts.items() if drawn.get(name) != html}
            drawn = parts
            if news:
                await response.write(_event("parts", news))
            if over:
                await response.write(_event("ended", "ended"))
                return
            await response.write(_event("pulse", self._pulse()))
            behind = self._parts[0] != self._feed.mark
            await self._feed.changes(_GAP_S if behind else _ALIVE_S)
            await asyncio.sleep(0 if self._feed.over else _GAP_S)

    async def _sections(self, *, fresh: bool) -> dict[str, str]:
        """Return the sections, drawn once for all listeners and not more often than they are worth."""
        async with self._drawing:
            mark = self._feed.mark
            known, parts = self._parts
            due = fresh or time.monotonic() - self._drawn_at >= _SHARE * self._took_s
            if known == mark or not due:
                return parts
            began = time.monotonic()
            parts = await asyncio.to_thread(report.parts, self._feed.records())
            self._parts, self._drawn_at = (mark, parts), time.monotonic()
            self._took_s = self._drawn_at - began
            return parts

    def _pulse(self) -> str:
        left = self._eta() if self._eta is not None else None
        if left is None:
            return "live"
        return f"live, {story.span(left) if left >= 10 else f'{left:.0f} s'} left"


def _event(name: str, value: object, mark: str = "") -> bytes:
    """Return one server-sent event; JSON has no bare line ends, so one `data` line holds it."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return f"{f'id: {mark}{chr(10)}' if mark else ''}event: {name}\ndata: {text}\n\n".encode()
