"""When each tracked generation stops being waited for. Knows no clock (`now` is handed in)."""

from __future__ import annotations

import heapq
from collections import deque
from math import inf

import anyio


class Deadlines:
    """Deadlines by key, on the run's clock, in the order in which they come.

    Most are set in that order, and then cost no more than their places in two queues; the rest is in a heap.
    """

    def __init__(self) -> None:
        self._by_key: dict[str, float] = {}
        self._keys: deque[str] = deque()
        self._times: deque[float] = deque()
        self._heap: list[tuple[float, str]] = []
        self._changed = anyio.Event()

    def __contains__(self, key: str) -> bool:
        return key in self._by_key

    def set(self, key: str, deadline: float) -> None:
        last = self._times[-1] if self._times else -inf
        if deadline < last:
            heapq.heappush(self._heap, (deadline, key))
        else:
            deadline = last if deadline == last else deadline  # those of an earlier run are all the same
            self._keys.append(key)
            self._times.append(deadline)
        self._by_key[key] = deadline
        self._changed.set()

    def extend(self, key: str, deadline: float) -> None:
        """Set a later deadline for a key that has one."""
        if self._by_key.get(key, deadline) < deadline:
            self.set(key, deadline)

    def remove(self, key: str) -> bool:
        """Forget a key; return whether it had a deadline."""
        return self._by_key.pop(key, None) is not None

    def expire_all(self) -> None:
        """Set every deadline to now."""
        for key in list(self._by_key):
            self.set(key, 0.0)

    def has_passed(self, key: str, now: float) -> bool:
        """Return whether the key has a deadline and it has come."""
        return now >= self._by_key.get(key, inf)

    def pop_due(self, now: float) -> str | None:
        """Return a key whose deadline has come, each once; it keeps its deadline until it is removed."""
        while (deadline := self._next()) <= now:
            if self._heap and self._heap[0][0] == deadline:
                key = heapq.heappop(self._heap)[1]
            else:
                self._times.popleft()
                key = self._keys.popleft()
            if self._by_key.get(key) == deadline:
                return key
        return None

    def _next(self) -> float:
        """Return the earliest deadline, which may have been removed meanwhile; inf when there is none."""
        return min(self._times[0] if self._times else inf, self._heap[0][0] if self._heap else inf)

    async def wait_due(self, now: float) -> None:
        """Wait until the next deadline may have come, or another one was set."""
        self._changed = anyio.Event()
        when = self._next()
        with anyio.move_on_after(None if when == inf else max(0.0, when - now)):
            await self._changed.wait()
