"""The running sandbox: two ports, one vendor, started and stopped by `async with`."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self

import anyio
from aiohttp import web

from pipeline.sandbox.account_api import AccountApi
from pipeline.sandbox.cdn import CLIP_PATH_PREFIX, Cdn
from pipeline.sandbox.faults.catalog import FAULT_POINTS
from pipeline.sandbox.faults.handlers import FaultHandlers
from pipeline.sandbox.faults.injector import FaultInjector
from pipeline.sandbox.generation_api import GenerationApi
from pipeline.sandbox.log_api import LogApi
from pipeline.sandbox.middleware import make_header_signal, make_middleware
from pipeline.sandbox.model_api import ModelApi
from pipeline.sandbox.openapi import GENERATIONS_PATH
from pipeline.sandbox.options import SandboxOptions
from pipeline.sandbox.pages import PageHandlers
from pipeline.sandbox.service import VendorService
from pipeline.sandbox.video import ClipRenderer

if TYPE_CHECKING:
    from types import TracebackType

    from pipeline.sandbox.faults.injector import Fault
    from pipeline.sandbox.lifecycle import Retirement
    from pipeline.sandbox.state import SandboxState


class Sandbox:
    """A stand-in for the vendor: `async with Sandbox(options) as sandbox`, then use `sandbox.url`."""

    def __init__(self, options: SandboxOptions | None = None) -> None:
        self.options = options if options is not None else SandboxOptions()
        self._injector = FaultInjector(self.options.seed, FAULT_POINTS)
        self._service = VendorService(self.options, self._injector)
        self._runners: list[web.AppRunner] = []
        self._port = 0
        self._cdn_port = 0

    @property
    def state(self) -> SandboxState:
        """What the vendor knows; tests read it."""
        return self._service.state

    @property
    def url(self) -> str:
        return _url(self.options.host, self._port)

    @property
    def cdn_url(self) -> str:
        return _url(self.options.host, self._cdn_port)

    @property
    def journal_warnings(self) -> tuple[str, ...]:
        """What is wrong with the journal, for a person to read; empty when nothing is."""
        return tuple(self._service.journal.warnings)

    def add_fault(self, fault: Fault) -> None:
        """Misbehave in that way from now on. Raises `ValueError` for an unknown name."""
        self._injector.add(fault)

    def set_clock_offset(self, seconds: float) -> None:
        """Set the vendor's clock so far ahead of the true time."""
        self._service.clock.offset_s = seconds

    def retire(self, retirement: Retirement) -> None:
        """Enter a model into the deprecation feed, in place of its earlier entry."""
        self._service.retire(retirement)

    async def __aenter__(self) -> Self:
        """Raises `OSError` when a port is taken."""
        await asyncio.to_thread(self._service.sync_from_journal)
        self._handlers = FaultHandlers(self.state)
        self._renderer = ClipRenderer()
        self._cdn = Cdn(self._service, self._renderer, self._handlers)
        try:
            self._cdn_port = await self._serve_cdn()
            self._service.journal.cdn_port = self._cdn_port
            self._cdn.base_url = self.cdn_url
            self._port = await self._serve(self._api_app(), self.options.port)
        except OSError:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        self._handlers.shutdown.set()
        with anyio.CancelScope(shield=True):
            async with contextlib.AsyncExitStack() as stack:
                stack.callback(self._renderer.close)
                stack.callback(self._service.journal.close)
                stack.callback(self._runners.clear)
                for runner in self._runners:
                    stack.push_async_callback(runner.cleanup)

    def _api_app(self) -> web.Application:
        generations = GenerationApi(self._service, self._cdn, self._handlers)
        accounts, models = AccountApi(self._service), ModelApi(self._service)
        log = LogApi(self._service, self._handlers)
        pages = PageHandlers(self._service)
        app = web.Application(middlewares=[make_middleware(self._service)], client_max_size=16 * 1024**2)
        app.on_response_prepare.append(make_header_signal(self._service))
        app.router.add_post(GENERATIONS_PATH, generations.create)
        app.router.add_get(GENERATIONS_PATH, generations.status)
        app.router.add_get("/v2/logs", log.logs)
        app.router.add_get("/v2/billing", accounts.billing)
        app.router.add_get("/v2/billing/transactions", accounts.transactions)
        app.router.add_get("/v1/key", accounts.key)
        app.router.add_get("/v1/models", models.models)
        app.router.add_get("/v1/models/deprecations", models.deprecations)
        app.router.add_get("/model/{id:.+}", models.card)
        app.router.add_get("/models/metrics", models.metrics)
        app.router.add_get("/docs-json", models.docs)
        app.router.add_get("/images/{name}.jpg", pages.image)
        app.router.add_get("/", pages.index)
        return app

    def _cdn_app(self) -> web.Application:
        app = web.Application()
        app.on_response_prepare.append(make_header_signal(self._service))
        app.router.add_get(f"{CLIP_PATH_PREFIX}{{name}}", self._cdn.serve)
        return app

    async def _serve_cdn(self) -> int:
        """Listen where an earlier sandbox's URLs point to, if that port is free and none is asked for."""
        if self.options.cdn_port == 0 and self._service.journal.cdn_port != 0:
            with contextlib.suppress(OSError, OverflowError):
                return await self._serve(self._cdn_app(), self._service.journal.cdn_port)
        return await self._serve(self._cdn_app(), self.options.cdn_port)

    async def _serve(self, app: web.Application, port: int) -> int:
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        self._runners.append(runner)
        site = web.TCPSite(runner, self.options.host, port, backlog=1024)
        await site.start()
        return int(runner.addresses[0][1])


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
