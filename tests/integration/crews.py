"""An account and its workers in one loop, with everything real around them but Ray and the processes."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from pipeline.client import ApiKey
from pipeline.cluster.coordinator import Account
from pipeline.cluster.messages import AccountLost, ClusterJob
from pipeline.cluster.worker import Worker
from pipeline.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pipeline.cluster.messages import Leaving, Reply, Report, Standing
    from pipeline.events import Event
    from pipeline.model import Record, State
    from tests.integration.engines import House

BEAT_S = 0.02


class Line:
    """The way from one worker to the account, which a test can block or cut."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._open = anyio.Event()
        self._open.set()
        self.cut = False
        self.replies: list[Reply] = []

    def block(self) -> None:
        self._open = anyio.Event()

    def unblock(self) -> None:
        self._open.set()

    async def join(self, worker: str) -> dict[str, Any]:
        await self._pass()
        return await self._account.join(worker)

    async def exchange(self, report: Report) -> Reply:
        await self._pass()
        self.replies.append(await self._account.exchange(report))
        await self._pass()
        return self.replies[-1]

    async def leave(self, leaving: Leaving) -> None:
        await self._pass()
        await self._account.leave(leaving)

    async def say(self, event: Event) -> None:
        await self._pass()
        await self._account.say(event)

    async def _pass(self) -> None:
        await self._open.wait()
        if self.cut:
            raise AccountLost("its process is dead")


@dataclass
class Hand:
    """One worker at work, and what it is called."""

    name: str
    line: Line
    worker: Worker
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    ended: anyio.Event = field(default_factory=anyio.Event)


class Crew:
    """One reign over the rows of a house: an account, and as many workers as a test hires."""

    def __init__(self, house: House, job: ClusterJob, epoch: tuple[int, frozenset[str]]) -> None:
        self.house = house
        self.job = job
        self.reign = epoch
        self.epoch, orphans = epoch
        self.account = Account(job, self.epoch, orphans)
        self.hands: list[Hand] = []
        self.seen: list[Standing] = []

    @asynccontextmanager
    async def at_work(self, workers: int) -> AsyncIterator[None]:
        """Let `workers` work while the block runs, and be done with it when it ends."""
        await self.account.begin()
        async with anyio.create_task_group() as self._tasks:
            for _ in range(workers):
                self.hire()
            yield
            for hand in self.hands:
                hand.scope.cancel()
        await self.account.end()

    def hire(self) -> Hand:
        """Let one more worker begin."""
        name, line = f"{self.epoch}.{len(self.hands) + 1}", Line(self.account)
        hand = Hand(name, line, Worker(name, self.job.for_a_worker(), line))
        self.hands.append(hand)
        self._tasks.start_soon(self._live, hand)
        return hand

    async def _live(self, hand: Hand) -> None:
        with hand.scope, suppress(AccountLost):
            await hand.worker.live()
        hand.ended.set()

    async def dismiss(self, hand: Hand) -> None:
        """End a worker in the middle of whatever it does, and tell the account."""
        hand.scope.cancel()
        await hand.ended.wait()
        await self.account.gone(hand.name)

    async def look(self) -> Standing:
        """Ask the account how things stand, as the driver does."""
        self.seen.append(await self.account.standing())
        return self.seen[-1]

    async def until(self, true: Callable[[], bool], within_s: float = 30.0) -> None:
        """Keep asking until something is true."""
        with anyio.fail_after(within_s):
            await self.look()
            while not true():
                await anyio.sleep(BEAT_S)
                await self.look()

    async def until_done(self, within_s: float = 40.0) -> Standing:
        """Wait until nobody works any more and there is nothing to be lent."""
        with anyio.fail_after(within_s):
            while True:
                standing = await self.look()
                if not standing.waiting and not standing.working:
                    return standing
                await anyio.sleep(BEAT_S)

    async def states(self) -> dict[State, int]:
        """Count the rows by state, from the ledger."""
        return {state: count for state, count in (await self.house.ledger.counts()).items() if count}


async def crew(
    house: House, *, lease_s: float = 30.0, workers: int = 2, price: float | None = None, **settings: Any
) -> Crew:
    """Begin an epoch over what the house's ledger holds; `price` is that of each row, in USD."""
    chosen = Settings(**{"poll_interval": 0.1, "media": False, "concurrency": 4, **settings})
    job = ClusterJob(
        ledger=str(house.folder / "ledger.sqlite3"),
        batch="default",
        output=str(house.folder),
        base_url=house.box.url,
        key=ApiKey("any-key", "AIML_API_KEY"),
        settings=chosen,
        workers=workers,
        lease_s=lease_s,
        assumed_price=price,
    )
    return Crew(house, job, await house.ledger.begin_epoch())


def paid_once(house: House) -> None:
    """Nothing was paid twice, and nobody showed the key to the CDN."""
    prompts = [made.prompt for made in house.book.generations if not made.fails]
    assert len(prompts) == len(set(prompts))
    assert house.book.leaked_keys == []


def spent(records: list[Record]) -> float:
    """What the rows have cost, or hold, in USD."""
    return sum(
        record.usd_spent if record.usd_spent is not None else record.reserved_usd or 0.0 for record in records
    )
