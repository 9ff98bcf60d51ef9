"""What happens in a world: a user who runs the command again and again, and all that befalls the machine.

For a while all of it strikes; then the world turns kind, and what was paid for has to come home.
"""

from __future__ import annotations

import asyncio
import functools
import json
from typing import TYPE_CHECKING, Any, Final

from pipeline.manifest.identity import canonical_json, fingerprint
from pipeline.model import Job, State
from pipeline.settings import Settings
from tests.simulation.book import ROOT
from tests.simulation.command import DONE, FAILED, Request, run_command
from tests.simulation.ledger import new_database, statements
from tests.simulation.vendor import MODEL

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from tests.simulation.machine import Process
    from tests.simulation.world import World

TROUBLED_RUNS: Final = 5
KIND_RUNS: Final = 8
EXIT_LIMIT_S: Final = 8.0
"""After so long the command's own watch ends a process that was interrupted twice."""

MAX_CLOCK_ERROR_S: Final = 40 * 3600.0

FIRST_KEY: Final = "sk-first-key"
SECOND_KEY: Final = "sk-second-key"


@functools.cache
def _content(prompt: str) -> tuple[str, dict[str, Any]]:
    body = {"model": MODEL, "prompt": prompt, "image_url": "https://pictures.example/a.jpg"}
    return fingerprint(canonical_json(body)), body


def make_job(name: str, prompt: str, index: int) -> Job:
    """Return a row of the manifest."""
    made, body = _content(prompt)
    return Job(name, made, index, MODEL, body, line=index + 1)


