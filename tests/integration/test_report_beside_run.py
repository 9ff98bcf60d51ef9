"""`veobatch report` while something else changes the ledger: the files that stay are the newest."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.batch.paths import BatchPaths
from pipeline.cli.report import write_results
from pipeline.ledger import Ledger
from pipeline.model import State
from pipeline.results.csv_rows import csv_bytes
from pipeline.results.csv_writer import ResultsWriter
from pipeline.runner.previous_run_end import RUNNING, save_end
from pipeline.storage import LocalStore
from tests.unit.samples import record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from pipeline.model import Record

    Interlude = Callable[[Ledger, int], Awaitable[None]]


@pytest.fixture
async def ledger(tmp_path: Path) -> Ledger:
    opened = await Ledger.open(tmp_path / "ledger.sqlite3")
    await opened.add([record(State.PENDING)])
    return opened


async def advance(ledger: Ledger) -> None:
    """Let the row's next step, or another poll of it, be committed."""
    [row] = await ledger.load()
    steps = {State.PENDING: State.SUBMITTING, State.SUBMITTING: State.GENERATING}
    await ledger.commit(row, row.evolve(steps.get(row.state, row.state), polls=row.polls + 1))


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


async def write_as_run(folder: Path, ledger: Ledger) -> None:
    """Write the table as a run does at its end."""
    (folder / "results.csv").write_bytes(csv_bytes(await ledger.load()))


async def report_beside(
    ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch, interlude: Interlude
) -> int:
    """Write the files; before each time that they are replaced, `interlude` happens. Return how often."""
    finish, times = ResultsWriter.finish, 0

    async def finish_later(writer: ResultsWriter, records: Sequence[Record], **options: Any) -> bool:
        nonlocal times
        times += 1
        await interlude(ledger, times)
        return await finish(writer, records, **options)

    with monkeypatch.context() as patch:
        patch.setattr(ResultsWriter, "finish", finish_later)
        store = LocalStore(folder)
        await write_results(BatchPaths(folder, str(folder)), ledger, store)
        await store.aclose()
    await ledger.close()
    return times


async def test_a_run_that_ends_meanwhile_leaves_the_newest_files(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await save_end(ledger, RUNNING)

    async def end_run(ledger: Ledger, time: int) -> None:
        if time == 1:
            await advance(ledger)
            await advance(ledger)
            await save_end(ledger, "")
            await write_as_run(tmp_path, ledger)

    written = await report_beside(ledger, tmp_path, monkeypatch, end_run)
    assert [row["status"] for row in rows_of(tmp_path)] == ["generating"]
    assert "generating" in (tmp_path / "report.html").read_text()
    assert written >= 2


async def test_a_change_by_another_command_is_in_the_files(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def change(ledger: Ledger, time: int) -> None:
        if time <= 5:
            await advance(ledger)

    assert await report_beside(ledger, tmp_path, monkeypatch, change) == 6
    assert [row["polls"] for row in rows_of(tmp_path)] == ["5"]


async def test_a_run_that_changes_its_rows_all_the_time_is_not_waited_for(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await save_end(ledger, RUNNING)

    async def go_on(ledger: Ledger, _: int) -> None:
        await advance(ledger)

    assert await report_beside(ledger, tmp_path, monkeypatch, go_on) == 3


async def test_a_ledger_at_rest_is_written_once(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def rest(*_: object) -> None:
        pass

    assert await report_beside(ledger, tmp_path, monkeypatch, rest) == 1
    assert [row["status"] for row in rows_of(tmp_path)] == ["pending"]
