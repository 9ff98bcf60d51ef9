"""One seed, from its first moment to its verdict; and the patches by which the package lives in the world."""

from __future__ import annotations

import asyncio
import gc
import io
import itertools
import random
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import anyio
import anyio.to_thread
from anyio._backends import _asyncio as anyio_backend

import pipeline.media
import pipeline.storage.files
import pipeline.storage.local
import pipeline.storage.local_staging
import pipeline.storage.part_files
import pipeline.submit.submission_journal
from pipeline import clocks
from tests.simulation import loop, posix, scheduler
from tests.simulation.chance import Chance, Fault, is_cluster_seed
from tests.simulation.history import History, Options
from tests.simulation.life import live
from tests.simulation.world import Violation, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.simulation.vendor import Pace

WORLDS_A_COLLECTION: Final = 40
_worlds = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a seed: the rule that was broken, if any, the jobs that it simulated, and its faults."""

    seed: int
    violation: Violation | None
    jobs: int
    runs: int
    steps: int
    seconds: float
    faults: tuple[Fault, ...]
    history: History
    focus: tuple[tuple[str, str], ...]
    story: tuple[str, ...] = ()


def simulate(
    seed: int,
    *,
    skipped: frozenset[Fault] = frozenset(),
    focus: tuple[tuple[str, str], ...] = (),
    told: bool = False,
    cluster: bool | None = None,
) -> Result:
    """Live through the world of `seed`, without the faults in `skipped`, or with those in `focus` alone.

    The seed decides whether it is a cluster's unless `cluster` does.
    """
    is_cluster = is_cluster_seed(seed) if cluster is None else cluster
    chance = Chance(seed, skipped, focus=focus, is_cluster=is_cluster)
    return _live_through(chance, None, None, told=told)


def replay(history: History, *, told: bool = False) -> Result:
    """Live through a history that was kept: its faults and no others, whatever its seed does by now."""
    is_cluster = history.options.workers > 0
    chance = Chance(history.seed, schedule=history.faults, is_cluster=is_cluster)
    return _live_through(chance, history.options, history.pace, told=told)


def _live_through(chance: Chance, options: Options | None, pace: Pace | None, *, told: bool) -> Result:
    story: list[str] | None = [] if told else None
    with _installed(chance.seed) as stack:
        world = _make_world(chance, story, options, pace, stack)
        scheduler.switch_to(world.user)
        try:
            world.run(live(world))
        finally:
            scheduler.switch_to(None)
        result = Result(
            chance.seed,
            world.violation,
            len(world.book.records),
            world.runs,
            world.steps,
            world.now,
            tuple(chance.struck),
            History(chance.seed, world.options, world.vendor.pace, tuple(chance.struck)),
            chance.focus,
            tuple(story or ()),
        )
        _bury(world)
    return result


def _make_world(
    chance: Chance, story: list[str] | None, options: Options | None, pace: Pace | None, stack: ExitStack
) -> World:
    if not chance.is_cluster:
        return World(chance, story, options=options, pace=pace)
    from tests.simulation.cluster.installed import cluster_patches  # none of it is needed for one machine
    from tests.simulation.cluster.world import ClusterWorld

    world = ClusterWorld(chance, story, options=options, pace=pace)
    for module, name, value in cluster_patches(world):
        stack.enter_context(mock.patch.object(module, name, value))
    return world


def _bury(world: World) -> None:
    """Let go of what is dead: its coroutines are closed, and reach nothing any more."""
    for process in (*world.dead, *world.processes):
        process.alive = False
        process.loop.close_unstarted()
        process.loop.ready.clear()
        process.loop.timers.clear()
    world.dead.clear()
    world.processes.clear()
    if world.machine.database is not None:
        world.machine.database.close()


async def _run_sync(func: Callable[..., Any], *args: Any, abandon_on_cancel: bool = False, **_: Any) -> Any:
    """Stand in for `anyio.to_thread.run_sync`."""
    with anyio.CancelScope(shield=not abandon_on_cancel):
        return await scheduler.running().run_in_thread(func, args)


def _ignore(_: object) -> None:
    """Say nothing of what the dead leave."""


def _open_journal(path: PurePosixPath) -> io.BytesIO:
    state = scheduler.running().machine.state
    if path.name not in state:
        raise FileNotFoundError(path)
    return io.BytesIO(state[path.name])


def _begin_journal(path: PurePosixPath, name: str) -> int:
    scheduler.running().machine.state[path.name] = name.encode("ascii")
    return len(name)


def _append_to_journal(path: PurePosixPath, lines: Sequence[bytes]) -> int:
    state = scheduler.running().machine.state
    if path.name not in state:
        raise FileNotFoundError(path)
    state[path.name] += b"".join(b"\n" + line for line in lines)
    return len(state[path.name])


@contextmanager
def _fcntl_replaced() -> Iterator[None]:
    """Let `import fcntl` find the world's locks.

    `mock.patch.dict` would forget what is imported meanwhile, which each cluster's world then imported anew.
    """
    fcntl = sys.modules["fcntl"]
    locks: Any = SimpleNamespace(LOCK_EX=fcntl.LOCK_EX, LOCK_NB=fcntl.LOCK_NB, flock=posix.flock)
    sys.modules["fcntl"] = locks
    try:
        yield
    finally:
        sys.modules["fcntl"] = fcntl


@contextmanager
def _installed(seed: int) -> Iterator[ExitStack]:
    """Put the world in the place of the system, for as long as the body runs."""
    examine = sys.modules["pipeline.media.examine"]
    fake_os = posix.SimOs()
    with ExitStack() as stack:
        for module, name, value in (
            (pipeline.storage.local, "Path", posix.SimPath),
            (pipeline.storage.local, "os", fake_os),
            (pipeline.storage.local_staging, "Path", posix.SimPath),
            (pipeline.storage.local_staging, "os", fake_os),
            (pipeline.storage.local_staging, "aiofiles", posix.SimAiofiles()),
            (pipeline.storage.files, "os", fake_os),
            (pipeline.storage.part_files, "os", fake_os),
            (pipeline.storage.files, "_host_tag", lambda: "machine1"),
            (pipeline.storage.files, "threading", SimpleNamespace(get_ident=lambda: 1)),
            (examine, "Path", posix.SimPath),
            (anyio.to_thread, "run_sync", _run_sync),
            (pipeline.submit.submission_journal, "journal_path", PurePosixPath),
            (pipeline.submit.submission_journal, "open_journal", _open_journal),
            (pipeline.submit.submission_journal, "begin_journal", _begin_journal),
            (pipeline.submit.submission_journal, "append_to_journal", _append_to_journal),
            (anyio_backend.CancelScope, "__hash__", _scope_number),
            # asyncio's own asks the kernel for its process each time, a tenth of a world's time.
            (asyncio, "get_running_loop", scheduler.running_loop),
            (asyncio.events, "get_running_loop", scheduler.running_loop),
            (asyncio.events, "_get_running_loop", scheduler.running_loop),
            (anyio_backend, "get_running_loop", scheduler.running_loop),
        ):
            stack.enter_context(mock.patch.object(module, name, value))
        stack.enter_context(_fcntl_replaced())
        stack.enter_context(clocks.use(scheduler.SimSource()))
        loop.restart_numbers()
        random.seed(seed)
        # What is dead is collected after its world's end, and its destructors reach nothing.
        collects = gc.isenabled()
        gc.disable()
        stack.enter_context(mock.patch.object(sys, "unraisablehook", _ignore))
        try:
            yield stack
        finally:
            if next(_worlds) % WORLDS_A_COLLECTION == 0:
                gc.collect()
            if collects:
                gc.enable()


def _scope_number(scope: Any) -> int:
    """Order cancel scopes in a set by the tasks that they are entered in, never by their address."""
    return 0 if scope._host_task is None else hash(scope._host_task)
