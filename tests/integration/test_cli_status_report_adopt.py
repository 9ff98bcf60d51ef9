"""The small commands over a batch that is there: where it lies, status, report, adopt; and the projector."""

from __future__ import annotations

import csv
import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import anyio
import pytest

from pipeline.batch.paths import BatchPaths, LedgerChoice, batch_paths, existing_batch_paths
from pipeline.cli import cli, status
from pipeline.errors import BatchLocked, ExitCode, StopReason, StoreError, UsageError
from pipeline.ledger import Ledger
from pipeline.ledger.lock import hold_lock
from pipeline.ledger.spending import Submission, SubmissionState
from pipeline.manifest import load
from pipeline.model import Record, State
from pipeline.net.json_cache import write_json
from pipeline.plan import new_record
from pipeline.poll.duration_cache import duration_cache_path, read_duration_cache
from pipeline.results.csv_writer import ResultsWriter
from pipeline.results.next_step import RUN_FACTS_NAME, RunFacts
from pipeline.storage import LocalStore
from tests.unit.samples import record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

T = TypeVar("T")


def veobatch(*words: str) -> object:
    return cli.main(list(words), prog_name="veobatch", standalone_mode=False)


MANIFEST = """
run:
  name: "{index:02d}-{id}"
jobs:
  - {id: first, image_url: "https://example.com/a.jpg", prompt: She laughs.}
  - {id: second, image_url: "https://example.com/a.jpg", prompt: She frowns.}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "night.yaml").write_text(MANIFEST)
    OUTPUT_DIR.mkdir(parents=True)
    return tmp_path


OUTPUT_DIR = Path("output/night")


@asynccontextmanager
async def ledger() -> AsyncIterator[Ledger]:
    async with await Ledger.open(OUTPUT_DIR / "ledger.sqlite3") as opened:
        yield opened


def fill_ledger(**states: State) -> None:
    """A batch in which rows have come so far."""

    async def work() -> None:
        async with ledger() as opened:
            for job in load(Path("night.yaml")).jobs:
                await opened.add([row := new_record(job, f"old-{job.id}")])
                for state in _path_to(states.get(job.id, State.PENDING)):
                    facts = {"generation_id": f"g-{job.id}"} if state is State.GENERATING else {}
                    row = await opened.commit(row, row.evolve(state, **facts))

    anyio.run(work)


def _path_to(to: State) -> list[State]:
    ways = {
        State.PENDING: [],
        State.SUBMITTING: [State.SUBMITTING],
        State.IN_DOUBT: [State.SUBMITTING, State.IN_DOUBT],
        State.GENERATING: [State.SUBMITTING, State.GENERATING],
        State.READY: [State.SUBMITTING, State.GENERATING, State.READY],
        State.DONE: [State.SUBMITTING, State.GENERATING, State.READY, State.DONE],
        State.FAILED: [State.SUBMITTING, State.FAILED],
    }
    return ways[to]


def load_rows() -> dict[str, Record]:
    async def work() -> dict[str, Record]:
        async with ledger() as opened:
            return {row.id: row for row in await opened.load()}

    return anyio.run(work)


def load_submissions() -> list[Submission]:
    async def work() -> list[Submission]:
        async with ledger() as opened:
            return await opened.submissions()

    return anyio.run(work)


def test_where_a_batch_lives() -> None:
    assert batch_paths(Path("jobs/night.yaml"), None) == BatchPaths(OUTPUT_DIR, "output/night")
    assert batch_paths(Path("jobs/night.yaml"), "elsewhere") == BatchPaths(Path("elsewhere"), "elsewhere")
    assert batch_paths(Path("night.yaml"), "s3://bucket/x") == BatchPaths(OUTPUT_DIR, "s3://bucket/x")


def test_a_batch_is_found_by_its_manifest_or_its_folder(here: Path) -> None:
    fill_ledger()
    assert (
        existing_batch_paths("night.yaml", None)
        == existing_batch_paths("output/night", None)
        == BatchPaths(OUTPUT_DIR, str(OUTPUT_DIR))
    )
    assert existing_batch_paths("output/night", "s3://b/p") == BatchPaths(OUTPUT_DIR, "s3://b/p")
    assert existing_batch_paths("anything.yaml", "output/night").folder == OUTPUT_DIR


def test_a_rehearsal_has_a_folder_and_a_batch_of_its_own(here: Path) -> None:
    rehearsal = Path("output/night.sandbox")
    assert batch_paths(Path("night.yaml"), None, sandbox=True) == BatchPaths(rehearsal, str(rehearsal))
    shared = batch_paths(Path("night.yaml"), None, LedgerChoice("shared.sqlite3"), sandbox=True)
    assert (shared.external_ledger, shared.batch) == ("shared.sqlite3", "night.sandbox")
    rehearsal.mkdir(parents=True)
    (rehearsal / "ledger.sqlite3").touch()
    assert existing_batch_paths("night.yaml", None).folder == rehearsal
    fill_ledger()
    assert existing_batch_paths("night.yaml", None).folder == OUTPUT_DIR


@pytest.mark.parametrize(
    ("target", "output"),
    [("other.yaml", None), (".", None), ("night.yaml", "nowhere"), ("output/night", "other")],
)
def test_a_batch_that_is_not_there_is_no_batch(here: Path, target: str, output: str | None) -> None:
    fill_ledger()
    with pytest.raises(UsageError):
        existing_batch_paths(target, output)


def test_status_counts_what_the_ledger_holds(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill_ledger(first=State.SUBMITTING, second=State.DONE)
    assert veobatch("status", "night.yaml") == 0
    assert capsys.readouterr().out == "2 rows: 1 in doubt, 1 done\n"
    assert veobatch("status", "output/night", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["total"], told["counts"]["in_doubt"], told["counts"]["done"]) == (2, 1, 1)
    assert sum(told["counts"].values()) == 2


def test_status_is_readable_while_a_run_holds_the_folder(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill_ledger()
    with hold_lock(OUTPUT_DIR, command="a run", started_at="now"):
        assert veobatch("status", "night.yaml") == 0
    assert "2 pending" in capsys.readouterr().out


def test_watching_ends_when_nothing_is_open(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill_ledger(first=State.DONE, second=State.FAILED)
    assert veobatch("status", "night.yaml", "--watch") == 0
    assert capsys.readouterr().out == "2 rows: 1 done, 1 failed\n"


def test_watching_tells_every_change(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter([{State.PENDING: 2}, {State.PENDING: 2}, {State.GENERATING: 2}, {State.DONE: 2}])

    async def next_counts(_: object) -> tuple[dict[State, int], bool]:
        return next(counts), False

    fill_ledger()
    monkeypatch.setattr(status, "_load_counts", next_counts)
    monkeypatch.setattr(status, "WATCH_INTERVAL_S", 0.0)
    veobatch("status", "night.yaml", "--watch")
    assert capsys.readouterr().out.splitlines() == [
        "2 rows: 2 pending",
        "2 rows: 2 generating",
        "2 rows: 2 done",
    ]


def test_report_writes_the_projections_again(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill_ledger(first=State.GENERATING)
    before = load_rows()
    assert veobatch("report", "night.yaml") == 0
    assert capsys.readouterr().out.split() == ["output/night/results.csv", "output/night/report.html"]
    with (OUTPUT_DIR / "results.csv").open(newline="") as file:
        assert [(row["id"], row["status"]) for row in csv.DictReader(file)] == [
            ("first", "generating"),
            ("second", "pending"),
        ]
    assert "She laughs." in (OUTPUT_DIR / "report.html").read_text()
    assert load_rows() == before


def test_the_report_keeps_the_next_command_and_the_badge(here: Path) -> None:
    fill_ledger(first=State.GENERATING)

    async def finish_run() -> None:
        facts = RunFacts(["run", "night.yaml", "--concurrency", "3"], StopReason.CREDITS, 2.4)
        async with ledger() as opened:
            await opened.meta_set(RUN_FACTS_NAME, facts.to_json())
            await opened.meta_set("vendor", "sandbox")

    anyio.run(finish_run)
    assert veobatch("report", "night.yaml") == 0
    page = (OUTPUT_DIR / "report.html").read_text()
    assert "veobatch run night.yaml --concurrency 3  (after topping up the account)" in page
    assert 'class="badge"' in page
    with (OUTPUT_DIR / "results.csv").open(newline="") as file:
        assert {row["sandbox"] for row in csv.DictReader(file)} == {"true"}


def test_unwritable_report_is_an_output_error(here: Path) -> None:
    fill_ledger()
    (OUTPUT_DIR / "results.csv").mkdir()
    with pytest.raises(StoreError):
        veobatch("report", "night.yaml")


@pytest.mark.parametrize("state", [State.PENDING, State.FAILED, State.IN_DOUBT, State.SUBMITTING])
def test_a_generation_is_taken_over(here: Path, state: State) -> None:
    """Also by a row whose run was killed in the middle of its create."""
    fill_ledger(first=state)
    assert veobatch("adopt", "night.yaml", "first", "-V1StGXR8_Z5") == ExitCode.DONE
    row = load_rows()["first"]
    assert (row.state, row.generation_id, row.failure) == (State.GENERATING, "-V1StGXR8_Z5", None)
    assert row.accepted_at is not None


def test_a_batch_that_has_not_been_run_can_adopt(here: Path) -> None:
    veobatch("adopt", "night.yaml", "second", "g")
    rows = load_rows()
    assert (rows["second"].state, rows["first"].state) == (State.GENERATING, State.PENDING)
    assert [rows[name].file_stem for name in ("first", "second")] == ["00-first", "01-second"]


@pytest.mark.parametrize("state", [State.GENERATING, State.READY, State.DONE])
def test_a_row_with_a_generation_of_its_own_keeps_it(here: Path, state: State) -> None:
    fill_ledger(first=state)
    with pytest.raises(UsageError, match="g-first"):
        veobatch("adopt", "night.yaml", "first", "other")
    assert load_rows()["first"].generation_id == "g-first"


def test_a_generation_that_the_vendor_does_not_know_is_replaced_when_asked(here: Path) -> None:
    fill_ledger(first=State.GENERATING)
    with pytest.raises(UsageError, match="--replace"):
        veobatch("adopt", "night.yaml", "first", "other")
    assert veobatch("adopt", "night.yaml", "first", "other", "--replace") == ExitCode.DONE
    row = load_rows()["first"]
    assert (row.state, row.generation_id, row.failure) == (State.GENERATING, "other", None)
    entries = {entry.generation_id: entry.state for entry in load_submissions()}
    # It may be paid all the same, and counts.
    assert entries["g-first"] is SubmissionState.MAYBE_SPENT


@pytest.mark.parametrize("state", [State.READY, State.DONE])
def test_a_generation_that_is_finished_is_not_replaced(here: Path, state: State) -> None:
    fill_ledger(first=state)
    with pytest.raises(UsageError, match="g-first"):
        veobatch("adopt", "night.yaml", "first", "other", "--replace")
    assert load_rows()["first"].generation_id == "g-first"


@pytest.mark.parametrize(("job", "generation"), [("nobody", "g"), ("second", "g-first"), ("second", "  ")])
def test_what_cannot_be_adopted_is_refused(here: Path, job: str, generation: str) -> None:
    fill_ledger(first=State.GENERATING)
    with pytest.raises(UsageError):
        veobatch("adopt", "night.yaml", job, generation)
    assert load_rows()["second"].state is State.PENDING


def test_nobody_adopts_into_a_batch_that_is_being_run(here: Path) -> None:
    fill_ledger()
    with hold_lock(OUTPUT_DIR, command="a run", started_at="now"), pytest.raises(BatchLocked):
        veobatch("adopt", "night.yaml", "first", "g")


def test_each_api_has_its_own_duration_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    paths = {
        duration_cache_path(url)
        for url in ("https://api.aimlapi.com", "http://127.0.0.1:80", "http://[::1]:80/a b")
    }
    assert len(paths) == 3
    assert all(path.is_relative_to(tmp_path) and path.suffix == ".json" for path in paths)
    [path, *_] = paths
    assert read_duration_cache(path) == {}
    write_json(path, {"kinds": [1]})
    assert read_duration_cache(path) == {"kinds": [1]}
    assert [kept.name for kept in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b'"x"', b"[" * 100_000])
def test_damaged_duration_cache_is_empty(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.json").write_bytes(data)
    assert read_duration_cache(tmp_path / "m.json") == {}


def test_unwritable_duration_cache_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    write_json(tmp_path / "file" / "m.json", {})
    assert read_duration_cache(tmp_path / "file" / "m.json") == {}


class RecordingStore(LocalStore):
    """A folder that tells what was written to it, after it has refused as often as the test wants."""

    def __init__(self, root: Path, refusals: int = 0) -> None:
        super().__init__(root)
        self.refusals = refusals
        self.csv = b""
        self.changed = anyio.Event()

    async def write_bytes(self, path: str, data: bytes, *, durable: bool = True) -> None:
        if self.refusals:
            self.refusals -= 1
            raise StoreError("full")
        await super().write_bytes(path, data, durable=durable)

    async def run_in_thread(self, work: Callable[[], T], action: str = "write to") -> T:
        done = await super().run_in_thread(work, action)
        if (self.root / "results.csv").exists():
            self.csv = (self.root / "results.csv").read_bytes()
            self.changed.set()
            self.changed = anyio.Event()
        return done

    async def wait_for_csv(self, word: bytes) -> None:
        with anyio.fail_after(600):
            while word not in self.csv:
                await self.changed.wait()


async def test_the_csv_keeps_up_with_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.results.csv_writer.MIN_REWRITE_INTERVAL_S", 0.01)
    rows, disk = [record(State.PENDING)], RecordingStore(tmp_path)
    projector = ResultsWriter(disk, title="night", manifest="night.yaml")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(projector.rewrite_on_change, lambda: rows)
        await disk.wait_for_csv(b"pending")
        before, rows[0] = rows[0], rows[0].evolve(State.SUBMITTING)
        projector.on_transition(before, rows[0])
        await disk.wait_for_csv(b"in_doubt")
        tasks.cancel_scope.cancel()


async def test_a_large_batch_does_not_wait_for_its_csv_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.results.csv_writer.LARGE_BATCH_ROWS", 0)
    monkeypatch.setattr("pipeline.results.csv_writer.MIN_REWRITE_INTERVAL_S", 0.01)
    disk = RecordingStore(tmp_path)
    projector = ResultsWriter(disk, title="night", manifest="night.yaml")
    await projector.begin([record(State.PENDING)])
    assert disk.csv.startswith(b"id,status,")
    assert b"pending" not in disk.csv
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(projector.rewrite_on_change, lambda: [record(State.PENDING)])
        await disk.wait_for_csv(b"pending")
        tasks.cancel_scope.cancel()


async def test_the_first_csv_of_a_large_batch_is_made_once_a_create_was_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.results.csv_writer.LARGE_BATCH_ROWS", 0)
    monkeypatch.setattr("pipeline.results.csv_writer.MIN_REWRITE_INTERVAL_S", 3600.0)
    rows, disk = [record(State.SUBMITTING)], RecordingStore(tmp_path)
    projector = ResultsWriter(disk, title="night", manifest="night.yaml")
    await projector.begin(rows)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(projector.rewrite_on_change, lambda: rows)
        before, rows[0] = rows[0], rows[0].evolve(State.GENERATING)
        projector.on_transition(before, rows[0])
        await disk.wait_for_csv(b"generating")
        tasks.cancel_scope.cancel()


async def test_a_large_batch_ends_with_the_blocks_of_its_last_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.results.csv_writer.LARGE_BATCH_ROWS", 0)
    rows = [record(State.FAILED)]

    async def run() -> bytes:
        projector = ResultsWriter(LocalStore(tmp_path), title="night", manifest="night.yaml")
        await projector.begin(rows)
        assert await projector.finish(rows)
        return (tmp_path / "results.csv").read_bytes()

    first, blocks = await run(), tmp_path / ".veobatch.blocks"
    written_at = blocks.stat().st_mtime_ns
    assert await run() == first
    assert blocks.stat().st_mtime_ns == written_at
    rows[0] = rows[0].evolve(polls=77)
    assert b"77" in await run()


async def test_a_projector_whose_disk_is_full_goes_on_and_says_so_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.results.csv_writer.MIN_REWRITE_INTERVAL_S", 0.01)
    disk = RecordingStore(tmp_path, refusals=3)
    projector = ResultsWriter(disk, title="night", manifest="night.yaml")
    assert not await projector.finish([record()])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(projector.rewrite_on_change, lambda: [record()])
        await disk.wait_for_csv(b"pending")
        tasks.cancel_scope.cancel()
    assert await projector.finish([record()])
    assert b"row" in (tmp_path / "report.html").read_bytes()
