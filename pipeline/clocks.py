"""Time and chance as the package reads them: the only module that asks the system for either.

`use` puts another source in the system's place, for all of the process: a simulation's. What waits goes by
the event loop's clock, which whoever makes the loop owns. `tests/unit/test_clocks.py` finds what goes past
this module.
"""

from __future__ import annotations

import random
import secrets
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
"""Of Linux: https://man7.org/linux/man-pages/man5/proc_sys_kernel.5.html"""


class Source(Protocol):
    """Where time and chance come from; seconds, monotonic and since the epoch."""

    def monotonic(self) -> float: ...
    def thread_cpu(self) -> float: ...
    def wall(self) -> float: ...
    def new_random(self) -> random.Random: ...
    def token_hex(self, n_bytes: int) -> str: ...
    def boot_id(self) -> str: ...


class _System:
    """The operating system's own."""

    def monotonic(self) -> float:
        return time.monotonic()

    def thread_cpu(self) -> float:
        return time.thread_time()

    def wall(self) -> float:
        return time.time()

    def new_random(self) -> random.Random:
        return random.Random()

    def token_hex(self, n_bytes: int) -> str:
        return secrets.token_hex(n_bytes)

    def boot_id(self) -> str:
        try:
            return BOOT_ID.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return ""


_source: Source = _System()


@contextmanager
def use(source: Source) -> Iterator[None]:
    """Take time and chance from `source` while the body runs."""
    global _source
    before, _source = _source, source
    try:
        yield
    finally:
        _source = before


def monotonic() -> float:
    """Return seconds that only grow, from some moment on."""
    return _source.monotonic()


def thread_cpu() -> float:
    """Return the seconds of CPU that this thread has taken, those of the system for it included."""
    return _source.thread_cpu()


def wall() -> float:
    """Return the seconds since the epoch by this machine's clock, which may be wrong and may be set."""
    return _source.wall()


def new_random() -> random.Random:
    """Return a generator of its own, seeded by chance, for jitter and samples; never for secrets."""
    return _source.new_random()


def boot_id() -> str:
    """Return what is another after each start of this machine; "" where the system has no such thing."""
    return _source.boot_id()


def token_hex(n_bytes: int) -> str:
    """Return `n_bytes` bytes that nobody can guess, in hexadecimal."""
    return _source.token_hex(n_bytes)
