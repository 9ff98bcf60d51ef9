"""A driver whose account and workers are tasks of its own loop: all is real but Ray and the processes."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from pipeline.batch.one_time_requests import OneTimeRequests
from pipeline.cluster import driver
from pipeline.cluster.coordinator import Coordinator
from pipeline.cluster.driver import ClusterDriver
from pipeline.cluster.messages import CoordinatorLost
from pipeline.cluster.worker import ClusterWorker
from pipeline.errors import StopReason, StopRun
from tests.integration.engine_harness import RecordingObserver
from tests.integration.local_cluster import make_local_cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    import pytest

    from pipeline.cluster.messages import ClusterConfig
    from pipeline.events import Topic
    from pipeline.model import Record
    from pipeline.run_state import RunOutcome
    from tests.integration.engine_harness import EngineHarness


class WorkerProcessDied(Exception):
    """What a call to a process that is no more comes to."""


class FakeCoordinatorHandle:
    """The way to an account: its methods, until it is `dead`."""

    def __init__(self, account: Coordinator) -> None:
        self.coordinator = account
        self.actor = self
        self.dead = False
        self._sent: set[asyncio.Task[None]] = set()

    def __getattr__(self, method: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def call(*args: object, **options: object) -> Any:
            await asyncio.sleep(0)
            if self.dead:
                raise CoordinatorLost("its process died")
            result = getattr(self.coordinator, method)(*args, **options)
            return await result if asyncio.iscoroutine(result) else result

        return call

    def call_nowait(self, method: str, *args: object, **options: object) -> None:
        async def call() -> None:
            await getattr(self, method)(*args, **options)

        task = asyncio.ensure_future(call())
        self._sent.add(task)
        task.add_done_callback(self._sent.discard)


@dataclass
class FakeWorkerProcess:
    """A worker's process. `die` is what kill -9 would do to it, except that its tasks are told."""

    task: asyncio.Task[None] | None = None
    name: str = ""
    killed: bool = False
    placed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def run(self) -> FakeWorkerProcess:
        return self

    async def remote(self, name: str, job: ClusterConfig, account: FakeCoordinatorHandle) -> None:
        self.name = name
        await self.placed.wait()
        self.task = asyncio.ensure_future(ClusterWorker(name, job, account).run())
        try:
            await asyncio.shield(self.task)
        except CoordinatorLost:
            return
        except asyncio.CancelledError:
            if not self.task.cancelled():
                raise
            raise WorkerProcessDied("its process died") from None

    def kill(self) -> None:
        self.killed = True
        if self.task is not None:
            self.task.cancel()


@dataclass
class FakeRayBackend:
    """Stands in for the room that knows Ray."""

    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    coordinators: list[FakeCoordinatorHandle] = field(default_factory=list)
    processes: list[FakeWorkerProcess] = field(default_factory=list)
    cluster_lost: bool = False
    has_no_room: bool = False
    start_calls: int = 0

    def start_or_join(self, address: str | None, workers: int) -> None:
        """There is nothing to join."""
        self.start_calls += 1

    def shutdown(self) -> None:
        """There is nothing to leave."""

    def reclaim_signals(self) -> None:
        """Nobody took them."""

    def require_ray(self) -> None:
        """Raises `StopRun` when Ray is `gone`."""
        if self.cluster_lost:
            raise StopRun(StopReason.UNFINISHED, "the Ray cluster has lost its head")

    def start_coordinator(
        self, name: str, job: ClusterConfig, epoch: int, orphans: frozenset[str]
    ) -> FakeCoordinatorHandle:
        self.coordinators.append(FakeCoordinatorHandle(Coordinator(job, epoch, orphans)))
        return self.coordinators[-1]

    def start_worker(self) -> FakeWorkerProcess:
        self.processes.append(FakeWorkerProcess())
        if not self.cluster_lost and not self.has_no_room:
            self.processes[-1].placed.set()
        return self.processes[-1]

    def kill(self, account: FakeCoordinatorHandle | None, workers: Sequence[FakeWorkerProcess]) -> None:
        for process in workers:
            self.loop.call_soon_threadsafe(process.kill)
        if account is not None:
            account.dead = True

    def actor_error_type(self) -> type[Exception]:
        return WorkerProcessDied

    def error_summary(self, error: Exception) -> str:
        return str(error)


@dataclass
class DriverHarness:
    """A driver over the rows of a house."""

    cluster: ClusterDriver
    ray_backend: FakeRayBackend
    spy: RecordingObserver
    outcome: RunOutcome = field(init=False)

    @asynccontextmanager
    async def running(self, within_s: float = 600.0) -> AsyncIterator[None]:
        """Let it run beside the block, and to its end."""

        async def run() -> None:
            self.outcome = await self.cluster.run()

        with anyio.fail_after(within_s):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run)
                yield

    def messages(self, topic: Topic) -> list[str]:
        """Return what was said on a topic."""
        return [event.message for event in self.spy.events if event.topic is topic]


async def make_driver(
    harness: EngineHarness,
    monkeypatch: pytest.MonkeyPatch,
    *,
    requeues: Sequence[tuple[Record, Record]] = (),
    **options: Any,
) -> DriverHarness:
    """Begin an epoch; return a driver, not yet started, that will commit `requeues` once it has joined."""
    team = await make_local_cluster(harness, **options)
    rays, spy = FakeRayBackend(), RecordingObserver()
    monkeypatch.setattr(driver, "ray_backend", rays)
    monkeypatch.setattr(driver, "ray_client", rays)
    again, ledger = {after.key: after for _, after in requeues}, harness.ledger
    records = [again.get(record.key, record) for record in await ledger.load()]
    begin = partial(OneTimeRequests(tuple(requeues)).commit, ledger)
    cluster = ClusterDriver(records, team.job, ledger, team.run_epoch, spy, address="auto", on_joined=begin)
    return DriverHarness(cluster, rays, spy)
