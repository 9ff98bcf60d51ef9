"""Whose folder it is: the user's own files stay as they are, and a batch without its ledger buys nothing."""

from __future__ import annotations

import csv
import io
import itertools
import json
import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from pipeline.batch.other_batches import run_has_begun
from pipeline.cli import COMMANDS, cli
from pipeline.errors import UsageError, VeobatchError
from pipeline.ledger import Ledger
from pipeline.model import State
from tests.integration.test_one_time_requests import decline
from tests.integration.vendor_double import vendor_and_workspace, wait_for_exit, wait_until
from tests.unit.samples import record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

OUR_NAMES = (
    "results.csv", "report.html", "run.log", "run.log.1", "run.log.2", "run.log.3", "sandbox.jsonl",
    "ledger.sqlite3", "ledger.sqlite3-wal", "ledger.sqlite3-shm", "ledger.sqlite3-journal",
    "ledger.sqlite3.2024.new", ".veobatch.json", ".veobatch.holder.json", ".veobatch.lock", ".lock",
    ".holder.json", ".veobatch.json.veobatch-part", "results.csv.part", "report.html.part", "before-2024/x",
    "videos/a.mp4", "videos/a.mp4.part", "videos/a.mp4.origin.part", "videos/b.mp4", "videos/holiday.mov",
    "posters/a.jpg", "posters/b.jpg", "posters/a.jpg.part", "notes.txt", "videos/night/deep.mp4",
    "picks/a.mp4", "picks.html", "reel.mp4", "contact-sheet.png", "videos/a.json", "pictures.veobatch-tmp",
    "veobatch.schema.json", "captions.csv",
)  # fmt: skip
OWN_FILES_COMMANDS = (
    ["run", "night.yaml", "--output", "mine"],
    ["run", "night.yaml", "--output", "mine", "--begin-anew", "--yes"],
    ["run", "night.yaml", "--output", "mine", "--sandbox"],
    ["run", "night.yaml", "--output", "mine", "--sandbox", "--begin-anew"],
    ["run", "night.yaml", "--output", "mine", "--retry-failed", "--fetch-missing", "--verify", "--yes"],
    ["run", "night.yaml", "--output", "mine", "--engine", "ray", "--workers", "1", "--yes"],
    ["run", "night.yaml", "--output", "mine", "--ledger", "mine/ledger.sqlite3"],
    ["validate", "night.yaml", "mine"],
    ["estimate", "night.yaml"],
    ["doctor", "night.yaml", "--output", "mine"],
    ["schema"],
    ["mcp", "--max-cost", "1"],
    ["status", "mine"],
    ["status", "night.yaml", "--output", "mine"],
    ["report", "mine"],
    ["report", "night.yaml", "--output", "mine"],
    ["costs", "mine"],
    ["verify", "mine"],
    ["verify", "night.yaml", "--output", "mine"],
    ["reconcile", "mine"],
    ["reconcile", "night.yaml", "--output", "mine"],
    ["pick", "mine", "a"],
    ["pick", "night.yaml", "--output", "mine", "--from", "mine/notes.txt"],
    ["review", "mine"],
    ["reel", "mine"],
    ["init", "mine", "--prompt", "She laughs."],
    ["init", "mine", "--recursive", "-o", "mine/results.csv"],
    ["sandbox", "--journal", "mine/sandbox.jsonl", "--host", "192.0.2.1"],
    ["adopt", "night.yaml", "--from", "mine/results.csv", "--output", "mine"],
    ["adopt", "night.yaml", "a", "g", "--output", "mine"],
)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("AIMLAPI_API_KEY", "k")
    monkeypatch.setenv("AIMLAPI_API_BASE", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))  # what `mcp` reads ends at once
    Path("night.yaml").write_text("- {id: a, image_url: https://example.com/a.jpg, prompt: She laughs.}\n")
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that has to end with 2; return what it said."""
    assert cli.main(["run", *arguments], standalone_mode=False) == 2
    return capsys.readouterr().err


def csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def fill(folder: Path, names: Iterable[str]) -> dict[str, bytes]:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"my own {name}\nwith lines, \x00 and commas\n".encode())
    return contents(folder)


def test_every_command_meets_the_users_own_files() -> None:
    assert {arguments[0] for arguments in OWN_FILES_COMMANDS} >= set(COMMANDS)


@pytest.mark.parametrize(
    "arguments",
    [arguments for arguments in OWN_FILES_COMMANDS if arguments[0] in COMMANDS],
    ids=" ".join,
)
def test_a_folder_of_the_users_own_stays_as_it_is(here: Path, arguments: list[str]) -> None:
    mine = fill(here / "mine", OUR_NAMES)
    try:
        cli.main(arguments, standalone_mode=False)
    except click.UsageError:
        raise  # a line of the table that is wrong
    except (VeobatchError, click.ClickException):
        pass
    assert contents(here / "mine") == mine


async def test_files_of_the_users_own_in_a_folder_of_ours_stay_as_they_are(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write([{"id": "a", "prompt": "a"}, {"id": "b", "prompt": "b"}])
        assert (await desk.run("--takes", "2")).code == 0
        present = {str(path.relative_to(desk.output)) for path in desk.output.rglob("*")}
        stop_a_run = ("run.log.", "sandbox", "ledger.sqlite3-", ".veobatch.holder")
        names = [
            name
            for name in (*OUR_NAMES, "picks/b.mp4", "videos/a.2.json")
            if name not in present and not name.startswith(stop_a_run)
        ]
        fill(desk.output, names)
        mine = {name: (desk.output / name).read_bytes() for name in names}
        batch = str(desk.output)
        for arguments in (
            ["pick", batch, "a.2", "b"],
            *(["report", batch, "--only-picks"],) * 2,
            *(["reel", batch, "--all"],) * 2,
            ["reel", batch],
            ["report", batch],
            ["pick", batch, "--clear", "a.2"],
        ):
            result = await desk.command(*arguments)
            assert result.code == 0, (arguments, result.output)
        result = await desk.run("--takes", "3", "--receipts", "--verify", "--fetch-missing")
        assert result.code == 0, result.output
        assert vendor.create_counts == {"a": 3, "b": 3}
        assert {name: (desk.output / name).read_bytes() for name in names} == mine


@pytest.mark.parametrize("name", [
    name for name in OUR_NAMES
    if name.partition(".")[0] in {"results", "report", "run", "sandbox", "ledger", "videos/a", "posters/b"}
    and not name.endswith((".new", "csv.part", "html.part"))
])  # fmt: skip
def test_each_file_of_the_users_own_stops_a_run_before_anything_is_made(
    here: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    mine = fill(here / "mine", [name])
    message = refused(capsys, "night.yaml", "--output", "mine")
    assert Path(name).name in message
    assert "--output" in message
    assert contents(here / "mine") == mine


def test_a_database_of_the_users_own_is_not_opened(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "mine").mkdir()
    with sqlite3.connect(here / "mine" / "ledger.sqlite3") as database:
        database.execute("CREATE TABLE expenses (amount)")
    database.close()
    before = contents(here / "mine")
    assert "ledger.sqlite3" in refused(capsys, "night.yaml", "--output", "mine")
    assert contents(here / "mine") == before


@pytest.mark.parametrize("manifest", ["results.csv", "report.html", "videos/m.yaml", "./sub/../results.csv"])
def test_a_manifest_among_the_results_is_not_written_over(
    here: Path, capsys: pytest.CaptureFixture[str], manifest: str
) -> None:
    path = Path(manifest)
    for folder in ("sub", "videos"):
        Path(folder).mkdir()
    path.write_text("image_url,prompt\nhttps://example.com/a.jpg,She laughs.\n")
    assert refused(capsys, manifest, "--output", ".")
    assert path.read_text().startswith("image_url,prompt")


@pytest.mark.parametrize("name", ["videos", "posters"])
def test_a_media_folder_that_cannot_hold_files_is_found_at_the_start(
    here: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (here / "mine").mkdir()
    (here / "mine" / name).symlink_to("nowhere")
    assert "nowhere" in refused(capsys, "night.yaml", "--output", "mine")
    (here / "mine" / name).unlink()
    (here / "mine" / name).write_text("a file")
    assert "folder" in refused(capsys, "night.yaml", "--output", "mine")


async def test_a_batch_that_lost_its_ledger_buys_nothing_until_it_is_begun_anew(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write(["a", "b"])
        assert (await desk.run()).code == 0
        table = (desk.output / "results.csv").read_bytes()
        for lost in ({"ledger.sqlite3"}, {".veobatch.json"}, {"run.log"}, {"report.html"}):
            for name in lost:
                (desk.output / name).unlink()
            result = await desk.run()
            assert result.code == 2, result.output
            assert "--begin-anew" in result.err
            assert "adopt" in result.err
        assert vendor.create_counts == {"a": 1, "b": 1}
        assert (desk.output / "results.csv").read_bytes() == table

        result = await desk.run("--begin-anew")
        assert result.code == 0, result.output
        assert vendor.create_counts == {"a": 2, "b": 2}
        [aside] = desk.output.glob("before-*")
        assert (aside / "results.csv").read_bytes() == table
        assert len(list((aside / "videos").iterdir())) == 2
        assert (await desk.run("--begin-anew")).code == 0  # its ledger is there: nothing to begin anew
        assert vendor.create_counts == {"a": 2, "b": 2}


@pytest.mark.parametrize("left", ["results.csv", "videos", ".veobatch.json", "run.log"])
async def test_each_thing_that_a_batch_leaves_is_a_sign_of_it(tmp_path: Path, left: str) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write(["a"])
        assert (await desk.run()).code == 0
        for path in desk.output.iterdir():
            if path.name != left:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        result = await desk.run()
        assert result.code == 2, result.output
        assert vendor.create_counts == {"a": 1}


async def test_a_ledger_elsewhere_that_is_forgotten_is_missed(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write(["a"])
        assert (await desk.run("--ledger", "shared.sqlite3")).code == 0
        for arguments in ((), ("--ledger", "other.sqlite3"), ("--ledger", "shared.sqlite3", "--batch", "b")):
            result = await desk.run(*arguments)
            assert result.code == 2, result.output
            assert "shared.sqlite3" in result.err
        assert (await desk.run("--ledger", "shared.sqlite3")).code == 0
        assert vendor.create_counts == {"a": 1}


async def test_a_run_from_elsewhere_or_of_a_renamed_manifest_finds_what_is_paid_for(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        manifest = desk.write(["a", "b"])
        assert (await desk.run()).code == 0
        nested = tmp_path / "deep" / "down"
        nested.mkdir(parents=True)
        desk.folder = nested
        desk.environment = {"HOME": str(tmp_path / "home")}
        result = await desk.run(manifest=str(manifest))
        assert result.code == 2, result.output
        assert str(tmp_path / "output" / "batch") in result.err
        desk.folder = tmp_path
        manifest.rename(tmp_path / "renamed.json")
        result = await desk.run(manifest="renamed.json")
        assert result.code == 2, result.output
        assert "2 rows" in result.err
        result = await desk.run("--output", "output/batch", manifest="renamed.json")
        assert result.code == 0, result.output
        assert vendor.create_counts == {"a": 1, "b": 1}


async def test_a_ledger_in_which_no_run_has_begun_does_not_hide_what_is_paid_for_elsewhere(
    tmp_path: Path,
) -> None:
    """A run here is declined, the next one has another folder; and a ledger elsewhere is new."""
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write(["a", "b"])
        await decline(desk)
        assert (await desk.run("--output", "big")).code == 0
        for where in ((), ("--ledger", "new.sqlite3"), ("--ledger", "new.sqlite3")):
            refused = await desk.run(*where)
            assert refused.code == 2, refused.output
            assert f"2 rows of batch.json are paid for in {tmp_path / 'big'} already" in refused.err
            assert ("without --ledger" in refused.err) == bool(where)
        assert vendor.create_counts == {"a": 1, "b": 1}
        for options in (("--begin-anew", "--limit", "1"), ()):
            result = await desk.run(*options)
            assert result.code == 0, result.output
        assert vendor.create_counts == {"a": 2, "b": 2}, "a batch that was begun knowingly goes on"


async def test_a_run_has_begun_where_it_left_its_facts_or_a_submission(tmp_path: Path) -> None:
    """An earlier version left no facts; a row that has adopted a generation was not submitted here."""
    adopted = record(State.GENERATING, "a", 0, generation_id="g-1", submission_no=0)
    for rows, facts, begun in (
        ((), None, False),
        ((adopted, record(State.PENDING, "b", 1)), None, False),
        ((adopted, record(State.FAILED, "b", 1, submission_no=1)), None, True),
        ((adopted,), "{}", True),
    ):
        path = tmp_path / f"{len(rows)}-{facts}-{begun}.sqlite3"
        async with await Ledger.open(path) as ledger:
            await ledger.add(rows)
            await ledger.meta_set("vendor", "api")
            if facts:
                await ledger.meta_set("last_run", facts)
            assert await run_has_begun(ledger) is begun


@pytest.mark.parametrize("shared", [True, False], ids=["one ledger", "one folder"])
async def test_two_manifests_of_one_name_are_two_batches(tmp_path: Path, shared: bool) -> None:
    where = ("--ledger", str(tmp_path / "shared.sqlite3")) if shared else ()
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            desk.write([f"{name} clip"], name=f"{name}/batch.json")
        first, second = (str(tmp_path / name / "batch.json") for name in ("first", "second"))
        assert (await desk.run(*where, manifest=first)).code == 0
        if shared:
            desk.folder = tmp_path / "second"
        own = ("--batch", "second") if shared else ("--output", "output/second")
        result = await desk.run(*where, manifest=second)
        assert result.code == 2, result.output
        assert first in result.err
        assert own[0] in result.err
        result = await desk.run(*where, *own, manifest=second)
        assert result.code == 0, result.output
        [row] = csv_rows(desk.folder / "output" / ("batch" if shared else "second") / "results.csv")
        assert row["prompt"] == "second clip"
        assert vendor.create_counts == {"first clip": 1, "second clip": 1}

        (
            tmp_path / "first" / "batch.json"
        ).unlink()  # gone, so it may have been moved; but no row of it is here
        desk.folder = tmp_path
        desk.write(["a third clip"], name="batch.json")
        assert (await desk.run(*where)).code == 2
        desk.write(["first clip", "a third clip"], name="batch.json")
        result = await desk.run(*where)
        assert result.code == 0, result.output
        assert vendor.create_counts == {"first clip": 1, "second clip": 1, "a third clip": 1}


async def test_another_manifest_with_the_same_rows_is_another_batch(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write(["a"])
        desk.write(["a"], name="other.json")
        assert (await desk.run()).code == 0
        assert (await desk.run(manifest="other.json")).code == 0
        assert vendor.create_counts == {"a": 2}


async def test_a_folder_of_an_earlier_version_is_taken_over_silently(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write(["a"])
        assert (await desk.run()).code == 0
        (desk.output / ".veobatch.json").unlink()
        result = await desk.run()
        assert result.code == 0, result.output
        assert json.loads((desk.output / ".veobatch.json").read_text())["runs"] == 2
        assert vendor.create_counts == {"a": 1}


async def test_copies_and_older_ledgers_are_reported(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write(["a"])
        assert (await desk.run()).code == 0
        shutil.copytree(desk.output, tmp_path / "copy")
        backup = (desk.output / "ledger.sqlite3").read_bytes()
        assert (await desk.run()).code == 0
        (desk.output / "ledger.sqlite3").write_bytes(backup)
        result = await desk.run()
        assert "older copy" in result.err, result.output
        result = await desk.run("--output", "copy")
        assert "is a copy of" in result.err, result.output
        shutil.move(desk.output, tmp_path / "moved")
        result = await desk.run("--output", "moved")
        assert "copy" not in result.err, result.output
        marker = tmp_path / "moved" / ".veobatch.json"
        marker.write_text(json.dumps(json.loads(marker.read_text()) | {"host": "another"}))
        assert "was on another" in (await desk.run("--output", "moved")).err
        assert vendor.create_counts == {"a": 1}


@pytest.mark.parametrize("marked", [True, False])
async def test_a_lost_ledger_is_made_again_from_the_table(tmp_path: Path, marked: bool) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        vendor.script("bad", final_answer={"status": "error", "error": {"name": "x", "message": "-no"}})
        vendor.script("slow", id="-V1StGXR8_Z5jdHi6B-my", render_s=3600.0)
        prompts = ["=good", "gone", "bad", "slow"]
        desk.write(prompts)
        options = ("--timeout", "3", "--generation-retries", "0")
        result = await desk.run(*options)
        assert result.code == 3, result.output
        before, paid = {row["id"]: row for row in desk.rows()}, dict(vendor.create_counts)
        lost = ["ledger.sqlite3"] + ([] if marked else [".veobatch.json"])
        for name in lost:
            (desk.output / name).unlink()
        gone = next(row for row in before.values() if row["prompt"] == "gone")
        desk.video(gone).unlink()

        table = str(desk.output / "results.csv")
        result = await desk.command("adopt", "batch.json", "--from", table, "--base-url", vendor.api.url)
        assert result.code == 0, result.output
        result = await desk.command("adopt", "batch.json", "--from", table, "--base-url", vendor.api.url)
        assert result.code == 2, result.output
        assert "has its ledger" in result.err
        for made in vendor.generations:
            made.ends_at = 0.0
        result = await desk.run(*options)
        assert result.code == 1, result.output
        assert vendor.create_counts == paid
        assert desk.states() == {"done": 3, "failed": 1}
        for row in desk.rows():
            for name in ("id", "generation_id", "prompt", "correlation_id"):
                assert row[name] == before[row["id"]][name]
        assert all(desk.video(row).exists() for row in desk.rows() if row["status"] == "done")


def save_table(path: Path, rows: Sequence[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("cell", ["", "1,5 x", "64.5"])
async def test_a_table_that_a_spreadsheet_saved_makes_the_ledger_too(tmp_path: Path, cell: str) -> None:
    """Its numbers have become decimal ones; nothing that is no number is guessed at."""
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write(["a", "b"])
        assert (await desk.run()).code == 0
        rows = desk.rows()
        for row, column in itertools.product(rows, ("bytes", "width", "height", "attempts", "polls")):
            row[column] += ".0"
        good = rows[1]["width"]
        rows[1]["width"] = cell or good
        table = desk.output / "results.csv"
        save_table(table, rows)
        (desk.output / "ledger.sqlite3").unlink()
        arguments = ("adopt", "batch.json", "--from", str(table), "--base-url", vendor.api.url)
        result = await desk.command(*arguments)
        if cell:
            assert (result.code, repr(cell) in result.output) == (2, True), result.output
            rows[1]["width"] = good
            save_table(table, rows)
            result = await desk.command(*arguments)
        assert result.code == 0, result.output
        result = await desk.run()
        assert result.code == 0, result.output
        assert vendor.create_counts == {"a": 1, "b": 1}
        assert desk.states() == {"done": 2}


async def test_what_only_the_vendors_log_knows_is_adopted_too(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write(["a", "b"])
        assert (await desk.run()).code == 0
        table = desk.output / "results.csv"
        lines = table.read_text().splitlines(keepends=True)
        early = [line for line in lines if ",b," not in line]
        assert len(early) == len(lines) - 1
        table.write_text("".join(early))
        (desk.output / "ledger.sqlite3").unlink()
        arguments = ("adopt", "batch.json", "--from", str(table))
        result = await desk.command(*arguments, "--base-url", vendor.api.url)
        assert result.code == 0, result.output
        assert "1 of them" in result.out
        async with await Ledger.open(desk.output / "ledger.sqlite3", read_only=True) as ledger:
            assert all(record.completed_at is not None for record in await ledger.load())
        assert (await desk.run()).code == 0
        assert vendor.create_counts == {"a": 1, "b": 1}


def test_a_table_of_others_makes_no_ledger(here: Path) -> None:
    Path("mine.csv").write_text("id,status\na,done\n")
    with pytest.raises(UsageError, match=r"not a results\.csv"):
        cli.main(["adopt", "night.yaml", "--from", "mine.csv"], standalone_mode=False)
    with pytest.raises(click.UsageError):
        cli.main(["adopt", "night.yaml", "a"], standalone_mode=False)
    assert not Path("output").exists()


async def test_an_output_that_is_removed_in_mid_run_stops_it_and_nothing_is_paid_twice(
    tmp_path: Path,
) -> None:
    async with vendor_and_workspace(tmp_path, render_s=1000.0) as (vendor, desk):
        prompts = [f"job {number}" for number in range(8)]
        desk.write(prompts)
        process = await desk.start("--concurrency", "2")
        await wait_until(lambda: desk.log().count("-> generating") >= 2)
        shutil.rmtree(desk.output, ignore_errors=True)
        vendor.render_s = 0.1
        for made in vendor.generations:
            made.ends_at = 0.0
        result = await wait_for_exit(process)
        assert result.code == 3, result.output
        assert "removed or replaced" in result.err
        assert len(vendor.generations) == 2
        result = await desk.run()
        assert result.code == 2, result.output
        assert "adopt" in result.err
        result = await desk.command("adopt", "batch.json", "--from", str(desk.output / "results.csv"))
        assert result.code == 0, result.output
        result = await desk.run()
        assert result.code == 0, result.output
        assert vendor.create_counts == dict.fromkeys(prompts, 1)
