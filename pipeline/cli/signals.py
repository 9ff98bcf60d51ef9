"""Ctrl-C and SIGTERM: the first finishes what is paid, the second stops at once."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import anyio

from pipeline.errors import ExitCode

if TYPE_CHECKING:
    from anyio.abc import TaskStatus

    from pipeline.cluster.driver import ClusterDriver
    from pipeline.engine import Engine

STOPPING_MESSAGE = "stopping: no new submissions; finishing what is in flight (once more to stop at once)"


class SignalListener:
    """Listens while the engine runs; `exit_code` is set once a signal came."""

    def __init__(self) -> None:
        self.exit_code: ExitCode | None = None

    async def listen(
        self, engine: Engine | ClusterDriver, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Turn signals into the engine's words until cancelled."""
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
            task_status.started()
            async for number in received:
                if self.exit_code is None:
                    terminated = number == signal.SIGTERM
                    self.exit_code = ExitCode.TERMINATED if terminated else ExitCode.INTERRUPTED
                    name = signal.Signals(number).name
                    engine.stop(f"interrupted ({name}); the next run goes on", STOPPING_MESSAGE)
                else:
                    engine.cancel()
