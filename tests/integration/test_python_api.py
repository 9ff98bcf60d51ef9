"""The Python API against the embedded sandbox: estimate, run, stop, continue, and the pages' examples."""

from __future__ import annotations

import asyncio
import gc
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from pipeline import Batch, Event, ManifestError, RowChanged, UsageError, run
from pipeline.model import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.usefixtures("small_clips")

ROOT = Path(__file__).parents[2]
EXAMPLE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPEED = 400.0
SMALL = {"image_url": "https://example.com/a.jpg", "duration": 4, "resolution": "720p"}
ROWS = [{**SMALL, "id": name, "prompt": name} for name in ("one", "two", "three")]


def sizes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*.mp4")}


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("AIMLAPI_API_KEY", "AIML_API_KEY", "AIMLAPI_KEY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


async def test_a_batch_is_priced_run_and_read(tmp_path: Path) -> None:
    async with Batch(ROWS, title="night", sandbox=True, sandbox_speed=SPEED) as batch:
        with pytest.raises(UsageError, match="run it first"):
            await batch.results()
        estimate = await batch.estimate()
        assert list(estimate.by_row) == ["one", "two", "three"]
        assert estimate.usd is not None
        assert estimate.usd > 0
        seen: dict[str, list[str]] = {}
        notes = []
        async for event in batch.run():
            match event:
                case RowChanged(row=row, before=before):
                    seen.setdefault(row.id, [before]).append(row.status)
                case Event(message=message):
                    notes.append(message)
        results = await batch.results()
        assert list((await batch.estimate()).by_row) == ["one", "two", "three"]  # its rows are read again
    assert [states[0] + ">" + states[-1] for states in seen.values()] == ["pending>done"] * 3
    assert any("to submit" in note for note in notes)
    assert [(row.id, row.status) for row in results] == [("one", "done"), ("two", "done"), ("three", "done")]
    assert {row.video_path: row.bytes for row in results} == sizes(tmp_path)
    assert (results.ok, results.exit_code, results.summary["counts"]["done"]) == (True, 0, 3)
    assert (tmp_path / "output" / "night.sandbox" / "results.csv").exists()


async def test_what_is_stopped_goes_on_and_nothing_is_paid_twice() -> None:
    options: dict[str, Any] = {"title": "n", "sandbox": True, "sandbox_speed": 100.0, "concurrency": 1}
    async with Batch(ROWS, **options) as batch:
        async for event in batch.run():
            if isinstance(event, RowChanged) and event.row.status == "generating":
                batch.stop()
        stopped = await batch.results()
    assert stopped.summary["stopped_reason"] == "interrupted"
    assert sorted(row.status for row in stopped) == ["done", "pending", "pending"]
    async with Batch(ROWS, **options) as batch:
        async for event in batch.run():
            if isinstance(event, RowChanged) and event.row.status == "generating":
                break  # and leaves the batch: what is in flight is the next run's
    options["concurrency"] = 5
    async with Batch(ROWS, **options) as batch:
        assert "pending" in [row.status for row in await batch.results()]
        async for _ in batch.run():
            pass
        results = await batch.results()
    assert [(row.status, row.attempts) for row in results] == [("done", 1)] * 3


async def test_a_caller_who_is_cancelled_twice_leaves_nothing_running() -> None:
    """As Ctrl-C twice in `asyncio.run` is: the second comes while the first is obeyed."""
    options: dict[str, Any] = {"title": "n", "sandbox": True, "sandbox_speed": 10.0}
    generating, before = asyncio.Event(), asyncio.all_tasks()

    async def work() -> None:
        async with Batch(ROWS, **options) as batch:
            async for event in batch.run():
                if isinstance(event, RowChanged) and event.row.status == "generating":
                    generating.set()

    working = asyncio.create_task(work())
    await generating.wait()
    working.cancel()
    await asyncio.sleep(0)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    options["sandbox_speed"] = SPEED
    async with Batch(ROWS, **options) as batch:  # the folder is nobody's any more
        async for _ in batch.run():
            pass
        assert [(row.status, row.attempts) for row in await batch.results()] == [("done", 1)] * 3


def count_records() -> int:
    gc.collect()
    return sum(type(one) is Record for one in gc.get_objects())


async def test_a_row_in_flight_is_in_memory_once(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "id": f"r{number}"} for number in range(200)]
    table, before = tmp_path / "output" / "n.sandbox" / "results.csv", count_records()
    async with Batch(rows, title="n", sandbox=True, sandbox_speed=0.1, concurrency=200) as batch:
        events, submitted = aiter(batch.run()), set[str]()
        while len(submitted) < 200:
            event = await anext(events)
            if isinstance(event, RowChanged) and event.row.status == "generating":
                submitted.add(event.row.id)
        with anyio.fail_after(600):
            # The writer of the table keeps what it wrote last.
            while table.read_text(encoding="utf-8").count(",generating,") < 200:  # noqa: ASYNC110
                await anyio.sleep(0.05)
        assert {row.status for row in await batch.results()} == {"generating"}
        assert count_records() - before < 300  # each of 64 submitters holds what it submitted last, too


async def test_a_batch_is_run_once_and_inside_of_its_context() -> None:
    batch = Batch(ROWS[:1], title="n", sandbox=True, sandbox_speed=SPEED)
    with pytest.raises(UsageError, match="inside of"):
        await anext(batch.run())
    async with batch:
        async for _ in batch.run():
            pass
        with pytest.raises(UsageError, match="once"):
            await anext(batch.run())


def test_problems_are_raised_where_the_batch_is_made() -> None:
    with pytest.raises(ManifestError, match=r"n\.json:1:\d+"):
        Batch([{"image_url": "https://example.com/a.jpg"}], title="n", sandbox=True)
    with pytest.raises(UsageError, match="AIMLAPI_API_KEY"):
        Batch(ROWS)


async def test_one_call_does_where_a_loop_is_running_already(capsys: pytest.CaptureFixture[str]) -> None:
    results = run(ROWS[:1], title="n", sandbox=True, sandbox_speed=SPEED)
    assert results.ok
    assert "1/1" in capsys.readouterr().err


def test_results_become_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    def frame(rows: Sequence[dict[str, Any]], columns: list[str]) -> list[list[Any]]:
        return [[row[column] for column in columns] for row in rows]

    results = run(ROWS[:1], title="n", sandbox=True, sandbox_speed=SPEED, progress=False)
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=frame))
    assert results.to_pandas()[0][:2] == ["one", "done"]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        results.to_pandas()


@pytest.mark.parametrize("number", [0, 1])
def test_the_page_s_examples_run(number: int, own_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own_folder / "jobs").mkdir()
    manifest = (ROOT / "jobs" / "mona-lisa.yaml").read_text(encoding="utf-8")
    (own_folder / "jobs" / "mona-lisa.yaml").write_text(manifest, encoding="utf-8")
    code = EXAMPLE.findall((ROOT / "docs" / "howto" / "python.md").read_text(encoding="utf-8"))[number]
    code = code.replace("sandbox=True", f"sandbox=True, sandbox_speed={SPEED}")
    exec(compile(code, "python.md", "exec"), {"__name__": "example", "asyncio": asyncio})  # noqa: S102
    assert " done " in capsys.readouterr().out.replace("'done': 1", " done ")
