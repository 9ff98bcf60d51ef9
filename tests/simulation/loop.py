"""An event loop whose time is told to it, and whose threads are entries of its own queue.

It keeps asyncio's order of what is ready. What differs from seed to seed is how long everything else takes.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
import itertools
import warnings
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from tests.simulation.machine import Process

_numbers = itertools.count()


def restart_numbers() -> None:
    """Number tasks from the first one again, so that a seed's order does not depend on those before it."""
    global _numbers
    _numbers = itertools.count()


class SimTask(asyncio.Task[Any]):
    """A task that sets order by its number, never by its address."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._number = next(_numbers)
        super().__init__(*args, **options)

    def __hash__(self) -> int:
        return self._number


class SimLoop(asyncio.AbstractEventLoop):
    """The loop of one process, stepped by its world; it has what the package and anyio use of a loop."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.ready: deque[asyncio.Handle] = deque()
        self.timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._order = itertools.count()
        self._tasks: list[SimTask] = []  # keeps what is dead from being collected, and so from cleaning up

    def run_tick(self, limit: int) -> int:
        """Run what is ready, as asyncio does in one iteration, at most `limit` steps; return how many."""
        ready, steps = self.ready, min(len(self.ready), limit)
        for _ in range(steps):
            handle: Any = ready.popleft()
            if not handle._cancelled:
                handle._context.run(handle._callback, *handle._args)
                if not self.process.alive:
                    break
        return steps

    def close_unstarted(self) -> None:
        """Close the coroutines of tasks that no step was left for: nothing of them has run."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # that what is in them was never awaited
            for task in self._tasks:
                coroutine: Any = task.get_coro()
                if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                    coroutine.close()

    def next_timer(self) -> float | None:
        """Return the loop's time at which its next timer is due."""
        timers: list[Any] = self.timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        return timers[0][0] if timers else None

    def release_due(self, now: float) -> None:
        """Make ready whatever is due at `now`."""
        timers: list[Any] = self.timers
        while timers and timers[0][0] <= now:
            handle = heapq.heappop(timers)[2]
            if not handle._cancelled:
                self.ready.append(handle)

    def time(self) -> float:
        return self.process.machine.monotonic()

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self.ready.append(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self.timers, (when, next(self._order), handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Leave it in the heap: it is dropped when its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Context | None = None, **_: Any
    ) -> asyncio.Task[Any]:
        task = SimTask(coro, loop=self, name=name or "task", context=context)
        self._tasks.append(task)
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run `func` as a thread would: later, in one piece, whatever becomes of its caller."""
        return self.process.run_in_thread(func, args)

    def get_task_factory(self) -> None:
        return None

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self.process.alive

    def is_closed(self) -> bool:
        return not self.process.alive

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.process.on_loop_error(context)
