"""Ctrl-C, SIGTERM and a closed terminal: the first finishes what is paid, the second stops at once.

Signals are noticed by a thread of their own, woken through a pipe, since the main thread may be stuck in a
call that never returns. Whatever is stuck, the process is gone `EXIT_LIMIT_S` after the second signal: the
ledger is safe at any moment, its lock falls with the process, and what is in flight is found again.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import threading
from contextlib import contextmanager, suppress
from math import inf
from typing import TYPE_CHECKING, Final, NoReturn

from pipeline import clocks
from pipeline.errors import ExitCode

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator
    from types import FrameType

    import anyio

    from pipeline.cluster.driver import ClusterDriver
    from pipeline.engine import Engine

EXIT_LIMIT_S: Final = 4.5
"""How long the process may still take once it has to stop at once; 5 s are promised."""

RESULTS_LIMIT_S: Final = 20.0
"""How long results.csv and the page may still take when the first signal comes after the last row."""

STOPPING_MESSAGE: Final = (
    "stopping: no new submissions; finishing what is in flight (once more to stop at once)"
)
HANGUP_MESSAGE: Final = "the terminal was closed: no new submissions; finishing what is in flight"
AT_ONCE_MESSAGE: Final = b"veobatch: stopped at once; the same command goes on from here\n"
FAREWELL_LIMIT_S: Final = 0.2

_NAMES: Final = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
"""SIGHUP is POSIX's; SIGBREAK is what Windows has for a console that asks a program to end."""

_NUMBERS: Final = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))


class Interrupted(KeyboardInterrupt):
    """A signal came while nothing was in flight."""

    def __init__(self, exit_code: ExitCode) -> None:
        super().__init__()
        self.exit_code = exit_code


class SignalGuard:
    """Turns signals into what the present phase of the command does about them.

    Outside of a loop, and where the user is asked something, the first one raises `Interrupted` in the main
    thread. `cancelling` cancels a scope, `running` stops the engine; elsewhere the command ends by itself.
    """

    def __init__(self, exit_process: Callable[[int], object] = os._exit) -> None:
        self._exit_process = exit_process
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scope: anyio.CancelScope | None = None
        self._engine: Engine | ClusterDriver | None = None
        self._engine_limit_s = EXIT_LIMIT_S
        self._interruptible = True
        self._count = 0
        self._exit_at = inf
        self._wakeups: list[socket.socket] = []
        self.signal_name = ""
        self.exit_code: ExitCode | None = None

    def install(self) -> None:
        """Take the signals over, for as long as the process lives; to be called in the main thread.

        A signal that is ignored stays so: `nohup` and shells' background jobs rely on it.
        """
        receiver, sender = socket.socketpair()  # Windows selects sockets alone
        sender.setblocking(False)
        self._wakeups += [receiver, sender]
        signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        for number in _NUMBERS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_main_thread)
        threading.Thread(target=self._watch, name="signals", daemon=True).start()

    def enter_loop(self) -> None:
        """From here on signals reach this event loop and no longer raise in the main thread."""
        import asyncio  # not before a run: `--help` needs none of it

        self._loop = asyncio.get_running_loop()
        self._interruptible = False

    @contextmanager
    def asking(self) -> Iterator[None]:
        """While the user is asked something, a signal is raised in the main thread: the loop stands still."""
        before, self._interruptible = self._interruptible, True
        try:
            yield
        finally:
            self._interruptible = before

    @contextmanager
    def cancelling(self, scope: anyio.CancelScope) -> Iterator[None]:
        """While nothing is in flight, the first signal cancels `scope`."""
        self._scope = scope
        if self._count:
            scope.cancel()
        try:
            yield
        finally:
            self._scope = None

    @contextmanager
    def running(self, engine: Engine | ClusterDriver, *, limit_s: float = EXIT_LIMIT_S) -> Iterator[None]:
        """While `engine` runs, the first signal stops it gently, the second within `limit_s` seconds."""
        self._engine, self._engine_limit_s = engine, limit_s
        if self._count == 1:
            self._exit_at = inf
            self._stop_engine()
        try:
            yield
        finally:
            self._engine = None

    def on_signal(self, number: int) -> None:
        """Act on one more signal. Further ones than the second change nothing. Called in any thread."""
        self._count += 1
        if self._count == 1:
            self.signal_name = signal.Signals(number).name
            self.exit_code = ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.TERMINATED
            if self._engine is None:
                idle = self._interruptible or self._scope is not None
                self._exit_at = clocks.monotonic() + (EXIT_LIMIT_S if idle else RESULTS_LIMIT_S)
            self._call_in_loop(self._stop)
        elif self._count == 2:
            limit_s = self._engine_limit_s if self._engine is not None else EXIT_LIMIT_S
            self._exit_at = min(self._exit_at, clocks.monotonic() + limit_s)
            self._call_in_loop(self._cancel)

    def leave(self, code: int) -> NoReturn:
        """End the process with `code`; after a signal without waiting for threads that may be stuck."""
        if self._count:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            self._exit_process(code)
        gc.freeze()  # searching all that was ever imported for cycles takes a twentieth of a second
        sys.exit(code)

    def _on_main_thread(self, number: int, _: FrameType | None) -> None:
        """Python's own handler: only a first signal that finds nothing in flight raises."""
        if self._interruptible:
            self._interruptible = False
            raise Interrupted(ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.TERMINATED)

    def _call_in_loop(self, call: Callable[[], None]) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nothing is left to stop
                self._loop.call_soon_threadsafe(call)

    def _stop(self) -> None:
        if self._engine is not None:
            self._stop_engine()
        elif self._scope is not None:
            self._scope.cancel()

    def _stop_engine(self) -> None:
        if self._engine is not None:
            notice = HANGUP_MESSAGE if self.signal_name == "SIGHUP" else STOPPING_MESSAGE
            self._engine.stop(f"interrupted ({self.signal_name}); the next run goes on", notice)

    def _cancel(self) -> None:
        if self._engine is not None:
            self._engine.cancel()
        elif self._scope is not None:
            self._scope.cancel()

    def _watch(self) -> None:
        """Read the numbers of the signals that have come, until the process has to be gone."""
        while True:
            remaining_s = self._exit_at - clocks.monotonic()
            if remaining_s <= 0:
                self._exit_now()
                return
            ready, _, _ = select.select(
                self._wakeups[:1], [], [], None if remaining_s == inf else remaining_s
            )
            for number in b"".join(wakeup.recv(64) for wakeup in ready):
                if number in _NUMBERS:
                    self.on_signal(number)

    def _exit_now(self) -> None:
        """End the process, whatever its threads do. Not even the last line may block that."""
        line = threading.Thread(target=os.write, args=(2, AT_ONCE_MESSAGE), daemon=True)
        line.start()
        line.join(FAREWELL_LIMIT_S)
        self._exit_process(int(self.exit_code or ExitCode.INTERRUPTED))


_current = SignalGuard()


def current() -> SignalGuard:
    """Return the guard of this process; it is idle until the command installs it."""
    return _current