class User:
    """Who runs the command, and what they write into the manifest."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._chance = world.chance.stream("user")
        self._rows = [(f"row-{number}", f"prompt {number}") for number in range(world.options.rows)]
        self.key = FIRST_KEY
        self.rotated = False

    def request(self, *, retry_failed: bool = False, resubmit_in_doubt: bool = False) -> Request:
        options = self.world.options
        settings = Settings(
            concurrency=options.concurrency,
            downloads=4,
            poll_interval=10.0,
            timeout=1800.0 if self.world.chance.calm else options.timeout,
            reconcile_after=options.reconcile_after,
            generation_retries=options.generation_retries,
            max_cost=options.max_cost,
            media=False,
        )
        jobs = tuple(make_job(name, prompt, index) for index, (name, prompt) in enumerate(self._rows))
        return Request(jobs, settings, self.key, retry_failed, resubmit_in_doubt)

    def next_request(self) -> Request:
        """Decide on the next run: often the same again, sometimes with another manifest or wish."""
        kind = self.world.chance.draw("user")
        self.world.tell("USER", kind or "the same again")
        chance, rows = self._chance, self._rows
        match kind:
            case "rows added":
                rows += [(f"new-{len(rows)}-{i}", f"new {len(rows)} {i}") for i in range(chance.randrange(3))]
            case "rows removed" if len(rows) > 1:
                del rows[chance.randrange(len(rows))]
            case "rows edited":
                at = chance.randrange(len(rows))
                rows[at] = (rows[at][0], f"{rows[at][1]}, please")
            case "reordered":
                chance.shuffle(rows)
            case "resubmit in doubt":
                self._give_up()
                return self.request(resubmit_in_doubt=True)
        return self.request(retry_failed=kind == "retry failed")

    def _give_up(self) -> None:
        """The user has rows submitted again, whatever became of what is in doubt."""
        for record in self.world.book.records.values():
            if record.state in (State.SUBMITTING, State.IN_DOUBT):
                self.world.book.given_up[record.key] = None


async def live(world: World) -> None:
    """Live through trouble, then through kindness, and look at what is left."""
    user, chance = User(world), world.chance.stream("life")
    trouble = asyncio.get_running_loop().create_task(Trouble(world, user).strike())
    for _ in range(1 + chance.randrange(TROUBLED_RUNS)):
        process = world.start(functools.partial(run_command, request=user.next_request()))
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
        process = world.start(functools.partial(run_command, request=user.request(retry_failed=number < 3)))
        code = await _end_of(world, process)
        if world.violation is not None:
            return
        if code == DONE or (code == FAILED and number >= 3):
            break
        await asyncio.sleep(700.0)
    if code not in (DONE, FAILED) and not _may_stay_open(world):
        open_rows = [f"{r.id} {r.state}" for r in world.book.records.values() if r.state is not State.DONE]
        world.violated("the batch does not end", f"exit {code}: {', '.join(open_rows[:5])}")
    world.book.check_nothing_left()


def _may_stay_open(world: World) -> bool:
    """A budget that is used up leaves rows for the user to pay for."""
    return world.options.max_cost is not None


class Trouble:
    """Everything that befalls the machine, its user and the vendor."""

    def __init__(self, world: World, user: User) -> None:
        self.world, self.user = world, user
        self._chance: Random = world.chance.stream("trouble")
        self._backup = b""

    async def strike(self) -> None:
        """Let things happen, one after the other, as long as the trouble lasts."""
        chance, world = self._chance, self.world
        kinds = world.chance.kinds("life")
        pace_s = chance.choice((1e9, 400.0, 100.0, 30.0))
        number = 0
        while True:
            number += 1
            await asyncio.sleep(pace_s * (0.02 + chance.random() ** 2))
            kind = kinds[chance.randrange(len(kinds))]
            if world.chance.strike("life", kind, number):
                world.tell("LIFE", kind)
                await getattr(self, f"_{kind.replace(' ', '_').replace('-', '_')}")()

    def _victim(self) -> Process | None:
        running = self.world.running_commands()
        return running[self._chance.randrange(len(running))] if running else None

    async def _killed(self) -> None:
        if (victim := self._victim()) is not None:
            self.world.kill(victim)

    async def _power_cut(self) -> None:
        for process in self.world.running_commands():
            self.world.kill(process)
        self.world.machine.disk.cut_power()
        self.world.book.check_files()

    async def _ctrl_c(self) -> None:
        victim = self._victim()
        if victim is not None and victim.engine is not None and not victim.stopped:
            victim.loop.call_soon(self._in(victim, victim.engine.stop), "interrupted", "stopping")

    async def _ctrl_c_twice(self) -> None:
        await self._ctrl_c()
        await asyncio.sleep(self._chance.random() * 2.0)
        victim = self._victim()
        if victim is not None and victim.engine is not None and not victim.stopped:
            victim.loop.call_soon(self._in(victim, victim.engine.cancel))
            await asyncio.sleep(EXIT_LIMIT_S)
            self.world.kill(victim)

    def _in(self, process: Process, call: Callable[..., object]) -> Callable[..., object]:
        """Make a call that is left out when the engine has ended before its turn comes."""

        def guarded(*args: object) -> None:
            if process.engine is not None:
                call(*args)

        return guarded

    async def _stopped_and_continued(self) -> None:
        victim = self._victim()
        if victim is not None:
            victim.stopped = True
            await asyncio.sleep(self._chance.random() ** 2 * 4000.0)
            victim.stopped = False

    async def _suspended(self) -> None:
        machine, slept_s = self.world.machine, self._chance.random() ** 2 * 20_000.0
        machine.asleep = True
        try:
            await asyncio.sleep(slept_s)
            machine.suspended_s += slept_s
        finally:
            machine.asleep = False

    async def _clock_forwards(self) -> None:
        self._step_clock(self._chance.choice((5.0, 3600.0, 86_400.0)))

    async def _clock_backwards(self) -> None:
        self._step_clock(-self._chance.choice((5.0, 3600.0, 86_400.0)))

    def _step_clock(self, step_s: float) -> None:
        machine = self.world.machine
        machine.clock_error_s = max(
            -MAX_CLOCK_ERROR_S, min(MAX_CLOCK_ERROR_S, machine.clock_error_s + step_s)
        )

    async def _second_process(self) -> None:
        self.world.start(functools.partial(run_command, request=self.user.request()))

    async def _for_a_while(self, thing: object, flag: str, longest_s: float = 2000.0) -> None:
        setattr(thing, flag, True)
        try:
            await asyncio.sleep(self._chance.random() ** 2 * longest_s)
        finally:
            setattr(thing, flag, False)

    async def _disk_full_for_a_while(self) -> None:
        await self._for_a_while(self.world.machine.disk, "full")

    async def _vendor_away(self) -> None:
        await self._for_a_while(self.world.vendor, "away")

    async def _account_empty(self) -> None:
        await self._for_a_while(self.world.vendor, "account_empty")

    async def _model_withdrawn(self) -> None:
        await self._for_a_while(self.world.vendor, "withdrawn")

    async def _flood_of_refusals(self) -> None:
        await self._for_a_while(self.world.vendor, "flooded", 300.0)

    async def _log_stands_still(self) -> None:
        self.world.vendor.log_stands_since = self.world.now
        await asyncio.sleep(self._chance.random() * 3.0 * self.world.options.reconcile_after)
        self.world.vendor.log_stands_since = None

    async def _key_rotated(self) -> None:
        self.user.rotated = True
        self.user.key = SECOND_KEY if self.user.key == FIRST_KEY else FIRST_KEY

    async def _restored_ledger(self) -> None:
        """Take a backup of the ledger; the next time, put it back while nothing runs."""
        machine = self.world.machine
        if machine.database is None:
            return
        if not self._backup:
            self._backup = machine.database.serialize() if not machine.database.in_transaction else b""
        elif not self.world.running_commands() and self._is_remembered():
            machine.database, self._backup = new_database(self._backup), b""
            self.world.forgetful = True
            self.world.book.reload_from(machine.database, statements().load)

    def _is_remembered(self) -> bool:
        """Whether the machine's note of the ledger is not behind: it may be for a second (`LedgerMemory`)."""
        noted = sum(memory["submissions"] for memory in self.world.machine.state.values())
        return bool(noted >= sum(record.intent for record in self.world.book.records.values()))

    async def _file_moved_away(self) -> None:
        done = [r for r in self.world.book.records.values() if r.state is State.DONE and r.artifact]
        if done:
            artifact = done[self._chance.randrange(len(done))].artifact
            path = f"{ROOT}/{artifact.path if artifact else ''}"
            self.world.book.moved_away[path] = None
            self.world.machine.disk.remove(path)
            self.world.users_files.pop(path, None)

    async def _users_file_in_the_way(self) -> None:
        names = [f"videos/{record.file_stem}.mp4" for record in self.world.book.records.values()]
        if names:
            path = f"{ROOT}/{names[self._chance.randrange(len(names))]}"
            if path not in self.world.machine.disk.names:
                data = json.dumps({"mine": path}).encode()
                self.world.machine.disk.put(path, data)
                self.world.users_files[path] = data
