"""The first signal asks, the second insists, and the exit code says which signal it was."""

from __future__ import annotations

import os
import signal

import anyio
import pytest

from pipeline.cli.signals import STOPPING_MESSAGE, SignalListener
from pipeline.engine import Engine
from pipeline.errors import ExitCode


class FakeEngine(Engine):
    def __init__(self) -> None:
        self.notices: list[str] = []
        self.changed = anyio.Event()

    def stop(self, reason: str, notice: str) -> None:
        assert "interrupted" in reason
        self.note(notice)

    def cancel(self) -> None:
        self.note("at once")

    def note(self, words: str) -> None:
        self.notices.append(words)
        self.changed.set()
        self.changed = anyio.Event()

    async def send_signal(self, number: signal.Signals) -> None:
        news = self.changed
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
async def test_first_signal_stops_submitting_and_second_cancels(
    first: signal.Signals, second: signal.Signals, code: ExitCode
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    engine, signals = FakeEngine(), SignalListener()
    async with anyio.create_task_group() as tasks:
        await tasks.start(signals.listen, engine)
        await engine.send_signal(first)
        assert engine.notices == [STOPPING_MESSAGE]
        await engine.send_signal(second)
        assert engine.notices == [STOPPING_MESSAGE, "at once"]
        tasks.cancel_scope.cancel()
    assert signals.exit_code is code
    assert signal.getsignal(signal.SIGTERM) == before


async def test_a_run_that_nobody_stopped_has_no_signals_code() -> None:
    signals = SignalListener()
    async with anyio.create_task_group() as tasks:
        await tasks.start(signals.listen, FakeEngine())
        tasks.cancel_scope.cancel()
    assert signals.exit_code is None
