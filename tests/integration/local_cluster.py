"""An account and its workers in one loop, with everything real around them but Ray and the processes."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from pipeline.client import ApiKey
from pipeline.cluster.coordinator import Coordinator
from pipeline.cluster.messages import ClusterConfig, CoordinatorLost
from pipeline.cluster.worker import ClusterWorker
from pipeline.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pipeline.cluster.messages import FinalReport, Heartbeat, HeartbeatReply, StatusSnapshot
    from pipeline.events import Event
    from pipeline.model import Record, State
    from tests.integration.engine_harness import EngineHarness

POLL_INTERVAL_S = 0.02


class LocalCoordinatorClient:
    """The way from one worker to the account, which a test can block or cut."""

    def __init__(self, account: Coordinator) -> None:
        self._coordinator = account
        self._open = anyio.Event()
        self._open.set()
        self.disconnected = False
        self.replies: list[HeartbeatReply] = []

    def block(self) -> None:
        self._open = anyio.Event()

    def unblock(self) -> None:
        self._open.set()

    async def join(self, worker: str) -> dict[str, Any]:
        await self._wait_until_open()
        return await self._coordinator.join(worker)

    async def heartbeat(self, heartbeat: Heartbeat) -> HeartbeatReply:
        await self._wait_until_open()
        self.replies.append(await self._coordinator.heartbeat(heartbeat))
        await self._wait_until_open()
        return self.replies[-1]

    async def leave(self, final_report: FinalReport) -> None:
        await self._wait_until_open()
        await self._coordinator.leave(final_report)

    async def report_event(self, event: Event) -> None:
        await self._wait_until_open()
        await self._coordinator.report_event(event)

    async def _wait_until_open(self) -> None:
        await self._open.wait()
        if self.disconnected:
            raise CoordinatorLost("its process is dead")


@dataclass
class LocalWorker:
    """One worker at work, and what it is called."""

    name: str
    client: LocalCoordinatorClient
    worker: ClusterWorker
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    ended: anyio.Event = field(default_factory=anyio.Event)


class LocalCluster:
    """One reign over the rows of a house: an account, and as many workers as a test hires."""

    def __init__(self, house: EngineHarness, job: ClusterConfig, epoch: tuple[int, frozenset[str]]) -> None:
        self.harness = house
        self.job = job
        self.run_epoch = epoch
        self.epoch, orphans = epoch
        self.coordinator = Coordinator(job, self.epoch, orphans)
        self.workers: list[LocalWorker] = []
        self.snapshots: list[StatusSnapshot] = []

    @asynccontextmanager
    async def running(self, workers: int) -> AsyncIterator[None]:
        """Let `workers` work while the block runs, and be done with it when it ends."""
        await self.coordinator.open()
        async with anyio.create_task_group() as self._tasks:
            for _ in range(workers):
                self.start_worker()
            yield
            for hand in self.workers:
                hand.scope.cancel()
        await self.coordinator.close()

    def start_worker(self) -> LocalWorker:
        """Let one more worker begin."""
        name, line = f"{self.epoch}.{len(self.workers) + 1}", LocalCoordinatorClient(self.coordinator)
        hand = LocalWorker(name, line, ClusterWorker(name, self.job.for_worker(), line))
        self.workers.append(hand)
        self._tasks.start_soon(self._run_worker, hand)
        return hand

    async def _run_worker(self, worker: LocalWorker) -> None:
        with worker.scope, suppress(CoordinatorLost):
            await worker.worker.run()
        worker.ended.set()

    async def kill_worker(self, worker: LocalWorker) -> None:
        """End a worker in the middle of whatever it does, and tell the account."""
        worker.scope.cancel()
        await worker.ended.wait()
        await self.coordinator.worker_died(worker.name)

    async def take_snapshot(self) -> StatusSnapshot:
        """Ask the account how things stand, as the driver does."""
        self.snapshots.append(await self.coordinator.take_snapshot())
        return self.snapshots[-1]

    async def wait_until(self, condition: Callable[[], bool], within_s: float = 600.0) -> None:
        """Keep asking until something is true."""
        with anyio.fail_after(within_s):
            await self.take_snapshot()
            while not condition():
                await anyio.sleep(POLL_INTERVAL_S)
                await self.take_snapshot()

    async def wait_until_done(self, within_s: float = 600.0) -> StatusSnapshot:
        """Wait until nobody works any more and there is nothing to be lent."""
        with anyio.fail_after(within_s):
            while True:
                standing = await self.take_snapshot()
                if not standing.rows_available and not standing.live_workers:
                    return standing
                await anyio.sleep(POLL_INTERVAL_S)

    async def count_states(self) -> dict[State, int]:
        """Count the rows by state, from the ledger."""
        return {state: count for state, count in (await self.harness.ledger.counts()).items() if count}


async def make_local_cluster(
    harness: EngineHarness,
    *,
    lease_s: float = 30.0,
    workers: int = 2,
    price: float | None = None,
    submittable: frozenset[str] | None = None,
    **settings: Any,
) -> LocalCluster:
    """Begin an epoch over what the house's ledger holds; `price` is that of each row, in USD."""
    chosen = Settings(**{"poll_interval": 0.1, "media": False, "concurrency": 4, **settings})
    job = ClusterConfig(
        ledger=str(harness.folder / "ledger.sqlite3"),
        batch="default",
        output=str(harness.folder),
        base_url=harness.sandbox.url,
        api_key=ApiKey("any-key", "AIML_API_KEY"),
        settings=chosen,
        workers=workers,
        lease_s=lease_s,
        assumed_price=price,
        submittable=submittable,
    )
    return LocalCluster(harness, job, await harness.ledger.begin_epoch())


def assert_paid_once(harness: EngineHarness) -> None:
    """Nothing was paid twice, and nobody showed the key to the CDN."""
    prompts = [made.prompt for made in harness.sandbox_state.generations if not made.fails]
    assert len(prompts) == len(set(prompts))
    assert harness.sandbox_state.leaked_keys == []


def total_usd(records: list[Record]) -> float:
    """What the rows have cost, or hold, in USD."""
    return sum(
        record.usd_spent if record.usd_spent is not None else record.reserved_usd or 0.0 for record in records
    )
