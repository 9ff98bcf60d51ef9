"""`veobatch run` at the terminal: ask before money is spent, show, sum up, report the end."""

from __future__ import annotations

import ctypes
import errno
import gc
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import anyio
import click

from pipeline.cli import signals
from pipeline.cli.cost_prompt import confirm_cost, confirm_rewritten
from pipeline.cli.streams import discard_stdout, stdout_failed
from pipeline.cli.terminal_watcher import TerminalWatcher
from pipeline.errors import ExitCode
from pipeline.gc_pause import gc_paused
from pipeline.runner.batch_handle import Batch
from pipeline.runner.preflight import check_report_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.cli.options import RunOptions
    from pipeline.cluster.driver import ClusterDriver
    from pipeline.engine import Engine
    from pipeline.poll.eta import EtaEstimator
    from pipeline.runner.prepare import PreparedRun
    from pipeline.runner.summary import RunSummary

SWITCH_INTERVAL_S: Final = 0.0001
"""At the default of 5 ms a loop that is busy in short bursts starves the ledger's thread of the GIL."""

CLUSTER_EXIT_LIMIT_S: Final = 12.0
"""How long a cluster may take to stop at once: its workers hear of it, and Ray ends."""


LARGE_BLOCK_BYTES: Final = 1024 * 1024
"""Above the 256 KB that the loop asks for at each read from a socket: those are better kept. Downloads keep
blocks of their own: in turns, five times, they took 0.91 of the CPU that they take without these settings."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h of glibc


def return_large_blocks() -> bool:
    """Have glibc give large blocks back to the system once they are freed; return whether it will.

    Otherwise it takes the first large table that is freed (a CSV of 40 MB) for a sign of more, and cuts those
    that follow from heaps that never shrink: 40 MB of a run with 100,000 rows.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # another C library
        return False
    options = {_M_TRIM_THRESHOLD: LARGE_BLOCK_BYTES, _M_MMAP_THRESHOLD: LARGE_BLOCK_BYTES, _M_ARENA_MAX: 1}
    return all(set_option(name, value) for name, value in options.items())


def run(options: RunOptions) -> int:
    """Carry out `veobatch run`; return the exit code. Raises `VeobatchError` before anything is touched."""
    return_large_blocks()
    with gc_paused():  # until `_run` has prepared the run, whose objects are never searched then
        batch = Batch.of(options.request)
        _check_reports(options)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        return anyio.run(_run, batch, options)


def _check_reports(options: RunOptions) -> None:
    """Raise `UsageError` for a place where the end cannot be reported."""
    if options.notify:
        from pipeline.cli.reporting.notifications import check_notify_urls

        check_notify_urls(options.notify)
    if options.junit is not None:
        check_report_file("--junit", options.junit)
    if options.serve is not None:
        from pipeline.results.live import parse_bind

        parse_bind(options.serve)


async def _run(batch: Batch, options: RunOptions) -> int:
    guard = signals.current()
    guard.enter_loop()
    async with batch:
        with anyio.CancelScope() as scope, guard.cancelling(scope):
            prepared = await batch.prepare(confirm_rewritten)
        if scope.cancelled_caught:
            raise signals.Interrupted(guard.exit_code or ExitCode.INTERRUPTED)
        free = options.request.sandbox or prepared.obstacle is not None
        if not (free or confirm_cost(prepared.cost_estimate, assume_yes=options.yes)):
            click.echo("nothing was submitted", err=True)
            return int(ExitCode.RESUMABLE)

        def make_watcher(prepared: PreparedRun, eta: EtaEstimator) -> TerminalWatcher:
            return TerminalWatcher(prepared, eta, options)

        # A full search for cycles would hold the loop up: for 25 ms between downloads, longer with many rows.
        gc.freeze()
        gc.enable()
        summary = await batch.carry_out(SignalControl(guard), make_watcher)
    await _report_end(summary, options)
    return int(summary.exit_code)


async def _report_end(summary: RunSummary, options: RunOptions) -> None:
    """Show the summary and send what is to be sent; imported now, since a start is no place for it."""
    from pipeline.cli.reporting.notifications import send_notifications
    from pipeline.cli.reporting.summary import show_summary

    try:
        show_summary(summary, as_json=options.as_json, quiet=options.quiet)
    except OSError as error:  # the exit code still says how the run ended
        if not stdout_failed() and error.errno != errno.EIO:  # what a terminal that was closed answers
            raise
        discard_stdout()
    await send_notifications(options, summary)


class SignalControl:
    """Lets signals stop a run."""

    def __init__(self, guard: signals.SignalGuard) -> None:
        self._guard = guard

    @property
    def signal_name(self) -> str:
        return self._guard.signal_name

    @property
    def exit_code(self) -> ExitCode | None:
        return self._guard.exit_code

    @property
    def is_stopping(self) -> bool:
        return self._guard.exit_code is not None

    @contextmanager
    def running(self, engine: Engine | ClusterDriver) -> Iterator[None]:
        from pipeline.engine import Engine

        limit_s = signals.EXIT_LIMIT_S if isinstance(engine, Engine) else CLUSTER_EXIT_LIMIT_S
        with self._guard.running(engine, limit_s=limit_s):
            yield
