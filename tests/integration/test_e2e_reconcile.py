"""Keys, addresses and logs that cannot show a row in doubt, through the real command: paid once."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.vendor_double import KEY, LOST_CREATES, VendorDouble, vendor_and_workspace

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.vendor_double import Workspace

NEW_KEY = "sk-fedcba9876543210.OTHER"
MANAGEMENT_KEY = "mk-management.SECRET"


async def lose_answers(vendor: VendorDouble, desk: Workspace, count: int, *good: str) -> list[str]:
    """Run a batch whose first creates are accepted and not answered, with a log that does not show them."""
    prompts = [f"lost {number}" for number in range(count)]
    for prompt in prompts:
        script = vendor.script(prompt, creates=[LOST_CREATES["accepted then cut"]])
        script.in_log = False
    desk.write([*prompts, *good])
    result = await desk.run("--reconcile-wait", "0", "--concurrency", "12")
    assert result.code == 3, result.output
    assert desk.states().get("in_doubt") == count
    return prompts


def show_in_log(vendor: VendorDouble) -> None:
    for script in vendor.scripts.values():
        script.in_log = True


def assert_once(vendor: VendorDouble, prompts: list[str]) -> None:
    assert vendor.paid_counts() == dict.fromkeys(prompts, 1)


async def reconcile(desk: Workspace, *args: str) -> tuple[int, dict[str, Any]]:
    result = await desk.command("reconcile", "batch.json", "--base-url", desk.base_url, "--json", *args)
    return result.code, json.loads(result.out)


async def test_rotated_key_pays_nothing_twice_and_the_old_one_finishes_everything(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        prompts = await lose_answers(vendor, desk, 12)
        show_in_log(vendor)
        vendor.other_keys = {NEW_KEY}
        desk.key = NEW_KEY
        for _ in range(2):
            result = await desk.run("--reconcile-after", "5")
            assert result.code == 3, result.output
        assert_once(vendor, prompts)
        rows = desk.rows()
        assert {row["status"] for row in rows} == {"in_doubt"}
        assert all("another key" in row["error_message"] for row in rows)
        desk.key = KEY
        result = await desk.run("--reconcile-after", "5")
        assert result.code == 0, result.output
        assert desk.states() == {"done": 12}
        assert_once(vendor, prompts)


async def test_other_address_proves_nothing(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path) as (vendor, desk), VendorDouble() as other:
        prompts = await lose_answers(vendor, desk, 3)
        desk.base_url = other.api.url
        result = await desk.run("--reconcile-after", "1")
        assert result.code == 3, result.output
        assert vendor.api.url in desk.rows()[0]["error_message"]
        assert_once(vendor, prompts)
        assert other.generations == []


async def test_log_that_refuses_the_key_for_good_ends_the_wait(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        prompts = await lose_answers(vendor, desk, 2)
        vendor.log_down = 403
        result = await desk.run()
        assert result.code == 3, result.output
        assert "403" in desk.rows()[0]["error_message"]
        assert_once(vendor, prompts)


async def test_log_that_stands_still_proves_nothing(tmp_path: Path) -> None:
    """Nine accepted rows are missing from it, too."""
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        good = [f"good {number}" for number in range(9)]
        for prompt in good:
            vendor.script(prompt).in_log = False
        prompts = [*await lose_answers(vendor, desk, 3, *good), *good]
        for _ in range(2):
            result = await desk.run("--reconcile-after", "1")
            assert result.code == 3, result.output
        assert_once(vendor, prompts)
        assert "does not show 9" in "".join(row["error_message"] for row in desk.rows())
        show_in_log(vendor)
        result = await desk.run("--reconcile-after", "1")
        assert result.code == 0, result.output
        assert_once(vendor, prompts)


async def test_reconcile_reports_and_settles_row_by_row(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        prompts = await lose_answers(vendor, desk, 2)
        code, answer = await reconcile(desk)
        assert (code, answer["in_doubt"], len(answer["rows"])) == (3, 2, 2)
        assert {"time", "passes"} <= {lack["premise"] for lack in answer["rows"][0]["missing"]}
        vendor.scripts["lost 0"].in_log = True
        code, answer = await reconcile(desk)
        assert (code, answer["in_doubt"]) == (3, 1)
        assert sorted(row["status"] for row in answer["rows"]) == ["generating", "in_doubt"]
        show_in_log(vendor)
        code, answer = await reconcile(desk)
        assert (code, [row["status"] for row in answer["rows"]]) == (0, ["generating"])
        assert await reconcile(desk) == (0, {"rows": [], "in_doubt": 0, "exit_code": 0})
        creates = vendor.create_counts.total()
        result = await desk.run()
        assert result.code == 0, result.output
        assert vendor.create_counts.total() == creates
        assert_once(vendor, prompts)


@pytest.mark.parametrize("unexplained", [False, True])
async def test_absence_is_proven_by_two_calls_where_the_charges_agree(
    tmp_path: Path, *, unexplained: bool
) -> None:
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        vendor.offers_transactions = True
        vendor.script("lost", creates=[LOST_CREATES["cut unaccepted"]])
        if unexplained:
            vendor.scripts["lost"].creates = [LOST_CREATES["accepted then cut"]]
            vendor.scripts["lost"].in_log = False
        desk.write(["lost"])
        assert (await desk.run("--reconcile-wait", "0")).code == 3
        code, row, calls = 3, {"status": "in_doubt", "message": ""}, 0
        async with asyncio.timeout(600):
            while row["status"] == "in_doubt" and "charged" not in row["message"]:
                code, answer = await reconcile(desk, "--reconcile-after", "1")
                [row], calls = answer["rows"], calls + 1
        assert calls >= 2
        if unexplained:
            assert (code, row["status"]) == (3, "in_doubt")
            assert_once(vendor, ["lost"])
            return
        assert (code, row["status"]) == (0, "pending")
        result = await desk.run("--reconcile-after", "1")
        assert result.code == 0, result.output
        assert_once(vendor, ["lost"])


async def test_management_key_reads_the_log_of_the_key_that_sent(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        prompts = await lose_answers(vendor, desk, 2, "good")
        show_in_log(vendor)
        vendor.other_keys, vendor.management_key = {NEW_KEY}, MANAGEMENT_KEY
        desk.key = NEW_KEY
        code, answer = await reconcile(desk)
        assert (code, answer["in_doubt"]) == (3, 2)
        assert all("AIMLAPI_MANAGEMENT_KEY" in row["message"] for row in answer["rows"])
        refused = await desk.command("reconcile", "batch.json", "--key-prefix", KEY[:8])
        assert (refused.code, "AIMLAPI_MANAGEMENT_KEY" in refused.err) == (2, True)
        desk.environment = {"AIMLAPI_MANAGEMENT_KEY": MANAGEMENT_KEY}
        code, answer = await reconcile(desk, "--key-prefix", KEY[:8])
        assert (code, {row["status"] for row in answer["rows"]}) == (0, {"generating"})
        assert_once(vendor, [*prompts, "good"])


async def run_beyond_a_backup(desk: Workspace, tmp_path: Path, prompts: list[str]) -> Path:
    """Run the first row, copy the output, and run them all; return the copy."""
    desk.write(prompts[:1])
    assert (await desk.run()).code == 0
    backup = tmp_path / "backup"
    shutil.copytree(desk.output, backup)
    desk.write(prompts)
    assert (await desk.run()).code == 0
    return backup


@pytest.mark.parametrize("restored", ["ledger", "folder", "copy elsewhere"])
async def test_ledger_put_back_from_a_backup_pays_nothing_again(tmp_path: Path, restored: str) -> None:
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        prompts = ["first", "second", "third"]
        backup = await run_beyond_a_backup(desk, tmp_path, prompts)
        if restored == "ledger":
            shutil.copy(backup / "ledger.sqlite3", desk.output / "ledger.sqlite3")
        else:
            shutil.rmtree(desk.output)
            shutil.copytree(backup, desk.output)
        if restored == "copy elsewhere":
            shutil.rmtree(tmp_path / "home")  # a machine that has never seen the batch
        result = await desk.run("--reconcile-after", "0")
        assert result.code == 0, result.output
        assert desk.states() == {"done": 3}
        assert_once(vendor, prompts)


async def put_back_older_ledger(desk: Workspace, vendor: VendorDouble, tmp_path: Path) -> None:
    """Leave a ledger that knows the first row alone, while the log does not show the second yet."""
    vendor.script("second").in_log = False
    backup = await run_beyond_a_backup(desk, tmp_path, ["first", "second"])
    shutil.rmtree(desk.output)
    shutil.copytree(backup, desk.output)


async def test_what_an_older_ledger_has_forgotten_is_in_doubt_until_the_log_tells(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        await put_back_older_ledger(desk, vendor, tmp_path)
        result = await desk.run("--reconcile-after", "1")
        assert (result.code, desk.states()) == (3, {"done": 1, "in_doubt": 1}), result.output
        assert "does not know" in result.output
        vendor.log_down = 503
        result = await desk.run("--reconcile-after", "1")
        assert (result.code, desk.states()) == (3, {"done": 1, "in_doubt": 1}), result.output
        vendor.log_down = 0
        vendor.generations[-1].script.in_log = True
        assert (await desk.run("--reconcile-after", "1")).code == 0
        assert_once(vendor, ["first", "second"])


async def test_older_ledger_submits_nothing_while_neither_notes_nor_log_can_tell(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        await put_back_older_ledger(desk, vendor, tmp_path)
        shutil.rmtree(tmp_path / "home")  # a machine that has never seen the batch
        vendor.log_down = 503
        result = await desk.run()
        assert (result.code, "cannot be read" in result.err) == (3, True), result.output
        assert_once(vendor, ["first", "second"])


async def test_the_vendors_clock_dates_every_submission_from_the_first_on(tmp_path: Path) -> None:
    """One that only the local clock dates could not be proven absent from the log."""
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        desk.write(["one", "two", "three"])
        assert (await desk.run("--concurrency", "3")).code == 0
        with sqlite3.connect(desk.output / "ledger.sqlite3") as ledger:
            dated = ledger.execute("SELECT count(vendor_sent_at) FROM veobatch_records").fetchone()
        ledger.close()
        assert dated == (3,)
        assert_once(vendor, ["one", "two", "three"])


@pytest.mark.parametrize("rows", [1, 2])
async def test_what_is_paid_is_fetched_though_neither_notes_nor_log_can_tell(
    tmp_path: Path, rows: int
) -> None:
    """The state folder cannot be written, and the key may not read the log."""
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        (tmp_path / "a file").touch()
        desk.environment = {"XDG_STATE_HOME": str(tmp_path / "a file")}
        vendor.log_down = 403
        vendor.script("first").render_s = 3600.0
        desk.write(["first", "second"][:rows])
        begun = await desk.run("--limit", "1", "--timeout", "1")
        assert (begun.code, desk.states().get("generating")) == (3, 1), begun.output
        assert begun.err.count("cannot be noted in") == 1, begun.output
        assert "XDG_STATE_HOME" in begun.err

        vendor.generations[0].ends_at = 0.0
        for _ in range(2):
            ended = await desk.run()
            assert desk.states() == {"done": 1} | ({"pending": 1} if rows > 1 else {}), ended.output
            assert ended.code == (3 if rows > 1 else 0), ended.output
        assert ("Nothing more is submitted" in ended.err) == (rows > 1)
        assert_once(vendor, ["first"])

        vendor.log_down = 0
        assert (await desk.run()).code == 0
        assert_once(vendor, ["first", "second"][:rows])


async def test_notes_that_a_stopped_run_could_not_settle_are_met_by_the_next(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        await put_back_older_ledger(desk, vendor, tmp_path)
        notes = next((tmp_path / "home").glob("**/*.submissions.jsonl"))
        kept = notes.read_bytes()
        notes.unlink()
        desk.write(["first", "second", "third"])
        vendor.log_down = 503
        assert (await desk.run()).code == 3
        assert not notes.exists(), "a file that is begun now would say that nothing is forgotten"
        notes.write_bytes(kept)
        result = await desk.run("--reconcile-wait", "0")
        assert (result.code, desk.states()) == (3, {"done": 2, "in_doubt": 1}), result.output
        assert_once(vendor, ["first", "second", "third"])
