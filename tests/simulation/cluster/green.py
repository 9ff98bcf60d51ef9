"""Threads that may wait, as greenlets of the process whose step it is.

A ledger's threads wait for a database, for work and for each other. Each runs until it waits; the process's
loop resumes it. Nobody resumes those of a process that is dead.
"""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]

from tests.simulation import scheduler
from tests.simulation.machine import Process

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


def spawn(work: Callable[[], object]) -> None:
    """Start a thread of the running process at once, until it first waits."""
    scheduler.running().loop.call_soon(begin, work)


def begin(work: Callable[[], object]) -> None:
    """Run `work` in a thread of its own, from a callback of the process's loop."""
    thread = greenlet(work)
    _threads(scheduler.running()).append(thread)
    thread.switch()


def _threads(process: Process) -> list[greenlet]:
    """What is dead is kept, so that it does not clean up after itself."""
    kept: list[greenlet] = process.__dict__.setdefault("threads", [])
    if len(kept) > 100:
        kept[:] = [thread for thread in kept if not thread.dead]
    return kept


class Wait:
    """One thread's wait, ended once: by `wake` or when its time is over."""

    def __init__(self) -> None:
        self._thread, self._loop = getcurrent(), scheduler.running().loop
        self._timer: asyncio.TimerHandle | None = None
        self.woken = False

    def wake(self, after_s: float = 0.0) -> None:
        """Let the thread go on, from a callback of its loop."""
        if not self.woken:
            self.woken = True
            if self._timer is not None:
                self._timer.cancel()
            self._loop.call_later(after_s, self._thread.switch)

    def __call__(self, timeout_s: float | None = None) -> bool:
        """Wait; return whether somebody woke the thread."""
        if timeout_s is not None:
            self._timer = self._loop.call_later(timeout_s, self._thread.switch)
        hub = self._thread.parent
        if hub is None:
            raise RuntimeError("only a thread may wait")
        hub.switch()
        ended, self.woken = self.woken, True
        return ended


def pause(seconds: float) -> None:
    """Stand in for `time.sleep`."""
    Wait()(seconds)


class GreenEvent:
    """Stand in for `threading.Event`."""

    def __init__(self) -> None:
        self._set = False
        self._waits: list[Wait] = []

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        while self._waits:
            self._waits.pop(0).wake()

    def wait(self, timeout: float | None = None) -> bool:
        if not self._set and timeout != 0:
            self._waits.append(wait := Wait())
            wait(timeout)
        return self._set


class GreenLock:
    """Stand in for `threading.Lock`."""

    def __init__(self) -> None:
        self._held = False
        self._waits: deque[Wait] = deque()

    def __enter__(self) -> None:
        while self._held:
            self._waits.append(wait := Wait())
            wait()
        self._held = True

    def __exit__(self, *_: object) -> None:
        self._held = False
        if self._waits:
            self._waits.popleft().wake()


class GreenQueue:
    """Stand in for `queue.SimpleQueue` with one reader, who wakes a moment after something was put in."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._reader: Wait | None = None
        process = scheduler.running()
        self._chance, self._lags = process.world.chance, process.world.chance.stream(f"q {process.number}")

    def empty(self) -> bool:
        return not self._items

    def put(self, item: Any) -> None:
        self._items.append(item)
        if self._reader is not None:
            late = self._chance.draw("commit delay")
            self._reader.wake((2.0 if late else 0.004) * self._lags.random())
            self._reader = None

    def get(self) -> Any:
        while not self._items:
            self._reader = Wait()
            self._reader()
        return self._items.popleft()


class GreenThread:
    """Stand in for `threading.Thread`."""

    def __init__(self, *, target: Callable[[], object], name: str, daemon: bool) -> None:
        self._target, self._ended = target, GreenEvent()

    def start(self) -> None:
        spawn(self._run)

    def _run(self) -> None:
        self._target()
        self._ended.set()

    def join(self, timeout: float | None = None) -> None:
        self._ended.wait(timeout)

    def is_alive(self) -> bool:
        return not self._ended.is_set()


THREADING = SimpleNamespace(Event=GreenEvent, Lock=GreenLock, Thread=GreenThread)
QUEUE = SimpleNamespace(SimpleQueue=GreenQueue)
TIME = SimpleNamespace(sleep=pause)


class GreenProcess(Process):
    """A process whose threads may wait."""

    def _run_job(self, future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
        begin(lambda: super(GreenProcess, self)._run_job(future, func, args))
