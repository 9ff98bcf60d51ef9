"""Random signals at random moments of the real command: there is always a way out, and nothing is lost.

`VEOBATCH_SIGNAL_SEEDS` sets how many sequences are tried.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import random
import select
import signal
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.busy import busy_factor
from tests.integration.vendor_double import LOST_CREATES, ScriptedCreate, vendor_and_workspace, wait_until
from tests.integration.vendor_double.script import hang_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.forked_python import Command
    from tests.integration.vendor_double import VendorDouble, Workspace

SEEDS = int(os.environ.get("VEOBATCH_SIGNAL_SEEDS", "6"))
EXIT_WITHIN_S = 5.0
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PROMPTS = [f"job {number}" for number in range(5)]


@dataclass(frozen=True, slots=True)
class Sequence:
    """Signals with the seconds before each; there are two at least, the second of another kind.

    `phase` is what the command is about when they begin, `pauses` says that each finds it stopped (Ctrl-Z).
    """

    steps: tuple[tuple[float, signal.Signals], ...]
    phase: str = "starting"
    pauses: bool = False

    @classmethod
    def of(cls, chance: random.Random) -> Sequence:
        count = chance.choice((2, 2, 2, 3, 4, 9))
        waits = [chance.choice((0.0, 0.4, 1.5, 3.0)) * chance.random() for _ in range(count)]
        waits[0] = chance.random() * chance.choice((0.3, 1.5, 4.0))
        kinds = chance.choices(NUMBERS, k=count)
        # Two equal signals of which the second comes before the first was delivered are one to the process
        # (signal(7): standard signals do not queue), which then rightly finishes what is paid.
        kinds[1] = chance.choice([number for number in NUMBERS if number is not kinds[0]])
        phase = chance.choices(("starting", "asking", "ending"), (4, 1, 1))[0]
        return cls(tuple(zip(waits, kinds, strict=True)), phase, chance.random() < 0.2)


@contextlib.asynccontextmanager
async def started(desk: Workspace, phase: str) -> AsyncIterator[Command]:
    """Start the command; where it is to ask about the money, on a terminal on which nobody answers."""
    if phase != "asking":
        yield await desk.start("--concurrency", "3", "--yes")
        return
    terminal, end = pty.openpty()
    try:
        process = await desk.start("--assume-price", "1", terminal=end)
        shown = await asyncio.to_thread(read_until, terminal, b"Go on?")
        yield process
        assert b"Go on?" in shown
    finally:
        os.close(end)
        os.close(terminal)


def read_until(terminal: int, question: bytes) -> bytes:
    """Return what is written on a terminal, up to a question."""
    shown = b""
    while question not in shown and select.select([terminal], [], [], 60.0)[0]:
        shown += os.read(terminal, 4096)
    return shown


def send(pid: int, *numbers: signal.Signals) -> None:
    """Send signals to a process that may have ended; asyncio's own way would lose its exit code then."""
    with contextlib.suppress(ProcessLookupError):
        for number in numbers:
            os.kill(pid, number)


async def interrupt(vendor: VendorDouble, desk: Workspace, sequence: Sequence) -> tuple[int, float]:
    """Start the command and send the signals; return its exit code and how long the second one took."""
    async with started(desk, sequence.phase) as process:
        reading = asyncio.create_task(process.communicate())
        if sequence.phase == "ending":
            await asyncio.wait(
                {reading, asyncio.create_task(wait_until(lambda: len(vendor.cdn.requests) >= len(PROMPTS)))},
                return_when=asyncio.FIRST_COMPLETED,
            )
        second_at = time.monotonic()
        for number, (wait, kind) in enumerate(sequence.steps):
            await asyncio.wait({reading}, timeout=wait)
            if process.returncode is not None:
                break
            send(process.pid, *((signal.SIGSTOP, kind, signal.SIGCONT) if sequence.pauses else (kind,)))
            if number < 2:
                second_at = time.monotonic()
        try:
            await asyncio.wait_for(asyncio.shield(reading), 600)
        except TimeoutError:
            process.kill()
            await reading
            raise AssertionError(f"still there after {sequence}") from None
    assert process.returncode is not None
    return process.returncode, time.monotonic() - second_at


def make_trouble(vendor: VendorDouble, chance: random.Random) -> None:
    """Let some answers get lost or hang, so that signals meet more than smooth running."""
    if chance.random() < 0.4:
        vendor.script("job 0", creates=[LOST_CREATES["502 accepted"]])
    if chance.random() < 0.4:
        vendor.script("job 1", creates=[ScriptedCreate(accept=True, reply=hang_for(100.0))])


@pytest.fixture(autouse=True)
def signals_reach_the_command() -> None:
    """What is ignored here is ignored by the command, too: a shell's background jobs ignore SIGINT."""
    for number in NUMBERS:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_there_is_always_a_way_out(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    async with vendor_and_workspace(tmp_path, render_s=chance.choice((0.1, 1.0, 100.0))) as (vendor, desk):
        desk.forked = False  # a signal may come while it is still being imported
        sequence = Sequence.of(chance)
        if sequence.phase == "ending":
            vendor.render_s = 0.1
        else:
            make_trouble(vendor, chance)
        desk.write(PROMPTS)
        code, took_s = await interrupt(vendor, desk, sequence)
        assert took_s < (EXIT_WITHIN_S + 1.0) * busy_factor(), sequence
        # 1 and the negative ones are the interpreter's, which was still starting.
        assert code in (0, 1, 3, 130, 143, *(-number for number in NUMBERS)), (code, sequence)
        assert code != 1 or not vendor.requests
        vendor.render_s = 0.05
        for script in vendor.scripts.values():
            script.creates.clear()
        for made in vendor.generations:
            made.ends_at = 0.0
        desk.forked = True
        result = await desk.run()  # exits with 3 and names the holder if the lock is not free
        assert result.code == 0, (sequence, result.output)
        assert vendor.paid_counts() == Counter(PROMPTS)
