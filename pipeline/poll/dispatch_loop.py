"""Hands due polls to the workers, no faster than the account allows; what is due is the schedule's to say."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import anyio

from pipeline.poll.deadlines import Deadlines

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectSendStream

    from pipeline.run_context import RunContext


class Dispatcher:
    """Hands out keys to poll. `polling` holds those that a worker has, or will have next."""

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self.deadlines = Deadlines()
        self.polling: set[str] = set()
        self._due_earlier = anyio.Event()
        self._sleeping_until = 0.0

    def wake(self) -> None:
        """Wake the dispatcher when a poll has become due before it meant to wake."""
        due_at = self._run.deps.schedule.next_due()
        if due_at is not None and due_at < self._sleeping_until:
            self._due_earlier.set()

    async def _sleep_until_due(self, now: float, wait_s: float) -> None:
        """Sleep until the next poll is due, or an earlier one is planned."""
        self._due_earlier, self._sleeping_until = anyio.Event(), now + wait_s
        with anyio.move_on_after(None if wait_s == inf else wait_s):
            await self._due_earlier.wait()
        self._sleeping_until = 0.0

    async def dispatch(self, due: MemoryObjectSendStream[str]) -> None:
        """Hand out the generations whose poll is due, as fast as the account takes polls."""
        run, schedule, rate_limit = self._run, self._run.deps.schedule, self._run.deps.rate_limit
        async with due:
            while True:
                now = run.deps.clock()
                due_at = schedule.next_due()
                if due_at is None or due_at > now:
                    await self._sleep_until_due(now, inf if due_at is None else due_at - now)
                elif (delay_s := rate_limit.acquire_delay_s(now)) > 0:
                    # The coordinator may have lent another rate long before a long gap is over.
                    await anyio.sleep(min(delay_s, run.settings.poll_interval))
                elif (key := schedule.pop_due(now)) is not None:
                    self.polling.add(key)
                    await due.send(key)

    async def expire_deadlines(self, due: MemoryObjectSendStream[str]) -> None:
        """Poll each generation once when its deadline comes, whenever its next poll was planned."""
        clock = self._run.deps.clock
        async with due:
            while True:
                key = self.deadlines.pop_due(clock())
                if key is None:
                    await self.deadlines.wait_due(clock())
                elif key not in self.polling and self._run.deps.schedule.take(key):
                    self.polling.add(key)
                    await due.send(key)

    def take_due(self) -> str | None:
        """Take the next generation at once if one is due, without the way over the dispatcher."""
        run, now = self._run, self._run.deps.clock()
        due_at = run.deps.schedule.next_due()
        if due_at is None or due_at > now or run.deps.rate_limit.acquire_delay_s(now) > 0:
            return None
        key = run.deps.schedule.pop_due(now)
        if key is not None:
            self.polling.add(key)
        return key
