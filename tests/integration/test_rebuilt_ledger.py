"""`adopt --from`: a ledger is made again wholly or not at all, and the same command finishes it."""

from __future__ import annotations

import csv
import json
import re
import shutil
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pipeline.batch.paths import batch_paths
from pipeline.cli.rebuild import rebuild_ledger
from pipeline.errors import UsageError
from pipeline.ledger import Ledger
from pipeline.runner.manifest_loading import ManifestChoice
from pipeline.storage import LocalStore
from tests.integration.vendor_double import vendor_and_workspace
from tests.unit.pictures import write_picture

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.integration.vendor_double.workspace import CommandResult, Workspace

LINES = [
    "She\u2028laughs.", "She\u2029frowns.", "a\x85b", "two\r\nlines", "three\rlines", "a\tb", 'say "hi"',
    "=1+1", "'=1+1", "''=1+1", "+1", "-1", "@x", "'", "plain",
]  # fmt: skip


class Interrupted(BaseException):
    """Ctrl-C, at a place of the test's choice."""


async def lose_ledger(desk: Workspace) -> Path:
    """Lose all but the videos and the table, of which a copy is edited."""
    table = desk.folder / "saved.csv"
    shutil.copy(desk.output / "results.csv", table)
    for name in ("ledger.sqlite3", ".veobatch.json", "run.log", "report.html"):
        (desk.output / name).unlink()
    shutil.rmtree(desk.folder / "home")
    return table


async def adopt(desk: Workspace, *args: str) -> CommandResult:
    return await desk.command(
        "adopt", "batch.json", "--from", "saved.csv", "--base-url", desk.base_url, *args
    )


async def test_an_adoption_that_fails_changes_nothing_and_is_finished_by_the_same_command(
    tmp_path: Path,
) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write([{"id": name, "prompt": name} for name in "abc"])
        assert (await desk.run()).code == 0
        await lose_ledger(desk)
        vendor.log_down = 503
        clip = desk.output / "videos" / "b.mp4"
        data = clip.read_bytes()
        clip.unlink()
        clip.symlink_to(clip)  # cannot be read, by nobody

        failed = await adopt(desk)
        assert failed.code == 3, failed.output
        refused = await desk.run()
        assert refused.code == 2, refused.output
        assert "adopt --from has not finished" in refused.err
        table = (desk.output / "results.csv").read_bytes()
        report = await desk.command("report", "batch.json")
        assert report.code == 2, report.output
        assert "3 paid rows in results.csv" in report.err
        assert (desk.output / "results.csv").read_bytes() == table
        one = await desk.command("adopt", "batch.json", "a", "another")
        assert one.code == 2, one.output
        assert vendor.create_counts == {"a": 1, "b": 1, "c": 1}

        clip.unlink()
        clip.write_bytes(data)
        finished = await adopt(desk)
        assert finished.code == 0, finished.output
        assert "3 done" in finished.out
        result = await desk.run()
        assert result.code == 0, result.output
        assert vendor.create_counts == {"a": 1, "b": 1, "c": 1}


def stop_at(monkeypatch: pytest.MonkeyPatch, number: int, *, before: bool) -> list[str]:
    """Interrupt the call of that number that reads a clip or writes to the ledger; return the calls."""
    calls: list[str] = []

    def interrupting(name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def wrapped(*args: Any, **options: Any) -> Any:
            calls.append(name)
            if before and len(calls) == number:
                raise Interrupted
            result = await call(*args, **options)
            if len(calls) == number:
                raise Interrupted
            return result

        return wrapped

    for owner, name in ((LocalStore, "fingerprint"), (Ledger, "meta_set"), (Ledger, "add")):
        monkeypatch.setattr(owner, name, interrupting(name, getattr(owner, name)))
    return calls


@pytest.mark.parametrize("before", [True, False])
async def test_an_adoption_may_be_interrupted_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, before: bool
) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write([{"id": name, "prompt": name} for name in "ab"])
        assert (await desk.run()).code == 0
        await lose_ledger(desk)
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("AIMLAPI_API_KEY", raising=False)
        choice, paths = ManifestChoice(Path("batch.json")), batch_paths(Path("batch.json"), None)
        left = tmp_path / "left"
        shutil.copytree(desk.output, left)
        for number in range(1, 100):
            shutil.rmtree(desk.output)
            shutil.copytree(left, desk.output)
            with monkeypatch.context() as patch:
                calls = stop_at(patch, number, before=before)
                try:
                    await rebuild_ledger(choice, Path("saved.csv"), paths)
                except Interrupted:
                    pass
                else:
                    break
            result = await desk.run()
            assert result.code in (0, 2), (calls, result.output)
            if result.code == 2:
                await rebuild_ledger(choice, Path("saved.csv"), paths)
                result = await desk.run()
                assert result.code == 0, (calls, result.output)
            assert vendor.create_counts == {"a": 1, "b": 1}, calls
        assert {"fingerprint", "add", "meta_set"} <= set(calls)


