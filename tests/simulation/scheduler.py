"""Who runs right now: what the package's calls into the system find their process by."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from tests.simulation.machine import Process

_current: Process | None = None
_alive: set[int] = set()


def running() -> Process:
    """Return the process whose step this is."""
    if _current is None:
        raise RuntimeError("nothing is simulated")
    return _current


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the loop of the process whose step this is."""
    return running().loop


def switch_to(process: Process | None) -> None:
    """Let the steps that follow be those of `process`."""
    global _current
    if process is not _current:
        _current = process
        asyncio._set_running_loop(None if process is None else process.loop)


def set_alive(pid: int, *, alive: bool) -> None:
    (_alive.add if alive else _alive.discard)(pid)


def is_alive(pid: int) -> bool:
    return pid in _alive


class SimSource:
    """`pipeline.clocks`'s source: the running process's clocks and chance."""

    def monotonic(self) -> float:
        return running().machine.monotonic()

    def thread_cpu(self) -> float:
        return 0.0  # computing takes no time here

    def wall(self) -> float:
        return running().machine.wall()

    def new_random(self) -> Random:
        process = running()
        return process.world.chance.stream(f"random {process.number} {process.random.getrandbits(64)}")

    def boot_id(self) -> str:
        return f"boot {running().machine.boots}"

    def token_hex(self, n_bytes: int) -> str:
        return running().random.randbytes(n_bytes).hex()
