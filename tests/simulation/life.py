"""What happens in a world: a user who runs the command again and again, and all that befalls the machine.

For a while all of it strikes; then the world turns kind, and what was paid for has to come home.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Final

from pipeline.model import State
from pipeline.reconcile.evidence import RETENTION_SAFE_S
from tests.simulation.command import DONE, FAILED
from tests.simulation.user import FIRST_KEY, SECOND_KEY, User

if TYPE_CHECKING:
    from tests.simulation.machine import Process
    from tests.simulation.world import World

TROUBLED_RUNS: Final = 5
LARGE_TROUBLED_RUNS: Final = 25
KIND_RUNS: Final = 8


async def live(world: World) -> None:
    """Live through trouble, then through kindness, and look at what is left."""
    user, chance = User(world), world.chance.stream("life")
    trouble = asyncio.get_running_loop().create_task(world.make_trouble(user).strike())
    most = LARGE_TROUBLED_RUNS if world.options.is_large else TROUBLED_RUNS
    for _ in range(1 + chance.randrange(most)):
        process = world.start(functools.partial(world.command, request=user.next_request()))
        code = await world.exit_code(process)
        if code == DONE and chance.random() < 0.7:
            break
        await asyncio.sleep(chance.random() ** 4 * 3000.0)
    trouble.cancel()
    await asyncio.wait([trouble])
    await _turn_kind(world)
    await _come_home(world, user)


async def _turn_kind(world: World) -> None:
    """Nothing goes wrong any more, and what was held up goes on."""
    world.chance.calm = True
    vendor, disk = world.vendor, world.machine.disk
    vendor.away = vendor.account_empty = vendor.withdrawn = disk.full = False
    vendor.log_stands_since = None
    for generation in vendor.generations.values():
        generation.errors_to_come, generation.errors_until = 0, 0.0
    for process in world.running_commands():
        process.stopped, process.die_after = False, None
        await _end_of(world, process)
    await asyncio.sleep(1000.0)


async def _end_of(world: World, process: Process) -> int | None:
    """Wait for a run's end; in a kind world that it has none is a broken rule."""
    try:
        return await asyncio.wait_for(world.exit_code(process), _patience_s(world))
    except TimeoutError:
        world.violated("a run does not end", f"run {process.number}, {_patience_s(world):.0f} s")
        return None


def _patience_s(world: World) -> float:
    """Return how long a run may take in a kind world: every rendering in turn, and every doubt."""
    options, pace = world.options, world.vendor.pace
    turns = 1 + world.options.rows * 3 / min(options.concurrency, pace.limit)
    return 2 * turns * (pace.longest_s + 60.0) + 3 * options.reconcile_after + options.timeout + 3600.0


async def _come_home(world: World, user: User) -> None:
    """Run again until all is done: in a kind world every run ends, and the batch does."""
    code: int | None = None
    for number in range(KIND_RUNS):
        if user.rotated:
            user.key = SECOND_KEY if number % 2 else FIRST_KEY
        process = world.start(functools.partial(world.command, request=user.request(retry_failed=number < 3)))
        code = await _end_of(world, process)
        if world.violation is not None:
            return
        if code == DONE or (code == FAILED and number >= 3):
            break
        await asyncio.sleep(700.0)
    if code not in (DONE, FAILED) and not _may_stay_open(world, user):
        open_rows = [f"{r.id} {r.state}" for r in world.book.records.values() if r.state is not State.DONE]
        world.violated("the batch does not end", f"exit {code}: {', '.join(open_rows[:5])}")
    world.book.check_nothing_left()


def _may_stay_open(world: World, user: User) -> bool:
    """Whether rows may stay for the user to decide on: a budget is used up, or no source settles a doubt."""
    return (
        world.options.max_cost is not None or not world.vendor.pace.log_allowed or _keeps_a_doubt(world, user)
    )


def _keeps_a_doubt(world: World, user: User) -> bool:
    """Whether a doubt stays that nothing can settle but a row submitted after it, or the user.

    The charges may not be offered, may be kept for less long than the row has waited, or may show what the
    user gave up under another key, in whose log alone it has a row.
    """
    book = world.book
    in_doubt = [record for record in book.records.values() if record.state is State.IN_DOUBT]
    of_another_key = user.rotated and bool(book.given_up)
    return any(
        world.vendor.pace.charges == "not offered"
        or of_another_key
        or world.now - book.intended_at[record.correlation_id] >= RETENTION_SAFE_S
        for record in in_doubt
    )
