"""A lost database connection pauses; it does not fail jobs, and it makes no step twice."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from pipeline.errors import Conflict, LedgerError, UsageError
from pipeline.ledger import Ledger, writer
from pipeline.model import State, Transition
from tests.crash.batches import wait_until
from tests.integration.ledger_servers import (
    PASSWORD,
    PostgresServer,
    make_record,
    read_history,
    shared_postgres,
)
from tests.integration.ports import free_port
from tests.integration.raw_server import LoopbackServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from pipeline.model import Record


class CuttingProxy(LoopbackServer):
    """Stands between ledger and server; `cut` says where the connection of the next COMMIT breaks:
    before the server hears of it, after it has answered, or, when `late`, until `goes_on` says so."""

    def __init__(self, upstream: int) -> None:
        super().__init__()
        self.upstream = upstream
        self.cut = ""
        self.shutdown_statement = b""
        """A statement's text: in place of saying that its rows are done, the server shuts down."""
        self.has_cut = asyncio.Event()
        self.accepts_connections = asyncio.Event()
        self.accepts_connections.set()
        self.may_continue = asyncio.Event()

    async def handle_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.accepts_connections.wait()
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        answers = asyncio.create_task(self._forward(up_reader, writer))
        try:
            while data := await reader.read(65536):
                cut = self.cut if b"COMMIT" in data else ""
                if cut:
                    answers.cancel()
                    await asyncio.wait([answers])
                    self.cut = ""
                    self.accepts_connections.clear()
                if cut == "late":
                    self.has_cut.set()
                    writer.close()
                    await self.may_continue.wait()
                if self.shutdown_statement and self.shutdown_statement in data:
                    self.shutdown_statement = b""
                    answers.cancel()
                    await asyncio.wait([answers])
                    answers = asyncio.create_task(self._shut_down(up_reader, writer))
                if cut != "before":
                    up_writer.write(data)
                if cut == "after":
                    await up_reader.readuntil(b"COMMIT\0")
                if cut:
                    self.has_cut.set()
                    break
        finally:
            answers.cancel()
            for end in (up_writer, writer):
                end.close()
                with contextlib.suppress(ConnectionError):
                    await end.wait_closed()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def _shut_down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass messages on until the one that says "ready"; in its place the last word, and no end."""
        while (kind := await reader.readexactly(1)) != b"Z":
            length = await reader.readexactly(4)
            writer.write(kind + length + await reader.readexactly(int.from_bytes(length) - 4))
        fields = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"
        writer.write(b"E" + (len(fields) + 4).to_bytes(4) + fields)


@pytest.fixture
async def proxy() -> AsyncIterator[CuttingProxy]:
    async with CuttingProxy(shared_postgres().port) as made:
        yield made


async def test_a_commit_whose_answer_is_lost_counts_once(proxy: CuttingProxy) -> None:
    database = shared_postgres().new_database()
    pauses: list[str] = []
    async with await Ledger.open(
        shared_postgres().url(database, proxy.port), on_pause=pauses.append
    ) as ledger:
        rows = [make_record(f"r{n}", n) for n in range(5)]
        await ledger.add(rows)
        proxy.cut = "after"
        commits = [asyncio.create_task(ledger.commit(row, row.evolve(State.SUBMITTING))) for row in rows]
        await proxy.has_cut.wait()
        proxy.accepts_connections.set()
        assert [record.version for record in await asyncio.gather(*commits)] == [1] * 5
        for row in rows:
            assert [line.version for line in await read_history(ledger, row.key)] == [1]
    assert "the connection to the database is lost" in pauses[0]
    assert "is back" in pauses[1]
    assert PASSWORD not in "".join(pauses)


async def test_a_lost_step_that_another_has_made_meanwhile_is_a_conflict(proxy: CuttingProxy) -> None:
    """Even one that is the same in every column: else both would go on and pay."""
    database = shared_postgres().new_database()
    async with (
        await Ledger.open(shared_postgres().url(database, proxy.port)) as ledger,
        await Ledger.open(shared_postgres().url(database)) as other,
    ):
        row = make_record("mona")
        await ledger.add([row])
        step = row.evolve(State.SUBMITTING, correlation_id="same")
        proxy.cut = "before"
        commit = asyncio.create_task(ledger.commit(row, step))
        await proxy.has_cut.wait()
        assert await other.commit(row, step) == step
        proxy.accepts_connections.set()
        with pytest.raises(Conflict):
            await commit
        assert len(await read_history(ledger, row.key)) == 1


async def test_rows_whose_adding_got_no_answer_are_there_once(proxy: CuttingProxy) -> None:
    database = shared_postgres().new_database()
    async with await Ledger.open(shared_postgres().url(database, proxy.port)) as ledger:
        rows = [make_record(f"r{n}", n) for n in range(3)]
        proxy.cut = "after"
        adding = asyncio.create_task(ledger.add(rows))
        await proxy.has_cut.wait()
        proxy.accepts_connections.set()
        await adding
        assert await ledger.load() == rows


async def test_a_shutdown_between_the_rows_and_their_end_pauses(proxy: CuttingProxy) -> None:
    """The driver's connection stays half way through its batch: neither closed nor of any use."""
    said: list[str] = []
    url = shared_postgres().url(shared_postgres().new_database(), port=proxy.port)
    async with await Ledger.open(url, on_pause=said.append) as ledger:
        rows = [make_record(f"r{n}", n) for n in range(3)]
        proxy.shutdown_statement = b"INSERT INTO veobatch_records"
        await ledger.add(rows)
        assert await ledger.load() == rows
        proxy.shutdown_statement = b"UPDATE veobatch_records"
        moved = await ledger.commit(rows[0], rows[0].evolve(State.SUBMITTING))
        assert await ledger.load() == [moved, *rows[1:]]
        assert [line.version for line in await read_history(ledger, moved.key)] == [moved.version]
        assert len(said) == 4, said


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_claim_without_response_leases_rows_once(proxy: CuttingProxy, cut: str) -> None:
    database = shared_postgres().new_database()
    async with (
        await Ledger.open(shared_postgres().url(database, proxy.port)) as account,
        await Ledger.open(shared_postgres().url(database)) as worker,
    ):
        await account.add([make_record(f"r{n}", n) for n in range(5)])
        epoch, _ = await account.begin_epoch()
        proxy.cut = cut
        claim = asyncio.create_task(account.claim(epoch, "a", 3))
        await proxy.has_cut.wait()
        proxy.accepts_connections.set()
        lent = await claim
        assert [row.record.position for row in lent] == [0, 1, 2]
        assert [row.record.position for row in await account.claim(epoch, "b", 9)] == [3, 4]
        worker.fence({row.record.key: row.lease for row in lent})
        for row in lent:
            await worker.commit(row.record, row.record.evolve(State.SUBMITTING))


