"""The live page's web server: the page, its events, the videos beside it, and metrics.

Owns HTTP and nothing of the run: it reads the feed, and the videos of the output. It writes nothing but
what `Reviews` lets in.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final

import anyio
from aiohttp import web

from pipeline import clocks
from pipeline.errors import UsageError
from pipeline.extras import install_command
from pipeline.results import overview, report
from pipeline.results.csv_rows import csv_bytes
from pipeline.results.live.access import BindAddress, is_allowed_host, token_matches
from pipeline.results.live.media import serve_media
from pipeline.results.live.sections import LiveSections
from pipeline.results.report import page_data

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from aiohttp.typedefs import Handler

    from pipeline.results.live.change_feed import ChangeFeed
    from pipeline.results.live.reviews import Reviews
    from pipeline.storage import OutputStore

_TOKEN_COOKIE: Final = "veobatch-token"  # noqa: S105 - the name of a cookie
_MIN_UPDATE_INTERVAL_S: Final = 0.5
_KEEPALIVE_S: Final = 10.0
_LAST_REQUESTS_GRACE_S: Final = 2.0
"""How long to stay for the pages that are open, which fetch the last posters only now."""

_SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class LivePage:
    """Serves a run's page while the context is open. `url` is where, with the token when there is one.

    `store` is where the videos lie; `eta` returns the seconds left or None.
    A bind that others can reach gets a token unless `token` names one.
    With `reviews` the page can pick.
    """

    def __init__(
        self,
        feed: ChangeFeed,
        bind_address: BindAddress,
        *,
        title: str,
        manifest: str,
        store: OutputStore,
        token: str = "",
        eta: Callable[[], float | None] | None = None,
        sandbox: bool = False,
        reviews: Reviews | None = None,
    ) -> None:
        self._feed = feed
        self._bind_address = bind_address
        self._title = title
        self._manifest = manifest
        self._store = store
        self._token = token or ("" if bind_address.is_loopback else clocks.token_hex(24))
        self._eta = eta
        self._sandbox = sandbox
        self._reviews = reviews
        self._sections = LiveSections(feed, sandbox=sandbox)
        self._listener_count = 0
        self.url = ""

    async def __aenter__(self) -> LivePage:
        """Raises `UsageError` when the place cannot be listened at."""
        app = web.Application(middlewares=[self._authorize])
        app.router.add_get("/", self._serve_page)
        app.router.add_get("/events", self._serve_events, allow_head=False)
        if self._reviews is not None:
            app.router.add_post("/picks", self._reviews.handle)
        app.router.add_get("/results.csv", self._serve_csv)
        app.router.add_get("/metrics", self._serve_metrics)
        app.router.add_get("/{folder}/{path:.+}", self._serve_file)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._bind_address.host, self._bind_address.port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise UsageError(
                f"--serve: cannot listen at {self._bind_address.host}:{self._bind_address.port}: "
                f"{error.strerror}"
            ) from error
        self.url = self._build_url()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._feed.close()
        try:
            if self._listener_count and error is None:
                await asyncio.sleep(_LAST_REQUESTS_GRACE_S)
        finally:
            with anyio.CancelScope(shield=True):
                await self._runner.cleanup()

    def _build_url(self) -> str:
        port = self._runner.addresses[0][1]
        host = f"[{self._bind_address.host}]" if ":" in self._bind_address.host else self._bind_address.host
        return f"http://{host}:{port}/" + (f"?token={self._token}" if self._token else "")

    @web.middleware
    async def _authorize(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not is_allowed_host(self._bind_address, request.host):
            raise web.HTTPMisdirectedRequest(
                text="This server goes by another name.\n", headers=_SECURITY_HEADERS
            )
        if self._token:
            if token_matches(self._token, request.query.get("token")):
                return self._redirect_without_token(request)
            bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if not token_matches(self._token, request.cookies.get(_TOKEN_COOKIE), bearer):
                raise web.HTTPUnauthorized(
                    text="Open the address that the run printed.\n", headers=_SECURITY_HEADERS
                )
        try:
            response = await handler(request)
        except web.HTTPException as error:
            error.headers.update(_SECURITY_HEADERS)
            raise
        if not response.prepared:
            response.headers.update(_SECURITY_HEADERS)
        return response

    def _redirect_without_token(self, request: web.Request) -> web.StreamResponse:
        """Take the token out of the address bar, where history and screenshots would keep it."""
        response = web.Response(
            status=303, headers={**_SECURITY_HEADERS, "Location": "/" + request.rel_url.raw_path.lstrip("/")}
        )
        response.set_cookie(_TOKEN_COOKIE, self._token, httponly=True, samesite="Strict", path="/")
        return response

    async def _serve_page(self, request: web.Request) -> web.Response:
        cursor, records = self._feed.cursor, self._feed.records()

        def page() -> str:
            return report.render(
                records,
                title=self._title,
                manifest=self._manifest,
                generated_at=clocks.wall(),
                live=True,
                since=cursor,
                sandbox=self._sandbox,
                token=self._reviews.token if self._reviews is not None else "",
            )

        return web.Response(text=await asyncio.to_thread(page), content_type="text/html")

    async def _serve_csv(self, request: web.Request) -> web.Response:
        table = await asyncio.to_thread(csv_bytes, self._feed.records(), sandbox=self._sandbox)
        return web.Response(body=table, content_type="text/csv", charset="utf-8")

    async def _serve_metrics(self, request: web.Request) -> web.Response:
        from pipeline.results.live.metrics import CONTENT_TYPE, exposition

        try:
            text = await asyncio.to_thread(exposition, self._feed.records(), self._feed.rate_limited_count)
        except ImportError:
            raise web.HTTPNotFound(
                text=f"metrics need more packages: {install_command('metrics')}\n"
            ) from None
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    async def _serve_file(self, request: web.Request) -> web.StreamResponse:
        folder, path = request.match_info["folder"], request.match_info["path"]
        return await serve_media(request, self._store, folder, path, _SECURITY_HEADERS)

    async def _serve_events(self, request: web.Request) -> web.StreamResponse:
        """Tell a page what it has not seen, until it goes away or the run ends."""
        cursor = request.headers.get("Last-Event-ID") or request.query.get("since", "")
        response = web.StreamResponse(headers={**_SECURITY_HEADERS, "Content-Type": "text/event-stream"})
        await response.prepare(request)
        self._listener_count += 1
        try:
            await response.write(b"retry: 2000\n\n")
            await self._stream_updates(response, cursor)
        except ConnectionResetError:
            pass  # the page was closed
        finally:
            self._listener_count -= 1
        return response

    async def _stream_updates(self, response: web.StreamResponse, cursor: str) -> None:
        sent_sections: dict[str, str] = {}
        while True:
            closed = self._feed.closed
            new_cursor = self._feed.cursor
            changed = report.page_records(self._feed.since(cursor), live=True)
            cursor = new_cursor
            if changed:
                await response.write(_sse_event("rows", page_data.page_rows(changed), new_cursor))
            sections = await self._sections.current(force=closed)
            changed_sections = {
                name: html for name, html in sections.items() if sent_sections.get(name) != html
            }
            sent_sections = sections
            if changed_sections:
                await response.write(_sse_event("parts", changed_sections))
            if closed:
                await response.write(_sse_event("ended", "ended"))
                return
            await response.write(_sse_event("pulse", self._status_text()))
            idle_s = _KEEPALIVE_S if self._sections.are_current() else _MIN_UPDATE_INTERVAL_S
            await self._feed.wait_changed(idle_s)
            await asyncio.sleep(0 if self._feed.closed else _MIN_UPDATE_INTERVAL_S)

    def _status_text(self) -> str:
        left_s = self._eta() if self._eta is not None else None
        if left_s is None:
            return "live"
        return f"live, {overview.format_duration(left_s) if left_s >= 10 else f'{left_s:.0f} s'} left"


def _sse_event(name: str, value: object, event_id: str = "") -> bytes:
    """Return one server-sent event; JSON has no bare line ends, so one `data` line holds it."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return f"{f'id: {event_id}{chr(10)}' if event_id else ''}event: {name}\ndata: {text}\n\n".encode()
