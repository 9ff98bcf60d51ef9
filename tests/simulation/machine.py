"""A simulated machine and the processes on it: their clocks, their threads, and how they die."""

from __future__ import annotations

import signal
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.disk import Disk
from tests.simulation.loop import SimLoop

if TYPE_CHECKING:
    import asyncio
    import sqlite3
    from collections.abc import Callable, Coroutine
    from random import Random

    from pipeline.cli.signals import SignalGuard
    from tests.simulation.world import World

EPOCH: Final = 1_790_000_000.0
"""The world's first moment, seconds since the epoch."""

THREADS: Final = 8


class Killed(BaseException):
    """The process ends here; nothing of it runs any more."""


class Machine:
    """One machine: its disk, its clocks, the locks that its kernel keeps, and the user's state folder."""

    def __init__(self, world: World, name: str = "machine1") -> None:
        self.world, self.name = world, name
        self.disk = Disk(world)
        self.disk.put_folder("/batch")
        self.boots = 1
        self.suspended_s = 0.0
        self.clock_error_s = 0.0
        self.asleep = False
        self.lock_holder: Process | None = None
        self.state: dict[str, bytes] = {}
        self.database: sqlite3.Connection | None = None

    def monotonic(self) -> float:
        """CLOCK_MONOTONIC of Linux: it stands still while the machine is suspended."""
        return self.world.now - self.suspended_s

    def wall(self) -> float:
        return EPOCH + self.world.now + self.clock_error_s


class Process:
    """One process: a loop, threads, and the randomness that it is given."""

    def __init__(self, world: World, machine: Machine, number: int) -> None:
        self.world, self.machine, self.number = world, machine, number
        self.pid = 1000 + number
        self.alive, self.stopped = True, False
        self.loop = SimLoop(self)  # type: ignore[abstract]
        self.random: Random = world.chance.stream(f"process {number}")
        self._lags = world.chance.stream(f"threads {number}")
        self._busy = 0
        self._waiting: deque[tuple[asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]]] = deque()
        self.main: asyncio.Task[Any] | None = None
        self.guard: SignalGuard | None = None
        self.die_after: int | None = None
        self.interrupt_after: int | None = None
        self.interrupts = 0
        self.ended_at = inf
        self.committed_at = -inf

    def start(self, main: Coroutine[Any, Any, Any]) -> None:
        self.main = self.loop.create_task(main, name="main")

    def run_in_thread(self, func: Callable[..., Any], args: tuple[Any, ...]) -> asyncio.Future[Any]:
        """Run `func(*args)` in one of the process's threads; the future holds what comes of it."""
        future = self.loop.create_future()
        self._waiting.append((future, func, args))
        self._dispatch()
        return future

    def _dispatch(self) -> None:
        while self._waiting and self._busy < THREADS:
            self._busy += 1
            job = self._waiting.popleft()
            late = self.world.chance.draw("thread")
            delay = self._lags.random() * 3.0 if late else self._lags.random() * 0.002
            if delay < 0.001:
                self.loop.call_soon(self._run_job, *job)
            else:
                self.loop.call_later(delay, self._run_job, *job)

    def _run_job(self, future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._busy -= 1
        try:
            result = func(*args)
        except Killed:
            raise
        except BaseException as error:
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(result)
        if self._waiting:
            self._dispatch()

    def interrupt(self) -> None:
        """Press Ctrl-C: what the guard's own thread would do happens in the process's next steps."""
        if self.guard is not None and self.alive:
            self.loop.call_soon(self._on_interrupt, self.guard)

    def _on_interrupt(self, guard: SignalGuard) -> None:
        guard.on_signal(signal.SIGINT)
        self._exit_in_time(guard)

    def _exit_in_time(self, guard: SignalGuard) -> None:
        """End the process when the guard's time is up, whatever it is doing."""
        rest_s = guard._exit_at - self.machine.monotonic()
        if rest_s <= 1e-6:
            self.alive = False
        elif rest_s < inf:
            self.loop.call_later(rest_s, self._exit_in_time, guard)

    def on_loop_error(self, context: dict[str, Any]) -> None:
        """A callback raised, or an exception of a task was never taken: a bug, unless the process is dead."""
        if self.alive:
            self.world.violated("unexpected error in the loop", repr(context.get("exception") or context))
