"""The world of one cluster: a server, machines with clocks of their own, and processes that Ray starts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import psycopg

from pipeline.ledger import postgres, rows
from pipeline.model import State
from tests.simulation import scheduler
from tests.simulation.book import Book
from tests.simulation.cluster import green
from tests.simulation.cluster.command import run_cluster_command
from tests.simulation.cluster.connection import Connection, Line
from tests.simulation.cluster.ray import Ray
from tests.simulation.cluster.server import Server, compile_statements, translate
from tests.simulation.cluster.trouble import ClusterTrouble
from tests.simulation.machine import Machine, Process
from tests.simulation.world import World

if TYPE_CHECKING:
    import sqlite3

    from pipeline.model import Record
    from tests.simulation.cluster.server import Session
    from tests.simulation.history import Options
    from tests.simulation.user import User


class ClusterBook(Book):
    """The invariants, checked against each commit as the server has it: whether its answer arrives or not."""

    _NEW_STEPS: Final = (
        "SELECT rowid, key, version, after FROM veobatch_transitions WHERE rowid > ? ORDER BY rowid"
    )
    world: ClusterWorld
    _seen = 0
    _database: sqlite3.Connection | None = None

    def on_server_commit(self, database: sqlite3.Connection) -> None:
        """Check the steps of a transaction that took effect, and take over what the ledger holds."""
        sql, texts = self._NEW_STEPS, compile_statements(postgres._DIALECT)
        self._database = database
        steps = database.execute(sql, (self._seen,)).fetchall()
        changed = dict.fromkeys(key for _, key, _, _ in steps)
        stored = {key: self._read(database, texts.get, key) for key in changed}
        for seen, key, version, after in steps:
            last, before = stored[key][0], self.records.get(key)
            step = (
                last
                if version == last.version
                else replace(before or last, version=version, state=State(after))
            )
            self._check_step(before, step)
            self._seen, self.records[key] = seen, step
        for key, (record,) in stored.items():
            if (self.records[key].version, self.records[key].state) != (record.version, record.state):
                self.world.violated("the ledger's row is not what its history says", key)
        if database.execute("SELECT count(*) FROM veobatch_records").fetchone()[0] > len(self.records):
            self.on_added(self._read(database, texts.load))

    def on_restored(self, database: sqlite3.Connection) -> None:
        """Take over what an older copy of the ledger holds.

        A create's answer with another row's id is noticed by who has that id, which is forgotten, too.
        """
        self._database = database
        (last,) = database.execute("SELECT max(rowid) FROM veobatch_transitions").fetchone()
        self._seen = last or 0
        load = compile_statements(postgres._DIALECT).load
        self.records = {record.key: record for record in self._read(database, load)}
        self.known_generations = {r.generation_id: None for r in self.records.values() if r.generation_id}

    def _read(self, database: sqlite3.Connection, sql: str, *key: str) -> list[Record]:
        return list(rows.to_records(database.execute(translate(sql), ("default", *key)).fetchall()))

    def has_rivals(self) -> bool:
        """A worker of a dead driver may be about to send what it has written down, until Ray ends it."""
        return self.world.ray.is_orphaned(scheduler.running())

    def check_nothing_left(self) -> None:
        """Learn first which rows have left the manifest: that is no step."""
        if self._database is not None:
            load = compile_statements(postgres._DIALECT).load
            self.records = {record.key: record for record in self._read(self._database, load)}
        super().check_nothing_left()


class WorldLine(Line):
    """A line on which a statement, or its answer, may be lost, and a client die or fall silent."""

    def __init__(self, world: ClusterWorld) -> None:
        super().__init__(world.server, green.pause)
        self._world, self.client = world, scheduler.running()
        self._chance = world.chance.stream(f"line {scheduler.running().number}")

    def before(self, session: Session, sql: str) -> None:
        world = self._world
        world.on_step()
        kind = world.chance.draw("database")
        if kind:
            world.tell("DATABASE", kind, sql.partition(" ")[0])
        if kind == "silent for a while":
            self.pause(20.0 * self._chance.random() ** 2)
            world.on_step()
        if kind == "lost before":
            self._lose(session, sql)
        self._after = kind == "lost after"

    def after(self, session: Session, sql: str) -> None:
        self._world.on_step()
        if self._after:
            self._lose(session, "")

    def _lose(self, session: Session, sql: str) -> None:
        """The line breaks; what the server has heard by then may take effect later."""
        server, commits = self.server, sql == "COMMIT" and self._chance.random() < 0.5
        session.working = True  # the server waits for no more of it

        def end() -> None:
            if session.ended is None:
                if commits:
                    server.commit(session)
                server.end(session)

        self._world.ray.later(self._chance.choice((0.0, 0.0, 5.0)) * self._chance.random(), end)
        raise psycopg.OperationalError("the connection was lost")


class ClusterWorld(World):
    """One simulated cluster."""

    book: ClusterBook
    process_type = green.GreenProcess
    command = staticmethod(run_cluster_command)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.book = book = ClusterBook(self)
        self.server = Server(lambda: self.now, book.on_server_commit)
        self.worker_machines = [self._worker_machine(number) for number in range(2)]
        self.ray = Ray(self)

    def choose_options(self) -> Options:
        """Return short waits: a cluster takes many steps."""
        rng, chosen = self.chance.stream("cluster options"), super().choose_options()
        return replace(
            chosen,
            concurrency=rng.choice((2, 4, 12)),
            max_cost=rng.choice((None, None, 1.2 * rng.randrange(1, 6) + 0.01)),
            reconcile_after=rng.choice((60.0, 300.0)),
            timeout=1800.0,
            workers=rng.choice((2, 2, 3)),
        )

    def max_steps(self) -> int:
        """Heartbeats and snapshots take steps as long as a run lasts: 50 a second were seen."""
        return super().max_steps() + round(200 * self.now)

    def make_trouble(self, user: User) -> ClusterTrouble:
        return ClusterTrouble(self, user)

    def _worker_machine(self, number: int) -> Machine:
        machine = Machine(self, f"worker{number}")
        machine.disk = self.machine.disk
        return machine

    def on_gone(self, process: Process) -> None:
        """The kernel closes a process's connections; Ray hears of its end."""
        for session in [session for session in self.server.sessions if session.client is process]:
            self.server.end(session)
        self.ray.on_gone(process)

    def connect(self, **_: Any) -> Connection:
        """Stand in for `psycopg.connect`."""
        self.on_step()
        if self.chance.draw("connect"):
            raise psycopg.OperationalError("connection refused")
        return Connection(WorldLine(self))