@pytest.mark.parametrize("cut", ["before", "after"])
async def test_a_revocation_that_got_no_answer_tells_what_was_in_flight(
    proxy: CuttingProxy, cut: str
) -> None:
    """Else the slots of these rows would be free while the vendor still renders them."""
    database = shared_postgres().new_database()
    async with await Ledger.open(shared_postgres().url(database, proxy.port)) as account:
        rows = [make_record(f"r{n}", n) for n in range(3)]
        await account.add(rows)
        epoch, _ = await account.begin_epoch()
        await account.claim(epoch, "a", 3)
        await account.commit_many([Transition(row, row.evolve(State.GENERATING)) for row in rows[:2]])
        proxy.cut = cut
        revocation = asyncio.create_task(account.revoke(epoch, "a", [rows[0].key]))
        await proxy.has_cut.wait()
        proxy.accepts_connections.set()
        assert await revocation == (frozenset({rows[1].key}), True)
        assert [row.lease for row in await account.claim(epoch, "b", 9)] == [3, 3]


async def test_a_claim_waits_for_the_end_of_its_lost_attempt(proxy: CuttingProxy) -> None:
    """The server may still be busy with the first attempt when the second one asks what became of it."""
    database = shared_postgres().new_database()
    async with await Ledger.open(shared_postgres().url(database, proxy.port)) as account:
        await account.add([make_record(f"r{n}", n) for n in range(4)])
        epoch, _ = await account.begin_epoch()
        proxy.cut = "late"
        claim = asyncio.create_task(account.claim(epoch, "a", 2))
        await proxy.has_cut.wait()
        proxy.accepts_connections.set()
        await _wait_for_lock_waiter(database)
        proxy.may_continue.set()
        assert [row.record.position for row in await claim] == [0, 1]
        assert [row.record.position for row in await account.claim(epoch, "b", 9)] == [2, 3]


