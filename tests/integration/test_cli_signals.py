"""The first signal asks, the second insists, and nothing that hangs keeps the process."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

import anyio
import pytest

from pipeline.cli import signals
from pipeline.cli.signals import HANGUP_MESSAGE, STOPPING_MESSAGE, Interrupted, SignalGuard
from pipeline.engine import Engine
from pipeline.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence


class FakeEngine(Engine):
    def __init__(self) -> None:
        self.notices: list[str] = []

    def stop(self, reason: str, notice: str) -> None:
        assert "interrupted" in reason
        self.notices.append(notice)

    def cancel(self) -> None:
        self.notices.append("at once")


async def send(guard: SignalGuard, *numbers: signal.Signals) -> None:
    for number in numbers:
        guard.on_signal(number)
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("numbers", "notices", "code"),
    [
        ((signal.SIGINT,), [STOPPING_MESSAGE], ExitCode.INTERRUPTED),
        ((signal.SIGTERM,), [STOPPING_MESSAGE], ExitCode.TERMINATED),
        ((signal.SIGHUP,), [HANGUP_MESSAGE], ExitCode.TERMINATED),
        ((signal.SIGINT, signal.SIGTERM), [STOPPING_MESSAGE, "at once"], ExitCode.INTERRUPTED),
        ((signal.SIGTERM, signal.SIGINT), [STOPPING_MESSAGE, "at once"], ExitCode.TERMINATED),
        ((signal.SIGINT,) * 9, [STOPPING_MESSAGE, "at once"], ExitCode.INTERRUPTED),
    ],
)
async def test_the_first_stops_submitting_the_second_cancels_and_further_ones_do_nothing(
    numbers: Sequence[signal.Signals], notices: list[str], code: ExitCode
) -> None:
    engine, guard = FakeEngine(), SignalGuard()
    guard.enter_loop()
    with guard.running(engine):
        await send(guard, *numbers)
    assert engine.notices == notices
    assert guard.exit_code is code


async def test_a_run_that_nobody_stopped_has_no_signals_code() -> None:
    guard = SignalGuard()
    guard.enter_loop()
    with guard.running(FakeEngine()):
        pass
    assert guard.exit_code is None


async def test_before_the_run_the_first_signal_cancels_what_prepares_it() -> None:
    guard = SignalGuard()
    guard.enter_loop()
    with anyio.CancelScope() as scope, guard.cancelling(scope):
        guard.on_signal(signal.SIGTERM)
        await anyio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_signal_between_two_phases_is_not_lost() -> None:
    guard, engine = SignalGuard(), FakeEngine()
    guard.enter_loop()
    await send(guard, signal.SIGINT)
    with guard.running(engine):
        assert engine.notices == [STOPPING_MESSAGE]
    with anyio.CancelScope() as scope, guard.cancelling(scope):
        await anyio.sleep_forever()
    assert scope.cancelled_caught


def test_where_nothing_is_in_flight_the_main_thread_is_interrupted_once() -> None:
    guard = SignalGuard()
    with pytest.raises(Interrupted) as raised:
        guard._on_main_thread(signal.SIGTERM, None)
    assert raised.value.exit_code is ExitCode.TERMINATED
    guard._on_main_thread(signal.SIGTERM, None)


def test_the_process_is_ended_whatever_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "EXIT_LIMIT_S", 0.05)
    codes: list[int] = []
    guard = SignalGuard(codes.append)
    guard.on_signal(signal.SIGINT)
    guard.on_signal(signal.SIGINT)
    watcher = threading.Thread(target=guard._watch)
    watcher.start()
    watcher.join(30)
    assert codes == [ExitCode.INTERRUPTED]
