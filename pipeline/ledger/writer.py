"""The one thread that writes: it commits in one transaction whatever transitions are queued.

It owns group commit and hands the results back to the callers. It must not know SQL.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from pipeline.ledger.backend import LedgerBackend
    from pipeline.ledger.rows import PreparedUpdate

_MAX_GROUP_UPDATES: Final = 4096
"""The most transitions in one commit: under a steady stream, the first caller must not wait for the last."""

_CLOSE_GRACE_S: Final = 10.0
"""How long `close` waits for an unreachable database before it gives up what is queued."""


@dataclass(frozen=True, slots=True)
class _Request:
    """Transitions to commit, or other work to do, and the future of the caller that waits for it."""

    updates: Sequence[PreparedUpdate]
    work: Callable[[], Any] | None
    future: asyncio.Future[Any] | None


_SHUTDOWN: Final = _Request((), None, None)


class GroupCommitWriter:
    """Takes work from one event loop, does it in order, and answers through futures of that loop."""

    def __init__(self, backend: LedgerBackend, loop: asyncio.AbstractEventLoop) -> None:
        self._backend = backend
        self._loop = loop
        self._queue: queue.SimpleQueue[_Request] = queue.SimpleQueue()
        self._next_request: _Request | None = None
        self._closed = False
        # A daemon: a program that ends without closing must not hang; what was reported as committed stays
        # so.
        self._thread = threading.Thread(target=self._run_thread, name="ledger", daemon=True)
        self._thread.start()

    def commit(self, updates: Sequence[PreparedUpdate]) -> asyncio.Future[list[Any]]:
        """Queue transitions; the result has, for each, its record or a `Conflict`."""
        return self._enqueue(updates, None)

    def run(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """Queue any other work; it runs in order with the transitions."""
        return self._enqueue((), work)

    def close(self) -> None:
        """Finish everything queued, then end the thread. Blocks; call it from a worker thread."""
        if not self._closed:
            self._closed = True
            self._queue.put(_SHUTDOWN)
        self._thread.join(_CLOSE_GRACE_S)
        if self._thread.is_alive():
            self._backend.stop_reconnecting()
            self._thread.join()

    def _enqueue(
        self, updates: Sequence[PreparedUpdate], work: Callable[[], Any] | None
    ) -> asyncio.Future[Any]:
        if self._closed:
            raise RuntimeError("the ledger is closed")
        future = self._loop.create_future()
        self._queue.put(_Request(updates, work, future))
        return future

    def _run_thread(self) -> None:
        while requests := self._next_group():
            try:
                results = self._execute(requests)
            except BaseException as error:  # a bug too goes to its callers: here nobody would see it
                results = [error] * len(requests)
            self._deliver(requests, results)

    def _next_group(self) -> list[_Request]:
        """Wait for a request; return it with all transitions queued behind it, or [] to end the thread."""
        first = self._next_request or self._queue.get()
        self._next_request = None
        if first is _SHUTDOWN or first.work is not None:
            return [] if first is _SHUTDOWN else [first]
        group, n_updates = [first], len(first.updates)
        while n_updates < _MAX_GROUP_UPDATES and not self._queue.empty():
            request = self._queue.get()
            if request is _SHUTDOWN or request.work is not None:
                self._next_request = request
                break
            group.append(request)
            n_updates += len(request.updates)
        return group

    def _execute(self, requests: Sequence[_Request]) -> list[Any]:
        if requests[0].work is not None:
            return [requests[0].work()]
        outcomes = iter(self._backend.apply([update for ask in requests for update in ask.updates]))
        return [list(itertools.islice(outcomes, len(ask.updates))) for ask in requests]

    def _deliver(self, requests: Sequence[_Request], results: Sequence[Any]) -> None:
        # The loop has ended, so nobody waits for the results; the commit stands all the same.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_resolve_futures, requests, results)


def _resolve_futures(requests: Sequence[_Request], results: Sequence[Any]) -> None:
    for request, result in zip(requests, results, strict=True):
        if request.future is None or request.future.done():  # done: its caller was cancelled
            continue
        if isinstance(result, BaseException):
            request.future.set_exception(result)
        else:
            request.future.set_result(result)