async def _wait_for_lock_waiter(database: str) -> None:
    async with await psycopg.AsyncConnection.connect(
        shared_postgres().url(database), autocommit=True
    ) as connection:
        while True:
            found = await connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if await found.fetchone() != (0,):
                return
            await asyncio.sleep(0.01)


async def test_claims_and_revocations_go_by_their_index() -> None:
    """An index serves only a query that says what it says: the words must not drift apart."""
    url = shared_postgres().url(shared_postgres().new_database())
    async with await Ledger.open(url) as ledger:
        await ledger.add([make_record(f"r{n}", n) for n in range(2000)])
        epoch, _ = await ledger.begin_epoch()
        await ledger.claim(epoch, "a", 100)
        sql = ledger._backend.sql
        async with await psycopg.AsyncConnection.connect(url) as connection:
            await connection.execute("ANALYZE veobatch_records")
            claim = await _plan(connection, sql.claim, ("default", 20, "b", "default"))
            assert "Index Scan using veobatch_records_free" in claim
            assert "Sort" not in claim
            for text, values in ((sql.revoke, ("default", "a")), (sql.revoke_all, ("default",))):
                assert "veobatch_records_lent" in await _plan(connection, text, values)
            assert "veobatch_records_free" in await _plan(connection, sql.unleased_in_flight, ("default",))


async def _plan(connection: psycopg.AsyncConnection[Any], sql: str, values: tuple[object, ...]) -> str:
    found = await connection.execute(f"EXPLAIN {sql}".encode(), values)
    return "\n".join(str(line) for (line,) in await found.fetchall())


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "immediate"])
async def test_a_server_that_restarts_in_mid_run_costs_only_time(
    own_server: PostgresServer, how: signal.Signals
) -> None:
    paused = asyncio.Event()
    async with await Ledger.open(own_server.url("postgres"), on_pause=lambda _: paused.set()) as ledger:
        rows = [make_record(f"r{n}", n) for n in range(8)]
        await ledger.add(rows)
        ends = asyncio.Event()

        async def go_on(record: Record) -> Record:
            while not ends.is_set():
                to = State.PENDING if record.state is State.SUBMITTING else State.SUBMITTING
                record = await ledger.commit(record, record.evolve(to))
            return record

        running = [asyncio.create_task(go_on(row)) for row in rows]
        await ledger.meta_set("first", "steps")
        await asyncio.to_thread(own_server.stop, how)
        await paused.wait()
        await asyncio.to_thread(own_server.start)
        await ledger.meta_set("back", "again")
        ends.set()
        records = await asyncio.gather(*running)
        assert await ledger.load() == records
        for record in records:
            versions = [line.version for line in await read_history(ledger, record.key)]
            assert versions == list(range(1, record.version + 1))


async def _commit_until(ledger: Ledger, row: Record, condition: Callable[[], bool]) -> Record:
    """Commit one step after another, since a connection takes over a reloaded setting some time later."""
    while not condition():
        row = await ledger.commit(row, row.evolve(State.SUBMITTING))
    return row


