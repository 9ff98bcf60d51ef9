"""The one thread that writes: it commits, in one transaction, whatever steps have gathered.

It owns group commit and the way back to the callers. It must not know SQL.
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

    from pipeline.ledger.backend import Move, Store

_MOST_MOVES: Final = 4096
"""A group ends here, so that no caller waits for the whole of an endless stream of others."""

_GRACE_S: Final = 10.0
"""How long the end waits for a database that is away before the last steps are given up."""


@dataclass(frozen=True, slots=True)
class _Ask:
    """Steps to be made, or else any other work; and who waits for it."""

    moves: Sequence[Move]
    work: Callable[[], Any] | None
    answer: asyncio.Future[Any] | None


_END: Final = _Ask((), None, None)


class Writer:
    """Takes work from one event loop, in order, and answers through futures of that loop."""

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._loop = loop
        self._asked: queue.SimpleQueue[_Ask] = queue.SimpleQueue()
        self._behind: _Ask | None = None
        self._closed = False
        # A daemon: a program that ends without closing must not hang; what it was told is committed, is.
        self._thread = threading.Thread(target=self._serve, name="ledger", daemon=True)
        self._thread.start()

    def move(self, moves: Sequence[Move]) -> asyncio.Future[list[Any]]:
        """Have the steps made; the answer holds, for each, its record or a `Conflict`."""
        return self._ask(moves, None)

    def call(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        """Have any other work done, in its turn."""
        return self._ask((), work)

    def end(self) -> None:
        """Finish everything asked so far, then end the thread. Blocks; call it from a worker thread."""
        if not self._closed:
            self._closed = True
            self._asked.put(_END)
        self._thread.join(_GRACE_S)
        if self._thread.is_alive():
            self._store.give_up()
            self._thread.join()

    def _ask(self, moves: Sequence[Move], work: Callable[[], Any] | None) -> asyncio.Future[Any]:
        if self._closed:
            raise RuntimeError("the ledger is closed")
        answer = self._loop.create_future()
        self._asked.put(_Ask(moves, work, answer))
        return answer

    def _serve(self) -> None:
        while asks := self._gathered():
            try:
                answers = self._made(asks)
            except BaseException as error:  # a bug too must reach those who wait; here nobody would see it
                answers = [error] * len(asks)
            self._send(asks, answers)

    def _gathered(self) -> list[_Ask]:
        """Wait for work; return it with all steps that wait behind it. Nothing means the end."""
        first = self._behind or self._asked.get()
        self._behind = None
        if first is _END or first.work is not None:
            return [] if first is _END else [first]
        group, moves = [first], len(first.moves)
        while moves < _MOST_MOVES and not self._asked.empty():
            ask = self._asked.get()
            if ask is _END or ask.work is not None:
                self._behind = ask
                break
            group.append(ask)
            moves += len(ask.moves)
        return group

    def _made(self, asks: Sequence[_Ask]) -> list[Any]:
        if asks[0].work is not None:
            return [asks[0].work()]
        made = iter(self._store.apply([move for ask in asks for move in ask.moves]))
        return [list(itertools.islice(made, len(ask.moves))) for ask in asks]

    def _send(self, asks: Sequence[_Ask], answers: Sequence[Any]) -> None:
        # A loop that has ended has no one left who waits; the steps are made all the same.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_answer, asks, answers)


def _answer(asks: Sequence[_Ask], answers: Sequence[Any]) -> None:
    for ask, answer in zip(asks, answers, strict=True):
        if ask.answer is None or ask.answer.done():  # done: its caller was cancelled
            continue
        if isinstance(answer, BaseException):
            ask.answer.set_exception(answer)
        else:
            ask.answer.set_result(answer)
