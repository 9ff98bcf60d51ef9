"""Who watches a run while the engine works: signals, bars, log, CSV, and the live page when asked for."""

from __future__ import annotations

import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

import anyio
import click

from pipeline.cli.ci import group, on_github
from pipeline.cli.progress import Progress
from pipeline.cli.signals import Signals
from pipeline.cli.streams import Unbreakable
from pipeline.errors import VeobatchError
from pipeline.events import Observers
from pipeline.poll.eta import Eta
from pipeline.results.writer import Projector

if TYPE_CHECKING:
    from pipeline.cli.setup import Prepared
    from pipeline.cluster.driver import Cluster
    from pipeline.engine import Engine
    from pipeline.errors import ExitCode
    from pipeline.events import Observer
    from pipeline.poll.learner import DurationLearner
    from pipeline.run_state import Outcome


class Bystanders:
    """The observers of one run, and the tasks that some of them need."""

    def __init__(self, prepared: Prepared, learner: DurationLearner) -> None:
        """`learner` holds what earlier runs have left of rendering times."""
        batch, plan = prepared.batch, prepared.plan
        request, settings = batch.request, batch.settings
        rows = sum(record.position >= 0 for record in plan.records)
        self._batch = batch
        self._eta = Eta(
            plan.records, settings.concurrency, interval_s=settings.poll_interval, learner=learner
        )
        self._progress = Progress(
            rows,
            cast("TextIO", Unbreakable(sys.stderr)),
            known=plan.records,
            quiet=request.quiet,
            verbose=request.verbose,
            eta=self._eta,
            estimate_usd=prepared.cost.batch_usd,
        )
        self.projector = Projector(batch.store, title=request.manifest.stem, manifest=str(request.manifest))
        observers: list[Observer] = [prepared.log, self._progress, self._eta, self.projector]
        self._feed = None
        if request.serve is not None:
            from pipeline.results.live import Feed

            self._feed = Feed(plan.records)
            observers.append(self._feed)
        self.observer = Observers(*observers)

    async def watch(self, engine: Engine | Cluster) -> tuple[Outcome, ExitCode | None]:
        """Run the engine; return how it ended and the exit code of the signal that ended it, if one did."""
        signals = Signals()
        async with AsyncExitStack() as stack:
            await self._serve(stack)
            if on_github(os.environ) and not self._batch.request.quiet:
                stack.enter_context(group("veobatch: progress", cast("TextIO", Unbreakable(sys.stderr))))
            stack.enter_context(self._progress)
            try:
                async with anyio.create_task_group() as tasks:
                    await tasks.start(signals.listen, engine)
                    tasks.start_soon(self.projector.keep_up, engine.records)
                    tasks.start_soon(self._tick)
                    outcome = await engine.run()
                    tasks.cancel_scope.cancel()
            except ExceptionGroup as several:
                match several.exceptions:
                    case (VeobatchError() as error,):  # a cluster that cannot be joined
                        raise error from None
                raise
        return outcome, signals.exit_code

    async def _tick(self) -> None:
        while True:
            await anyio.sleep(0.5)
            self._progress.tick()

    async def _serve(self, stack: AsyncExitStack) -> None:
        """Serve the live page when asked to; raises `UsageError` when the place is taken."""
        batch = self._batch
        if self._feed is None or batch.request.serve is None:
            return
        from pipeline.results.live import LivePage, parse_bind

        root = None if "://" in batch.place.output else Path(batch.place.output)
        page = LivePage(
            self._feed,
            parse_bind(batch.request.serve),
            title=batch.request.manifest.stem,
            manifest=str(batch.request.manifest),
            root=root,
            eta=self._eta,
        )
        await stack.enter_async_context(page)
        click.echo(f"live page: {page.url}", err=True)