async def test_every_prompt_finds_its_clip_again(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write([{"prompt": prompt} for prompt in LINES])
        assert (await desk.run()).code == 0
        paid = dict(vendor.create_counts)
        assert len(paid) == len(LINES)
        await lose_ledger(desk)
        result = await adopt(desk)
        assert result.code == 0, result.output
        assert f"{len(LINES)} done" in result.out
        assert "left out" not in result.out
        vendor.log_down = 503
        result = await desk.run()
        assert result.code == 0, result.output
        assert vendor.create_counts == paid


async def test_a_generation_whose_row_was_not_taken_over_is_found_in_the_log(tmp_path: Path) -> None:
    """The table names it, but of another content and without its correlation id: its row is open, and the log
    says that it is its own."""
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write([{"id": name, "prompt": f"prompt {name}"} for name in "ab"])
        assert (await desk.run()).code == 0
        table = await lose_ledger(desk)
        edited = table.read_text().replace("prompt b", "promp")
        table.write_text(re.sub(r"vb\.[a-z0-9]+\.b\.[^,]+", "", edited))
        result = await adopt(desk)
        assert result.code == 0, result.output
        assert "1 of them come from the vendor's log alone" in result.out
        assert "1 paid rows of the table are left out" in result.out
        result = await desk.run()
        assert result.code == 0, result.output
        assert set(vendor.create_counts.values()) == {1}


async def test_a_cell_that_was_edited_is_named_and_nothing_is_changed(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write([{"id": name, "prompt": name} for name in "ab"])
        assert (await desk.run()).code == 0
        table = await lose_ledger(desk)
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
        whole = table.read_bytes()
        size = rows[1]["bytes"]
        table.write_bytes(whole.replace(size.encode(), f'"{int(size):,}"'.encode()))
        result = await adopt(desk)
        assert result.code == 2, result.output
        assert f"'{int(size):,}' in the column bytes" in result.err
        table.write_bytes(whole)
        assert (await adopt(desk)).code == 0
        assert (await desk.run()).code == 0
        assert vendor.create_counts == {"a": 1, "b": 1}


async def test_an_empty_ledger_takes_over_the_identity_of_the_lost_one(tmp_path: Path) -> None:
    """A run that was refused has left it; the vendor's log names the batch's submissions by the old one."""
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write(["a", "b"])
        assert (await desk.run()).code == 0
        table = await lose_ledger(desk)
        lines = table.read_text().splitlines(keepends=True)
        table.write_text("".join(line for line in lines if ",b," not in line))
        async with await Ledger.open(desk.output / "ledger.sqlite3") as ledger:
            made_at_random = ledger.identity
        result = await adopt(desk)
        assert result.code == 0, result.output
        assert "1 of them come from the vendor's log alone" in result.out
        async with await Ledger.open(desk.output / "ledger.sqlite3", new_as="z" * 10) as ledger:
            assert ledger.identity not in (made_at_random, "z" * 10)
        assert (await desk.run()).code == 0
        assert vendor.create_counts == {"a": 1, "b": 1}


async def test_a_batch_that_was_run_with_another_model_is_made_again_with_that(tmp_path: Path) -> None:
    other = ("--model", "google/veo-3.0-i2v-fast")
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write([{"id": "a", "prompt": "a"}, {"id": "b", "prompt": "b", "takes": 2}])
        assert (await desk.run(*other)).code == 0
        paid = dict(vendor.create_counts)
        await lose_ledger(desk)
        result = await adopt(desk)
        assert result.code == 2, result.output
        assert "--model google/veo-3.0-i2v-fast" in result.err
        result = await adopt(desk, *other)
        assert result.code == 0, result.output
        assert "3 done" in result.out
        assert (await desk.run(*other)).code == 0
        assert vendor.create_counts == paid


async def test_takes_that_only_a_run_was_asked_for_are_taken_over(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write([{"id": "a", "prompt": "a"}, {"id": "b", "prompt": "b"}])
        assert (await desk.run("--takes", "2")).code == 0
        await lose_ledger(desk)
        result = await adopt(desk)
        assert result.code == 0, result.output
        assert "4 done" in result.out
        for options in ((), ("--takes", "2")):
            assert (await desk.run(*options)).code == 0
            assert desk.states() == {"done": 4}
        assert vendor.create_counts == {"a": 2, "b": 2}


async def test_the_table_of_another_batch_makes_no_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (_, desk):
        desk.write(["a"])
        assert (await desk.run()).code == 0
        marker = desk.output / ".veobatch.json"
        marker.write_text(json.dumps(json.loads(marker.read_text()) | {"identity": "another0id"}))
        (desk.output / "ledger.sqlite3").unlink()
        monkeypatch.chdir(tmp_path)
        choice, paths = ManifestChoice(Path("batch.json")), batch_paths(Path("batch.json"), None)
        with pytest.raises(UsageError, match="another batch than the table"):
            await rebuild_ledger(choice, desk.output / "results.csv", paths)
        assert not (desk.output / "ledger.sqlite3").exists()


async def test_a_row_finds_its_clip_again_by_its_picture_and_not_by_that_ones_name(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    pictures = tmp_path / "stills"
    for number, name in enumerate(("renamed", "replaced", "x")):
        write_picture(pictures / f"{name}.jpg", size=(1280, 720 + number))
    rows = [
        {"id": "renamed", "image_url": "stills/renamed.jpg", "prompt": "A"},
        {"id": "replaced", "image_url": "stills/replaced.jpg", "prompt": "B"},
        {"id": composed, "image_url": "stills/x.jpg", "prompt": "C"},
    ]
    app = web.Application()
    app.router.add_static("/stills/", pictures)
    async with TestServer(app) as static, vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        published = ("--image-base-url", str(static.make_url("/")))
        desk.write(rows)
        first = await desk.run(*published)
        assert first.code == 0, first.output
        (pictures / "renamed.jpg").rename(pictures / "new name.jpg")
        write_picture(pictures / "replaced.jpg", size=(1280, 760))
        desk.write([rows[0] | {"image_url": "stills/new name.jpg"}, rows[1], rows[2] | {"id": decomposed}])
        await lose_ledger(desk)
        made = await adopt(desk)
        assert made.code == 0, made.output
        assert "2 done, 1 pending" in made.out
        assert "1 paid rows of the table are left out" in made.out
        result = await desk.run(*published)
        assert result.code == 0, result.output
        assert vendor.create_counts == {"A": 1, "B": 2, "C": 1}
