"""A batch as a program holds it; the command `veobatch run` is one of its callers."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

from pipeline.runner.config import configure
from pipeline.runner.execute import execute, stop_before_start
from pipeline.runner.prepare import PreparedRun, prepare, refuse_rewritten

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from pipeline.batch.request import RunRequest
    from pipeline.plan import BatchPlan
    from pipeline.runner.observers import MakeWatcher, RunControl
    from pipeline.runner.summary import RunSummary


class Batch:
    """One run of a manifest's batch."""

    def __init__(self, request: RunRequest) -> None:
        self._config = configure(request)
        self._stack = AsyncExitStack()
        self._prepared: PreparedRun | None = None

    @classmethod
    def of(cls, request: RunRequest) -> Self:
        """Return the batch that a request describes."""
        return cls(request)

    async def __aenter__(self) -> Self:
        self._stack.push_async_callback(self._config.store.aclose)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def prepare(self, on_rewritten: Callable[[BatchPlan], None] = refuse_rewritten) -> PreparedRun:
        """Take the batch's folder, make the plan durable and learn what it costs; submits nothing."""
        if self._prepared is None:
            self._prepared = await prepare(self._stack, self._config, on_rewritten)
        return self._prepared

    async def carry_out(self, control: RunControl, make_watcher: MakeWatcher) -> RunSummary:
        """Do what was prepared; return how it ended."""
        prepared = await self.prepare()
        if prepared.obstacle is not None:
            return await stop_before_start(prepared, prepared.obstacle)
        return await execute(prepared, control, make_watcher)
