"""A driver whose account and workers are tasks of its own loop: all is real but Ray and the processes."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from pipeline.cluster import driver
from pipeline.cluster.coordinator import Account
from pipeline.cluster.driver import Cluster
from pipeline.cluster.messages import AccountLost
from pipeline.cluster.worker import Worker
from pipeline.errors import StopReason, StopRun
from tests.integration.crews import crew
from tests.integration.engines import Spy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    import pytest

    from pipeline.cluster.messages import ClusterJob
    from pipeline.events import Topic
    from pipeline.run_state import Outcome
    from tests.integration.engines import House


class ProcessDied(Exception):
    """What a call to a process that is no more comes to."""


class Way:
    """The way to an account: its methods, until it is `dead`."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.actor = self
        self.dead = False
        self._told: set[asyncio.Task[None]] = set()

    def __getattr__(self, method: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def call(*args: object, **options: object) -> Any:
            await asyncio.sleep(0)
            if self.dead:
                raise AccountLost("its process died")
            result = getattr(self.account, method)(*args, **options)
            return await result if asyncio.iscoroutine(result) else result

        return call

    def tell(self, method: str, *args: object, **options: object) -> None:
        async def call() -> None:
            await getattr(self, method)(*args, **options)

        task = asyncio.ensure_future(call())
        self._told.add(task)
        task.add_done_callback(self._told.discard)


@dataclass
class Process:
    """A worker's process. `die` is what kill -9 would do to it, except that its tasks are told."""

    task: asyncio.Task[None] | None = None
    name: str = ""
    killed: bool = False
    placed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def live(self) -> Process:
        return self

    async def remote(self, name: str, job: ClusterJob, account: Way) -> None:
        self.name = name
        await self.placed.wait()
        self.task = asyncio.ensure_future(Worker(name, job, account).live())
        try:
            await asyncio.shield(self.task)
        except AccountLost:
            return
        except asyncio.CancelledError:
            if not self.task.cancelled():
                raise
            raise ProcessDied("its process died") from None

    def die(self) -> None:
        self.killed = True
        if self.task is not None:
            self.task.cancel()


@dataclass
class Rays:
    """Stands in for the room that knows Ray."""

    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    ways: list[Way] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    gone: bool = False
    full: bool = False
    started: int = 0

    def start(self, address: str | None, workers: int) -> None:
        """There is nothing to join."""
        self.started += 1

    def leave(self) -> None:
        """There is nothing to leave."""

    def reclaim_signals(self) -> None:
        """Nobody took them."""

    def need_ray(self) -> None:
        """Raises `StopRun` when Ray is `gone`."""
        if self.gone:
            raise StopRun(StopReason.UNFINISHED, "the Ray cluster has lost its head")

    def new_account(self, name: str, job: ClusterJob, epoch: int, orphans: frozenset[str]) -> Way:
        self.ways.append(Way(Account(job, epoch, orphans)))
        return self.ways[-1]

    def new_worker(self) -> Process:
        self.processes.append(Process())
        if not self.gone and not self.full:
            self.processes[-1].placed.set()
        return self.processes[-1]

    def end(self, account: Way | None, workers: Sequence[Process]) -> None:
        for process in workers:
            self.loop.call_soon_threadsafe(process.die)
        if account is not None:
            account.dead = True

    def lost(self) -> type[Exception]:
        return ProcessDied

    def words(self, error: Exception) -> str:
        return str(error)


@dataclass
class Driven:
    """A driver over the rows of a house."""

    cluster: Cluster
    rays: Rays
    spy: Spy
    outcome: Outcome = field(init=False)

    @asynccontextmanager
    async def under_way(self, within_s: float = 40.0) -> AsyncIterator[None]:
        """Let it run beside the block, and to its end."""

        async def run() -> None:
            self.outcome = await self.cluster.run()

        with anyio.fail_after(within_s):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run)
                yield

    def told(self, topic: Topic) -> list[str]:
        """Return what was said on a topic."""
        return [event.message for event in self.spy.events if event.topic is topic]


async def driven(
    house: House, monkeypatch: pytest.MonkeyPatch, *, replan: Callable[[], Any] | None = None, **options: Any
) -> Driven:
    """Begin an epoch, then let `replan` change rows as a plan does; return the driver, not yet started."""
    team = await crew(house, **options)
    rays, spy = Rays(), Spy()
    monkeypatch.setattr(driver, "rays", rays)
    if replan is not None:
        await replan()
    cluster = Cluster(await house.ledger.load(), team.job, house.ledger, team.reign, spy, address="auto")
    return Driven(cluster, rays, spy)
