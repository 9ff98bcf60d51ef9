"""The model of PostgreSQL beside the real one: what a seed chooses to do has the same outcome on both."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import psycopg
import pytest
from anyio import to_thread

from pipeline.errors import VeobatchError
from pipeline.ledger import Ledger, postgres
from pipeline.ledger.schema import migrations
from pipeline.ledger.statements import compile_statements
from pipeline.model import LEGAL_TRANSITIONS, Failure, Pick, Transition
from tests.integration.ledger_servers import make_record, shared_postgres
from tests.simulation.cluster.connection import Connection, Line
from tests.simulation.cluster.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.model import Record

OPERATIONS: Final = 100
STATEMENTS: Final = 250
END_SESSIONS: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'"
SQL: Final = compile_statements(postgres._DIALECT)


class Player:
    """Does to a ledger what a seed says: as a driver, and as a worker whose steps are fenced."""

    def __init__(self, seed: int, driver: Ledger, worker: Ledger, end_sessions: Callable[[], None]) -> None:
        self._random = random.Random(seed)
        self._driver, self._worker, self._end_sessions = driver, worker, end_sessions
        self._known: dict[str, Record] = {}
        self._leases: dict[str, int] = {}
        self._epoch = 0
        worker.fence(self._leases)

    async def play(self) -> list[object]:
        """Return what came of each operation."""
        names = [name for name in dir(self) if name.startswith("do_")]
        return [await self._outcome(self._random.choice(names)) for _ in range(OPERATIONS)]

    async def _outcome(self, name: str) -> object:
        try:
            return name, await getattr(self, name)()
        except (VeobatchError, ValueError) as error:
            return name, type(error).__name__

    def _some(self) -> Record:
        return self._random.choice(list(self._known.values()) or [make_record("none")])

    def _text(self) -> str:
        return self._random.choice(("plain", "", "nul \0 in it", "half \ud83d a pair", "ünïcödé"))

    def _step(self, record: Record) -> Transition:
        rng = self._random
        failure = Failure("code", self._text(), rng.random() < 0.5) if rng.random() < 0.3 else None
        states = sorted((record.state, *LEGAL_TRANSITIONS[record.state]))
        changes: dict[str, Any] = {
            "correlation_id": f"c{rng.randrange(9)}",
            "submission_no": record.submission_no + 1,
        }
        changes |= {"submitted_at": rng.choice((None, 5.5, 1e9)), "reserved_usd": rng.choice((None, 1.2))}
        changes |= {"failure": failure, "usd_spent": rng.choice((None, 0.5)), "generation_id": self._text()}
        return Transition(record, record.evolve(rng.choice(states), **changes))

    async def _reload(self) -> list[Record]:
        loaded = await self._driver.load()
        self._known = {record.key: record for record in loaded}
        return loaded

    async def do_add(self) -> object:
        names = [f"r{self._random.randrange(12)}" for _ in range(self._random.randrange(1, 4))]
        await self._driver.add([make_record(name, int(name[1:])) for name in dict.fromkeys(names)])
        return await self._reload()

    async def do_step(self) -> object:
        step = self._step(self._some())
        made = await self._driver.commit(step.before, step.after)
        if self._random.random() < 0.7:
            self._known[made.key] = made
        return made

    async def do_many_steps(self) -> object:
        steps = [self._step(self._some()) for _ in range(self._random.randrange(1, 5))]
        outcomes = await self._driver.commit_many(steps)
        return [str(outcome) for outcome in outcomes], await self._reload()

    async def do_fenced_step(self) -> object:
        step = self._step(self._some())
        return await self._worker.commit(step.before, step.after), await self._reload()

    async def do_epoch(self) -> object:
        self._epoch, in_flight = await self._driver.begin_epoch()
        return self._epoch, in_flight

    async def do_claim(self) -> object:
        epoch = self._epoch - (self._random.random() < 0.1)
        claimed = await self._driver.claim(epoch, self._random.choice("ab"), self._random.randrange(5))
        self._leases.update((row.record.key, row.lease) for row in claimed)
        return claimed

    async def do_revoke(self) -> object:
        left = [self._some().key] if self._random.random() < 0.3 else []
        return await self._driver.revoke(self._epoch, self._random.choice("ab"), left)

    async def do_release(self) -> object:
        await self._driver.release(self._epoch, [self._some().key])
        return None

    async def do_positions(self) -> object:
        record = self._some()
        place = self._random.choice((record.position, -1 - int(record.id[1:] if record.id != "none" else 0)))
        await self._driver.set_positions({record.key: place}, {record.key: self._random.randrange(99)})
        return await self._reload()

    async def do_picks(self) -> object:
        await self._driver.set_picks({self._some().key: Pick("picked", self._text())})
        return await self._driver.picks()

    async def do_facts(self) -> object:
        await self._driver.meta_set("name", self._text().replace("\0", "").encode(errors="replace").decode())
        return await self._worker.meta_get("name"), await self._driver.meta_get("other")

    async def do_read(self) -> object:
        ledger, record = self._worker, self._some()
        counts = [await ledger.counts(), await ledger.counts(removed=True)]
        return await ledger.get(record.key), counts, await ledger.totals(), await ledger.submissions()

    async def do_money_again(self) -> object:
        await self._driver.put_submissions((await self._driver.submissions())[:3])
        return await self._driver.submissions()

    async def do_sessions_end(self) -> None:
        await to_thread.run_sync(self._end_sessions)


async def play(seed: int, location: str, end_sessions: Callable[[], None]) -> list[object]:
    async with await Ledger.open(location) as driver, await Ledger.open(location) as worker:
        return await Player(seed, driver, worker, end_sessions).play()


@pytest.mark.parametrize("seed", range(3))
async def test_a_ledger_does_on_the_model_what_it_does_on_postgresql(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_QUICK_LOSS_S", 0.0)  # else each end is waited for longer than the last
    server, database = Server(lambda: 0.0, lambda _: None), shared_postgres().new_database()
    ends = END_SESSIONS.format(database)
    real = await play(seed, shared_postgres().url(database), lambda: shared_postgres().execute(ends))
    with mock.patch.object(psycopg, "connect", side_effect=lambda **_: Connection(Line(server))):
        modelled = await play(seed, "postgresql://keeper@model/ledger", server.restart)
    for number, (expected, found) in enumerate(zip(real, modelled, strict=True)):
        assert found == expected, f"operation {number} of seed {seed}"


Statement = tuple[int, str, tuple[Any, ...]]
READS: Final = (
    (SQL.meta_get, ("default", "name")),
    (SQL.stamp_get, ("default", "key", 1)),
    (postgres._TRY_LOCK_SQL, (4711,)),
)
LOCK: Final = (SQL.epoch_get, ("default", "name"))
TWICE: Final = (SQL.history_add, ("default", "key", 1, "a", "b", 1.0, 1))


def statements(seed: int) -> list[Statement]:
    """Return what two sessions do in turn: who, the statement and its parameters; all write the same row."""
    rng = random.Random(seed)
    made: list[Statement] = [(0, SQL.meta_set, ("default", "name", "")), (0, *TWICE)]
    states = ["idle", "idle"]
    for number in range(STATEMENTS):
        write = (SQL.meta_set, ("default", "name", str(number)))
        who = rng.randrange(2)
        mine, others = states[who], states[1 - who]
        ends = [("COMMIT", ()), ("ROLLBACK", ())] if mine != "idle" else [("BEGIN", ())]
        # A lock that both share, and rows that differ, are what the model is stricter in.
        free = [LOCK, TWICE] if others != "holds" else []
        sql, row = rng.choice([*ends, *READS, write, write, *free])
        made.append((who, sql, row))
        if (sql, row) in ends:
            states[who] = "open" if sql == "BEGIN" else "idle"
        elif mine in ("open", "holds") and (sql, row) in (write, LOCK, TWICE):
            states[who] = "failed" if (sql, row) == TWICE or others == "holds" else "holds"
    return made


def carry_out(sessions: list[Any], script: list[Statement]) -> list[object]:
    """Return what each statement finds, or the name of its error."""
    outcomes: list[object] = []
    for who, sql, row in script:
        try:
            cursor = sessions[who].execute(sql, row or None)
            returns = sql.startswith("SELECT") or "RETURNING" in sql
            outcomes.append(cursor.fetchall() if returns else cursor.rowcount)
        except psycopg.Error as error:
            outcomes.append(type(error).__name__)
    return outcomes


@pytest.mark.parametrize("seed", range(3))
def test_two_sessions_see_of_each_other_on_the_model_what_they_see_on_postgresql(seed: int) -> None:
    """Nothing of what is open, all that is committed; one waits for the other's rows, and then gives up."""
    database, script = shared_postgres().new_database(), statements(seed)
    url = shared_postgres().url(database)
    with psycopg.connect(url, autocommit=True) as first, psycopg.connect(url, autocommit=True) as second:
        for _, texts in migrations(postgres._DIALECT, 0):
            for text in texts:
                first.execute(text.encode())
        for session in (first, second):
            session.execute("SET lock_timeout = '10ms'")
        expected = carry_out([first, second], script)
    server = Server(lambda: 0.0, lambda _: None)
    found = carry_out([Connection(Line(server)), Connection(Line(server))], script)
    assert "LockNotAvailable" in expected
    assert "UniqueViolation" in expected
    for number, (one, other) in enumerate(zip(expected, found, strict=True)):
        assert other == one, f"statement {number} of seed {seed}: {script[number]}"
