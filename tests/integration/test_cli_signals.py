"""The first signal asks, the second insists, and the exit code says which signal it was."""

from __future__ import annotations

import os
import signal

import anyio
import pytest

from pipeline.cli.signals import HOW_TO_STOP, Signals
from pipeline.engine import Engine
from pipeline.errors import ExitCode


class Heard(Engine):
    def __init__(self) -> None:
        self.words: list[str] = []
        self.news = anyio.Event()

    def stop(self, reason: str, notice: str) -> None:
        assert "interrupted" in reason
        self.note(notice)

    def abandon(self) -> None:
        self.note("at once")

    def note(self, words: str) -> None:
        self.words.append(words)
        self.news.set()
        self.news = anyio.Event()

    async def next(self, number: signal.Signals) -> None:
        news = self.news
        os.kill(os.getpid(), number)
        with anyio.fail_after(30):
            await news.wait()


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        (signal.SIGINT, signal.SIGINT, ExitCode.INTERRUPTED),
        (signal.SIGTERM, signal.SIGTERM, ExitCode.TERMINATED),
        (signal.SIGINT, signal.SIGTERM, ExitCode.INTERRUPTED),
        (signal.SIGTERM, signal.SIGINT, ExitCode.TERMINATED),
    ],
)
async def test_the_first_signal_asks_and_the_second_insists(
    first: signal.Signals, second: signal.Signals, code: ExitCode
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    engine, signals = Heard(), Signals()
    async with anyio.create_task_group() as tasks:
        await tasks.start(signals.listen, engine)
        await engine.next(first)
        assert engine.words == [HOW_TO_STOP]
        await engine.next(second)
        assert engine.words == [HOW_TO_STOP, "at once"]
        tasks.cancel_scope.cancel()
    assert signals.exit_code is code
    assert signal.getsignal(signal.SIGTERM) == before


async def test_a_run_that_nobody_stopped_has_no_signals_code() -> None:
    signals = Signals()
    async with anyio.create_task_group() as tasks:
        await tasks.start(signals.listen, Heard())
        tasks.cancel_scope.cancel()
    assert signals.exit_code is None
