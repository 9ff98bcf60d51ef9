"""What befalls a cluster's processes, machines and database while the world is not kind."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from pipeline.submit.create import row_digest
from tests.simulation.cluster.ray import Actor, WorkerHandle
from tests.simulation.trouble import MAX_CLOCK_ERROR_S, Trouble

if TYPE_CHECKING:
    from tests.simulation.cluster.world import ClusterWorld
    from tests.simulation.machine import Machine, Process
    from tests.simulation.user import User


class ClusterTrouble(Trouble):
    """What strikes next, and how; what it shares with one machine's strikes the driver, or the disk."""

    def __init__(self, world: ClusterWorld, user: User) -> None:
        super().__init__(world, user)
        self._cluster = world

    def _one_of(self, kind: type[Actor | WorkerHandle]) -> Process | None:
        """Return a running worker or coordinator, by chance."""
        running = self._cluster.running_commands()
        found = [a.process for a in self._cluster.ray.actors if isinstance(a, kind) and a.process in running]
        return found[self._chance.randrange(len(found))] if found else None

    def _victim(self) -> Process | None:
        actors = [actor.process for actor in self._cluster.ray.actors]
        drivers = [process for process in self._cluster.running_commands() if process not in actors]
        return drivers[self._chance.randrange(len(drivers))] if drivers else None

    def _kill(self, victim: Process | None) -> None:
        if victim is not None:
            self._cluster.kill(victim)

    async def _worker_killed(self) -> None:
        self._kill(self._one_of(WorkerHandle))

    async def _coordinator_killed(self) -> None:
        self._kill(self._one_of(Actor))

    async def _driver_killed(self) -> None:
        self._kill(self._victim())

    async def _stop_for_a_while(self, victim: Process | None) -> None:
        if victim is not None:
            await self._for_a_while(victim, "stopped", 600.0)

    async def _worker_stopped_and_continued(self) -> None:
        await self._stop_for_a_while(self._one_of(WorkerHandle))

    async def _coordinator_stopped_and_continued(self) -> None:
        await self._stop_for_a_while(self._one_of(Actor))

    async def _driver_stopped_and_continued(self) -> None:
        await self._stop_for_a_while(self._victim())

    def _worker_machine(self) -> Machine:
        machines = self._cluster.worker_machines
        return machines[self._chance.randrange(len(machines))]

    async def _worker_machine_suspended(self) -> None:
        machine, slept_s = self._worker_machine(), self._chance.random() ** 2 * 2000.0
        machine.asleep = True
        try:
            await asyncio.sleep(slept_s)
            machine.suspended_s += slept_s
        finally:
            machine.asleep = False

    async def _worker_machine_lost(self) -> None:
        machine = self._worker_machine()
        for process in self._cluster.running_commands():
            if process.machine is machine:
                self._cluster.kill(process)

    async def _driver_machine_without_power(self) -> None:
        """The driver goes, and the coordinator, placed beside it; the batch's disk is another machine's."""
        machine = self._cluster.machine
        for process in self._cluster.running_commands():
            if process.machine is machine:
                self._cluster.kill(process)
        machine.boots += 1

    async def _head_of_ray_lost(self) -> None:
        """Nothing that Ray started stays, sooner or later, and for a while it starts nothing."""
        self._cluster.ray.lose_head(self._chance.random() ** 2 * 300.0)

    async def _restored_ledger(self) -> None:
        """Take a backup of the ledger; the next time, put it back while nothing runs.

        One from before the batch began knows nothing of it, and its next run begins another one.
        """
        server = self._cluster.server
        if not self._backup:
            self._backup = server.committed() if self._cluster.book.records else b""
        elif not self._cluster.running_commands() and self._is_remembered():
            server.restore(self._backup)
            self._backup = b""
            self._cluster.forgetful = True
            self._cluster.book.on_restored(server.database)

    def _is_remembered(self) -> bool:
        """Whether the driver has noted each submission: it hears a moment later of what a worker has sent."""
        noted: dict[str, int] = {}
        for data in self._cluster.machine.state.values():
            for line in data.splitlines()[1:]:
                digest, number = json.loads(line)[0].split(".")[3:5]
                noted[digest] = max(int(number), noted.get(digest, 0))
        records = self._cluster.book.records.values()
        return all(noted.get(row_digest(record), 0) >= record.submission_no for record in records)

    async def _worker_clock_forwards(self) -> None:
        self._set_clock(1.0)

    async def _worker_clock_backwards(self) -> None:
        self._set_clock(-1.0)

    def _set_clock(self, sign: float) -> None:
        machine = self._worker_machine()
        error_s = machine.clock_error_s + sign * self._chance.choice((5.0, 120.0, 3600.0))
        machine.clock_error_s = max(-MAX_CLOCK_ERROR_S, min(MAX_CLOCK_ERROR_S, error_s))

    async def _database_restarts(self) -> None:
        self._cluster.server.restart()

    async def _database_away(self) -> None:
        self._cluster.server.restart()
        await self._for_a_while(self._cluster.server, "away", 300.0)

    async def _database_takes_no_writes(self) -> None:
        await self._for_a_while(self._cluster.server, "read_only", 300.0)
