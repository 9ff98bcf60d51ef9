"""The ledger's file: made in one piece, known for what it is, and left alone when it is not whole."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import sqlite3
from typing import TYPE_CHECKING

import pytest

from pipeline.errors import LedgerError, StoreError
from pipeline.ledger import Ledger, sqlite_file
from pipeline.ledger.compiled_statements import SCHEMA_VERSION
from pipeline.ledger.sqlite import SqliteBackend
from pipeline.model import State
from tests.integration.ledger_servers import file_names, make_record, read_history

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out" / "ledger.sqlite3"


@pytest.fixture
def filled(path: Path) -> Path:
    """A closed ledger of 300 rows."""

    async def fill() -> None:
        async with await Ledger.open(path) as ledger:
            await ledger.add([make_record(f"r{n}", n) for n in range(300)])

    asyncio.run(fill())
    return path


@pytest.fixture
def locked(filled: Path, tmp_path: Path) -> Iterator[Path]:
    """The ledger in a folder that may only be read. Root may write anywhere: be someone else then."""
    as_root = os.geteuid() == 0
    filled.chmod(0o444)
    filled.parent.chmod(0o555)
    if as_root:
        made = [folder for folder in tmp_path.parents if folder.name.startswith(("pytest-", "popen-"))]
        for folder in (tmp_path, *made):
            folder.chmod(0o755)
        os.seteuid(65534)
    yield filled
    if as_root:
        os.seteuid(0)
    filled.parent.chmod(0o755)


async def test_a_closed_ledger_is_one_file(path: Path) -> None:
    async with await Ledger.open(f"sqlite:///{path}") as ledger:
        await ledger.add([make_record("mona")])
    assert file_names(path.parent) == [path.name]


async def test_what_a_killed_creation_left_is_swept(path: Path) -> None:
    _write_file(path.with_name("mine.new"), b"")
    _write_file(path.with_name("ledger.sqlite3.2024.new"), b"")
    _write_file(path.with_name("ledger.sqlite3.99-0badf00d.new"), b"")
    _write_file(path.with_name("ledger.sqlite3.99-0badf00d.new-journal"), b"")
    async with await Ledger.open(path):
        pass
    assert file_names(path.parent) == [path.name, "ledger.sqlite3.2024.new", "mine.new"]


async def test_many_that_make_it_at_once_share_one(path: Path) -> None:
    opened = await asyncio.gather(*(Ledger.open(path) for _ in range(8)))
    assert len({ledger.identity for ledger in opened}) == 1
    for ledger in opened:
        await ledger.close()


def _write_file(path: Path, content: bytes) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return content


def _content(path: Path) -> bytes:
    return path.read_bytes()


def _truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _overwritten(content: bytes) -> bytes:
    middle = len(content) // 8192 * 4096
    return content[:middle] + b"\x5a" * 4096 + content[middle + 4096 :]


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    "damage",
    [lambda _: b"", lambda _: b"not a database at all\n" * 300, _truncated, _overwritten],
    ids=["empty", "garbage", "cut", "overwritten"],
)
async def test_a_damaged_file_is_named_and_left_as_it_is(
    filled: Path, damage: Callable[[bytes], bytes], read_only: bool
) -> None:
    content = _write_file(filled, damage(_content(filled)))
    with pytest.raises(LedgerError, match="the ledger is damaged, and was left as it is") as caught:
        await Ledger.open(filled, read_only=read_only)
    assert str(filled) in str(caught.value)
    assert _content(filled) == content


async def test_a_newer_ledger_is_left_alone(filled: Path) -> None:
    with sqlite3.connect(filled) as connection:
        connection.execute("INSERT INTO veobatch_schema_version VALUES (7, 0.0)")
    connection.close()
    with pytest.raises(
        LedgerError, match=rf"newer veobatch \(ledger version 7, this one knows up to {SCHEMA_VERSION}\)"
    ):
        await Ledger.open(filled)


async def test_someone_elses_database_is_left_alone(path: Path) -> None:
    _write_file(path, b"")
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE photos (id)")
    connection.close()
    content = _content(path)
    with pytest.raises(LedgerError, match="not a ledger of veobatch"):
        await Ledger.open(path)
    assert _content(path) == content


async def test_a_folder_in_its_place_is_named(path: Path) -> None:
    _write_file(path / "file", b"")
    with pytest.raises(LedgerError, match="there is no ledger here"):
        await Ledger.open(path)


async def test_a_folder_that_may_only_be_read(locked: Path) -> None:
    with pytest.raises(LedgerError, match="the ledger cannot be opened: check the permissions"):
        await Ledger.open(locked.with_name("other.sqlite3"))
    with pytest.raises(LedgerError, match="the ledger cannot be written: check the permissions"):
        await Ledger.open(locked)
    async with await Ledger.open(locked, read_only=True) as ledger:
        assert await ledger.counts() == {State.PENDING: 300}
    assert file_names(locked.parent) == [locked.name]


async def test_reading_only_leaves_nothing_behind(filled: Path) -> None:
    async with await Ledger.open(filled, read_only=True) as ledger:
        assert len(await ledger.load()) == 300
    assert file_names(filled.parent) == [filled.name]


async def test_a_full_disk_fails_the_steps_not_the_ledger(filled: Path) -> None:
    async with await Ledger.open(filled) as ledger:
        rows = await ledger.load()
        store = ledger._backend
        assert isinstance(store, SqliteBackend)
        assert store._writer is not None
        (pages,) = store._writer.execute("PRAGMA max_page_count = 1").fetchone()  # as many as there are
        text = "x" * 100_000
        steps = [row.evolve(State.SUBMITTING, body=text) for row in rows[:5]]
        outcomes = await asyncio.gather(
            *(ledger.commit(row, step) for row, step in zip(rows, steps, strict=False)),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [StoreError] * 5, pages
        assert "disk is full" in str(outcomes[0])
        assert await ledger.load() == rows
        store._writer.execute("PRAGMA max_page_count = 1000000")
        assert await ledger.commit(rows[0], steps[0]) == steps[0]
        assert len(await read_history(ledger, rows[0].key)) == 1


async def test_a_long_log_is_replayed(path: Path) -> None:
    """A ledger copied with its log while it is open: what a power cut leaves behind."""
    async with await Ledger.open(path) as ledger:
        row = make_record("mona")
        await ledger.add([row])
        moved = await ledger.commit(row, row.evolve(State.SUBMITTING))
        left = path.with_name("left.sqlite3")
        _write_file(left, _content(path))
        _write_file(left.with_name(f"{left.name}-wal"), _content(path.with_name(f"{path.name}-wal")))
    async with await Ledger.open(left, read_only=True) as status:
        assert await status.load() == [moved]
    async with await Ledger.open(left) as again:
        assert await again.load() == [moved]


@pytest.mark.parametrize("kept_bytes", [0, 100, 4096, 20_000])
async def test_a_ledger_that_is_not_whole_is_never_published(
    path: Path, monkeypatch: pytest.MonkeyPatch, kept_bytes: int
) -> None:
    """A full disk lost a part of the file, and SQLite did not say so when it was closed."""
    build = sqlite_file._build

    def build_and_lose(new: Path) -> None:
        build(new)
        assert new.stat().st_size > kept_bytes
        assert not new.with_name(f"{new.name}-wal").exists()
        os.truncate(new, kept_bytes)

    monkeypatch.setattr(sqlite_file, "_build", build_and_lose)
    with pytest.raises(StoreError, match="the disk is full"):
        await Ledger.open(path)
    assert file_names(path.parent) == []
    monkeypatch.undo()
    async with await Ledger.open(path) as ledger:
        assert await ledger.load() == []


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
async def test_a_file_system_without_locks_is_named_with_the_way_on(
    path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with pytest.raises(LedgerError, match=r"has no locks .* --ledger PATH"):
        await Ledger.open(path)
    assert file_names(path.parent) == []


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_ledger_that_is_removed_or_replaced_takes_no_more_steps(
    tmp_path: Path, replaced: bool
) -> None:
    path = tmp_path / "ledger.sqlite3"
    async with await Ledger.open(path) as ledger:
        await ledger.meta_set("name", "value")
        backup = path.read_bytes()
        path.unlink()
        if replaced:
            path.write_bytes(backup)
        with pytest.raises(LedgerError, match="removed or replaced"):
            await ledger.meta_set("name", "other")
