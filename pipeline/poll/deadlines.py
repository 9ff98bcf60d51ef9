"""When each tracked generation stops being waited for. Knows no clock (`now` is handed in)."""

from __future__ import annotations

import heapq
from math import inf

import anyio


class Deadlines:
    """Deadlines by key, on the run's clock, in the order in which they come."""

    def __init__(self) -> None:
        self._by_key: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._changed = anyio.Event()

    def __contains__(self, key: str) -> bool:
        return key in self._by_key

    def set(self, key: str, deadline: float) -> None:
        self._by_key[key] = deadline
        heapq.heappush(self._heap, (deadline, key))
        self._changed.set()

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
        while self._heap and self._heap[0][0] <= now:
            deadline, key = heapq.heappop(self._heap)
            if self._by_key.get(key) == deadline:
                return key
        return None

    async def wait_due(self, now: float) -> None:
        """Wait until the next deadline may have come, or another one was set."""
        self._changed = anyio.Event()
        when = self._heap[0][0] if self._heap else inf
        with anyio.move_on_after(None if when == inf else max(0.0, when - now)):
            await self._changed.wait()
