"""Return whether an unexpected exception is one row's or the whole run's. Pure: no clock, no IO, no loop."""

from __future__ import annotations

from collections import deque
from typing import Final

MIN_ROWS: Final = 5
"""So many different rows have to fail unexpectedly before their failures can count as the run's."""

RECENT_TASKS: Final = 20
"""How many of the latest tasks of one pool are judged together."""


class CircuitBreaker:
    """The recent tasks of one pool, each a row's key: which succeeded and which raised something unexpected.

    A single row's data costs that row. When `MIN_ROWS` different rows raise, and they are most of the
    recent tasks, the cause is common to them, and going on would only fail the rest in the same way.
    """

    def __init__(self) -> None:
        self._recent: deque[str | None] = deque(maxlen=RECENT_TASKS)

    def on_success(self) -> None:
        """A task ended as it should, whatever its result."""
        self._recent.append(None)

    def on_crash(self, key: str) -> bool:
        """A row's task raised something unexpected. Return whether the run should stop."""
        self._recent.append(key)
        crashed = [one for one in self._recent if one is not None]
        return len(set(crashed)) >= MIN_ROWS and 2 * len(crashed) > len(self._recent)
