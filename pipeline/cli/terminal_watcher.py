"""What the terminal shows of a run while it goes on, and the live page when it is asked for."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import asynccontextmanager, nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, TextIO, cast

import anyio
import click

from pipeline.cli.progress import Progress
from pipeline.cli.reporting.terminal import BestEffortStream
from pipeline.events import Event, Level, Topic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractContextManager

    from pipeline.cli.options import RunOptions
    from pipeline.events import Observer
    from pipeline.poll.eta import EtaEstimator
    from pipeline.runner.prepare import PreparedRun

TICK_S = 0.5
PRELOAD_AFTER_S = 1.0


class TerminalWatcher:
    """Shows one run: bars or lines, GitHub's log group, and `--serve`'s page."""

    def __init__(self, prepared: PreparedRun, eta: EtaEstimator, options: RunOptions) -> None:
        records = prepared.plan.begun().records
        self._config, self._options, self._eta = prepared.config, options, eta
        self._stream = cast("TextIO", BestEffortStream(sys.stderr))
        self._progress = Progress(
            sum(record.position >= 0 for record in records),
            self._stream,
            known=records,
            quiet=options.quiet,
            verbose=options.verbose,
            sandbox=options.request.sandbox,
            eta=eta,
            estimate_usd=prepared.cost_estimate.batch_usd,
        )
        self.observers: Sequence[Observer] = [self._progress]
        self._feed = self._reviews = None
        if options.serve is not None:
            from pipeline.results.live import ChangeFeed, Reviews

            self._feed = ChangeFeed(records)
            store, log = prepared.config.store, prepared.batch.run_log
            self._reviews = Reviews(
                prepared.batch.ledger,
                store,
                self._feed,
                notify=lambda note: log.on_event(Event(Topic.NOTE, note, Level.WARNING)),
            )
            self.observers = [self._progress, self._feed]

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Show progress while the context lasts. Raises `UsageError` when the page's port is taken."""
        async with self._live_page():
            with self._log_group(), self._progress:
                yield

    def _log_group(self) -> AbstractContextManager[None]:
        if self._options.quiet or os.environ.get("GITHUB_ACTIONS") != "true":
            return nullcontext()
        from pipeline.cli.reporting.ci import log_group

        return log_group("veobatch: progress", self._stream)

    async def keep_current(self) -> None:
        """Redraw what is due, and follow reviewers, until cancelled."""
        async with anyio.create_task_group() as tasks:
            if self._reviews is not None:
                tasks.start_soon(self._reviews.keep_up)
            tasks.start_soon(self._preload_end)
            while True:
                await anyio.sleep(TICK_S)
                self._progress.tick()

    async def _preload_end(self) -> None:
        """Load what reports the end once creates are on their way: the prompt waits for it otherwise."""
        await anyio.sleep(PRELOAD_AFTER_S)
        await anyio.to_thread.run_sync(import_module, "pipeline.cli.reporting.notifications")
        await anyio.sleep(PRELOAD_AFTER_S)
        gc.freeze()  # once more: decoders alone would let a search for cycles hold the loop for 20 ms

    @asynccontextmanager
    async def _live_page(self) -> AsyncIterator[None]:
        if self._feed is None or self._options.serve is None:
            yield
            return
        from pipeline.results.live import LivePage, parse_bind

        manifest = self._options.manifest
        page = LivePage(
            self._feed,
            parse_bind(self._options.serve),
            title=manifest.stem,
            manifest=str(manifest),
            store=self._config.store,
            eta=self._eta,
            sandbox=self._options.request.sandbox,
            reviews=self._reviews,
        )
        async with page:
            click.echo(f"live page: {page.url}", err=True)
            yield
