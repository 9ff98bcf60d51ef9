"""Everything that befalls the machine, its user and the vendor while the world is not kind."""

from __future__ import annotations

import asyncio
import functools
import json
from typing import TYPE_CHECKING, Final

from pipeline.model import State
from tests.simulation.book import ROOT
from tests.simulation.ledger import new_database, statements
from tests.simulation.user import FIRST_KEY, SECOND_KEY
from tests.simulation.vendor import clip_bytes

if TYPE_CHECKING:
    from tests.simulation.chance import Fault
    from tests.simulation.machine import Process
    from tests.simulation.user import User
    from tests.simulation.world import World

MAX_RUNS_AT_ONCE: Final = 4
"""A user who starts a fifth run of one folder is not simulated: a hundred were, and polled in circles."""

MAX_RUNS: Final = 200
"""Nor is one who starts a run after the other: 2,000 of a used-up budget took a gigabyte."""

LARGE_PACES_S: Final = (60.0, 15.0, 5.0)
"""In a large world things happen as often for each of its rows as in a small one."""

UNKNOWN_STATUSES_S: Final = 700.0
"""A generation that is unknown for longer has given its slot back, by the rule; these may still render."""

NAMELESS_ERRORS_S: Final = 150.0
"""A gateway that calls everything failed for longer than three minutes is believed: nobody else says more."""

MAX_CLOCK_ERROR_S: Final = 40 * 3600.0


class Trouble:
    """What strikes next, and how."""

    def __init__(self, world: World, user: User) -> None:
        self.world, self.user = world, user
        self._chance = world.chance.stream("life 0")
        self._backup = b""
        self._had_nameless_errors = False

    async def strike(self) -> None:
        """Let things happen, one after the other, as long as the trouble lasts."""
        if self.world.chance.schedule is not None:
            await self._strike_as_planned(self.world.chance.schedule)
            return
        chance = self.world.chance.stream("trouble")
        kinds = self.world.chance.kinds("life")
        paces_s = (100.0, 30.0) if self.world.chance.is_focused else (1e9, 400.0, 100.0, 30.0)
        pace_s = chance.choice(LARGE_PACES_S if self.world.options.is_large else paces_s)
        number = 0
        while kinds:
            number += 1
            await asyncio.sleep(pace_s * (0.02 + chance.random() ** 2))
            await self._happen(kinds[chance.randrange(len(kinds))], number)

    async def _strike_as_planned(self, schedule: tuple[Fault, ...]) -> None:
        for fault in sorted((f for f in schedule if f.point == "life"), key=lambda fault: fault.at):
            await asyncio.sleep(max(0.0, fault.at - self.world.now))
            await self._happen(fault.kind, fault.number)

    async def _happen(self, kind: str, number: int) -> None:
        if self.world.chance.strike("life", kind, number):
            self.world.tell("LIFE", kind)
            self._chance = self.world.chance.stream(f"life {number}")
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
        self.world.machine.boots += 1
        self.world.power_was_cut = True
        self.world.book.check_files()

    async def _ctrl_c(self) -> None:
        if (victim := self._victim()) is not None:
            victim.interrupt()

    async def _ctrl_c_twice(self) -> None:
        if (victim := self._victim()) is not None:
            victim.interrupt()
            await asyncio.sleep(self._chance.choice((0.0, 2.0)) * self._chance.random())
            victim.interrupt()

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
        if self.world.runs < MAX_RUNS:
            self.world.start(functools.partial(self.world.command, request=self.user.request()))

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

    async def _statuses_unknown_for_a_while(self) -> None:
        await self._for_a_while(self.world.vendor, "forgets_statuses", UNKNOWN_STATUSES_S)

    async def _nameless_errors_for_a_while(self) -> None:
        if not self._had_nameless_errors:  # two in a row last longer than one may
            self._had_nameless_errors = True
            await self._for_a_while(self.world.vendor, "nameless_errors", NAMELESS_ERRORS_S)

    async def _model_withdrawn(self) -> None:
        await self._for_a_while(self.world.vendor, "withdrawn")

    async def _flood_of_refusals(self) -> None:
        began = self.world.now
        await self._for_a_while(self.world.vendor, "flooded", 300.0)
        self.world.refused_s += self.world.now - began

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
        elif not self.world.running_commands():
            machine.database, self._backup = new_database(self._backup), b""
            self.world.forgetful = True
            # A create's answer with another row's id is noticed by who has that id, which is forgotten, too.
            self.world.book.known_generations.clear()
            self.world.book.reload_from(machine.database, statements().load)

    async def _file_moved_away(self) -> None:
        done = [r for r in self.world.book.records.values() if r.state is State.DONE and r.artifact]
        if done:
            artifact = done[self._chance.randrange(len(done))].artifact
            path = f"{ROOT}/{artifact.path if artifact else ''}"
            self.world.book.moved_away[path] = None
            self.world.machine.disk.remove(path)
            self.world.users_files.pop(path, None)

    async def _clip_copied_into_place(self) -> None:
        """The user fetches a clip by hand and puts it where it belongs; no disk has synced it yet."""
        world = self.world
        paid = [
            record
            for record in world.book.records.values()
            if record.state in (State.GENERATING, State.READY)
            and (generation := world.vendor.generations.get(record.generation_id)) is not None
            and generation.is_paid
        ]
        if paid:
            record = paid[self._chance.randrange(len(paid))]
            path = f"{ROOT}/videos/{record.file_stem}.mp4"
            if path not in world.machine.disk.names:
                world.machine.disk.put(path, clip_bytes(record.generation_id, 0), durable=False)

    async def _folder_lock_lost(self) -> None:
        """A network disk forgets the folder's lock: what a second process does is up to the ledger."""
        few = len(self.world.running_commands()) < MAX_RUNS_AT_ONCE
        if few and self.world.machine.lock_holder is not None:
            self.world.machine.lock_holder, self.world.lock_was_lost = None, True
            await self._second_process()

    async def _users_file_in_the_way(self) -> None:
        names = [f"videos/{record.file_stem}.mp4" for record in self.world.book.records.values()]
        if names:
            path = f"{ROOT}/{names[self._chance.randrange(len(names))]}"
            if path not in self.world.machine.disk.names:
                data = json.dumps({"mine": path}).encode()
                self.world.machine.disk.put(path, data)
                self.world.users_files[path] = data
