"""A batch as a program holds it. The command `veobatch run` is one such program."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Self, Unpack

import anyio

from pipeline.batch.ledger_access import open_read_only_ledger
from pipeline.batch.ownership import check_folder
from pipeline.batch.paths import has_batch
from pipeline.errors import UsageError, VeobatchError
from pipeline.gc_pause import gc_paused
from pipeline.manifest import parse
from pipeline.results.rows import row_of
from pipeline.runner.batch_options import BatchOptions, make_request
from pipeline.runner.config import configure
from pipeline.runner.embedded_sandbox import start_sandbox
from pipeline.runner.event_stream import RunFeed
from pipeline.runner.manifest_loading import cache_dir, file_problem
from pipeline.runner.planning import refuse_rewritten
from pipeline.runner.prepare import PreparedRun, prepare
from pipeline.runner.results import results_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from types import TracebackType

    from pipeline.batch.request import RunRequest
    from pipeline.batch_plan import BatchPlan
    from pipeline.cluster.driver import ClusterDriver
    from pipeline.engine import Engine
    from pipeline.errors import ExitCode
    from pipeline.events import Event, Observer
    from pipeline.model import Record
    from pipeline.poll.eta import EtaEstimator
    from pipeline.results.rows import Row
    from pipeline.runner.batch_options import ManifestLike
    from pipeline.runner.event_stream import RowChanged
    from pipeline.runner.manifest_estimate import Estimate
    from pipeline.runner.observers import MakeWatcher, RunControl
    from pipeline.runner.results import Results
    from pipeline.runner.summary import RunSummary

CLOSE_LIMIT_S: Final = 20.0
"""How long a run that is left early may take: creates learn their outcome, CSV and page are written."""


class Batch:
    """The batch of a manifest: priced, run and read. One run a `Batch`; another `Batch` continues it."""

    def __init__(
        self, manifest: ManifestLike, *, title: str = "batch", **options: Unpack[BatchOptions]
    ) -> None:
        """Read and check `manifest`: a file's path, or rows, which `title` then names (`output/<title>`).

        Blocking; no network is touched and nothing is written. Raises `ManifestError` with every problem, and
        `UsageError` for options that cannot be used and for a key that is missing.
        """
        self._setup(make_request(manifest, title, options))

    @classmethod
    def of(cls, request: RunRequest) -> Self:
        """Return the batch that a request describes, as the command makes it."""
        batch = cls.__new__(cls)
        batch._setup(request)
        return batch

    def _setup(self, request: RunRequest) -> None:
        self._parsed = parse(request.manifest, request.model, request.takes, request.data, file_problem)
        manifest = self._parsed.manifest if self._parsed.other_models else self._parsed.checked()
        self._config = configure(request, manifest)
        self._stack = AsyncExitStack()
        self._tasks: anyio.abc.TaskGroup | None = None
        self._prepared: PreparedRun | None = None
        self._control = _ProgramControl()
        self._ended: anyio.Event | None = None
        self._error: VeobatchError | None = None
        self._summary: RunSummary | None = None

    async def __aenter__(self) -> Self:
        self._stack.push_async_callback(self._config.store.aclose)
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close everything. A run that is still going on is stopped at once, and can be continued."""
        try:
            try:
                await self._end_run()
            except anyio.get_cancelled_exc_class() as again:  # asked twice: the run is waited for no longer
                kind, error, trace = type(again), again, again.__traceback__
                raise
            finally:
                await self._end_tasks(kind, error, trace)
        finally:
            await self._stack.__aexit__(kind, error, trace)

    async def _end_run(self) -> None:
        if self._ended is not None and not self._ended.is_set():
            self.cancel()
            with anyio.move_on_after(CLOSE_LIMIT_S, shield=True):
                await self._ended.wait()

    async def _end_tasks(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = self._tasks
        if tasks is not None and error is not None and not isinstance(error, anyio.get_cancelled_exc_class()):
            # Given the error, the group would raise it wrapped in a group; it goes on as it is instead,
            # a Ctrl-C too: only what it is decides how the command ends.
            tasks.cancel_scope.cancel()
            await tasks.__aexit__(None, None, None)
        elif tasks is not None:
            await tasks.__aexit__(kind, error, trace)

    async def estimate(self) -> Estimate:
        """Return what the manifest will cost, whatever has been run of it already. Spends nothing.

        Raises `VeobatchError` for a key that is refused and an API that cannot be reached.
        """
        config, request = self._config, self._config.request
        if not config.base_url:
            check_folder(
                config.paths, request.manifest, sandbox=request.sandbox, begin_anew=request.begin_anew
            )
            url, _ = await start_sandbox(self._stack, config.paths.folder, request.sandbox_speed)
            self._config = config = replace(config, base_url=url)
        from pipeline.runner.manifest_estimate import estimate_manifest

        cache = None if request.sandbox else cache_dir()
        ways = {**request.environment, **request.flags}
        parsed = await anyio.to_thread.run_sync(self._parsed.again)
        return await estimate_manifest(
            parsed, config.base_url, config.key, cache, ways, sandbox=request.sandbox
        )

    async def prepare(self, on_rewritten: Callable[[BatchPlan], None] | None = None) -> PreparedRun:
        """Take the batch's folder, make the plan durable and learn what it costs; submits nothing.

        What is asked for this once (failed rows, rows in doubt, takes) is durable only once the run begins.
        `on_rewritten` is called for a manifest that seems rewritten throughout, and raises to refuse it, as
        is done without it.
        """
        if self._prepared is None:
            with gc_paused():  # reading the ledger of 100,000 rows takes a third longer with it
                refuse = on_rewritten or refuse_rewritten
                prepared = await prepare(self._stack, self._config, self._parsed, refuse)
            # A hundred thousand rows are 100 MB, and the records say all.
            self._parsed = self._parsed.without_manifest()
            self._prepared = replace(prepared, loaded=prepared.loaded.without_jobs())
            self._config = prepared.config
        return self._prepared

    async def carry_out(self, control: RunControl, make_watcher: MakeWatcher) -> RunSummary:
        """Do what was prepared, and spend what it costs; return how it ended."""
        from pipeline.runner.execute import execute, stop_before_start

        prepared = await self.prepare()
        if prepared.obstacle is not None:
            self._summary = await stop_before_start(prepared, prepared.obstacle)
        else:
            self._summary = await execute(prepared, control, make_watcher)
        return self._summary

    async def run(self, *observers: Observer) -> AsyncIterator[RowChanged | Event]:
        """Submit, poll and download until every row has ended; yield what happens meanwhile.

        Money is spent from here on, at most `max_cost`. `observers` are called at once, in the loop; the
        iteration may lag behind and then skips a row's intermediate states. Breaking out of it does not stop
        the run: `stop`, `cancel` or the end of `async with` do. How it ended is in `results`. Raises
        `VeobatchError` for what keeps a run from starting.
        """
        if self._tasks is None or self._ended is not None:
            raise UsageError("a Batch is run once, inside of `async with`")
        self._ended = ended = anyio.Event()
        try:
            await self.prepare()
        except BaseException:
            ended.set()
            raise
        feed = RunFeed(self._make_row)
        self._tasks.start_soon(self._run_watched, feed, ended, observers)
        async for item in feed:
            yield item
        if self._error is not None:
            raise self._error

    async def _run_watched(self, feed: RunFeed, ended: anyio.Event, observers: Sequence[Observer]) -> None:
        def make_watcher(prepared: PreparedRun, eta: EtaEstimator) -> _Watcher:
            return _Watcher((feed, *observers))

        try:
            await self.carry_out(self._control, make_watcher)
        except VeobatchError as error:
            self._error = error
        finally:
            ended.set()
            feed.close()

    def stop(self) -> None:
        """Submit no more; what is paid for is finished and saved, and the run ends then."""
        self._control.stop()

    def cancel(self) -> None:
        """End the run at once; what is in flight is found again by the next run."""
        self._control.cancel()

    async def results(self) -> Results:
        """Return the rows as they stand now: of this run, or of an earlier one.

        Raises `UsageError` for a batch that was never run.
        """
        sandbox, paths = self._config.request.sandbox, self._config.paths
        if self._summary is not None:
            records: Sequence[Record] = self._summary.outcome.records
        elif self._prepared is not None:
            records = self._prepared.records()
        elif has_batch(paths):
            async with await open_read_only_ledger(paths) as ledger:
                records = await ledger.load()
        else:
            raise UsageError(f"there is no batch at {paths.folder} yet: run it first")
        return results_of(records, paths, sandbox=sandbox, summary=self._summary)

    def _make_row(self, record: Record) -> Row:
        return row_of(record, self._config.paths.output_path, sandbox=self._config.request.sandbox)


class _ProgramControl:
    """Lets a program stop its run: before the engine runs, and while it does."""

    signal_name = ""
    exit_code: ExitCode | None = None

    def __init__(self) -> None:
        self._engine: Engine | ClusterDriver | None = None
        self._wanted = ""

    @property
    def is_stopping(self) -> bool:
        return bool(self._wanted)

    def stop(self) -> None:
        self._wanted = self._wanted or "stop"
        if self._engine is not None:
            self._engine.stop("stopped by the program; the next run goes on", "stopping: no new submissions")

    def cancel(self) -> None:
        self._wanted = "cancel"
        if self._engine is not None:
            self._engine.stop("cancelled by the program; the next run goes on", "stopping at once")
            self._engine.cancel()

    @contextmanager
    def running(self, engine: Engine | ClusterDriver) -> Iterator[None]:
        self._engine = engine
        if self._wanted:
            self.cancel() if self._wanted == "cancel" else self.stop()
        try:
            yield
        finally:
            self._engine = None


class _Watcher:
    """A program's observers; they need no context and nothing from time to time."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self.observers = observers

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        yield

    async def keep_current(self) -> None:
        await anyio.sleep_forever()