async def test_a_server_that_takes_no_writes_for_a_while_is_waited_for(own_server: PostgresServer) -> None:
    """So it looks when another server takes over: the old one, or the new one too early, is a replica."""
    said: list[str] = []
    async with await Ledger.open(own_server.url("postgres"), on_pause=said.append) as ledger:
        row = make_record("mona")
        await ledger.add([row])
        own_server.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        own_server.execute("SELECT pg_reload_conf()")
        step = asyncio.create_task(_commit_until(ledger, row, lambda: bool(said)))
        await wait_until(lambda: bool(said) or step.done())
        own_server.execute("ALTER SYSTEM RESET default_transaction_read_only")
        own_server.execute("SELECT pg_reload_conf()")
        moved = await step
        assert await ledger.load() == [moved]
        assert "read-only transaction" in said[0]
        assert "is back" in said[-1]


async def test_loading_begins_again_when_its_connection_is_lost() -> None:
    database = shared_postgres().new_database()
    async with await Ledger.open(shared_postgres().url(database)) as ledger:
        rows = [make_record(f"r{n}", n) for n in range(3)]
        await ledger.add(rows)
        shared_postgres().execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'veobatch%'"
        )
        assert await ledger.load() == rows
        assert await ledger.load() == rows
        assert await ledger.counts() == {State.PENDING: 3}


async def test_closing_without_a_database_gives_up(
    own_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_CLOSE_GRACE_S", 0.2)
    ledger = await Ledger.open(own_server.url("postgres"))
    row = make_record("mona")
    await ledger.add([row])
    await asyncio.to_thread(own_server.stop)
    commit = asyncio.create_task(ledger.commit(row, row.evolve(State.SUBMITTING)))
    await asyncio.sleep(0)
    await ledger.close()
    with pytest.raises(LedgerError, match="the database cannot be reached"):
        await commit


async def test_no_word_of_ours_holds_the_password() -> None:
    database = shared_postgres().new_database()
    wrong = "wr0ng:p@ss"
    nowhere = f"postgresql://keeper:{PASSWORD}@127.0.0.1:notaport/db"
    for url in (
        shared_postgres().url(database, password=wrong),
        shared_postgres().url(database, port=free_port(), password=wrong),
        shared_postgres().url("missing", password=PASSWORD),
        nowhere,
    ):
        with pytest.raises(LedgerError) as caught:
            await Ledger.open(url)
        words = "".join(_error_chain(caught.value))
        assert PASSWORD not in words
        assert wrong not in words


def _error_chain(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        yield repr(error)
        error = error.__cause__ or error.__context__


async def test_a_newer_ledger_is_left_alone() -> None:
    url = shared_postgres().url(shared_postgres().new_database())
    async with await Ledger.open(url) as ledger:
        await ledger.add([make_record("mona")])
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO veobatch_schema_version VALUES (7, 0.0)")
    connection.close()
    with pytest.raises(LedgerError, match=r"newer veobatch \(ledger version 7"):
        await Ledger.open(url)


async def test_many_that_make_the_tables_at_once_share_them() -> None:
    url = shared_postgres().url(shared_postgres().new_database())
    opened = await asyncio.gather(*(Ledger.open(url) for _ in range(6)))
    assert len({ledger.identity for ledger in opened}) == 1
    for ledger in opened:
        await ledger.close()


async def test_the_connection_asks_for_durable_commits() -> None:
    database = shared_postgres().new_database()
    shared_postgres().execute(f"ALTER DATABASE {database} SET synchronous_commit = off")
    async with await Ledger.open(shared_postgres().url(database)) as ledger:
        cursor = ledger._backend.cursor(reading=False)
        cursor.execute("SHOW synchronous_commit")
        assert cursor.fetchone() == ("on",)


async def test_without_the_driver_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "pipeline.ledger.postgres", raising=False)
    with pytest.raises(UsageError, match="pip install 'psycopg"):
        await Ledger.open("postgresql://keeper@127.0.0.1/db")


async def test_databases_of_another_kind_are_refused() -> None:
    with pytest.raises(UsageError, match=r"not mysql://\.\.\.$") as caught:
        await Ledger.open(f"mysql://keeper:{PASSWORD}@127.0.0.1/db")
    assert PASSWORD not in str(caught.value)
