"""The whole command with its ledger in PostgreSQL: restarts on both sides, two runs at once, no password."""

from __future__ import annotations

import asyncio
import json
import signal
from math import inf
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.busy import busy_factor
from tests.integration.ledger_servers import PASSWORD, PostgresServer, shared_postgres
from tests.integration.ports import free_port
from tests.integration.vendor_double import kill_when, vendor_and_workspace, wait_for_exit, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.vendor_double import CommandResult


def assert_password_hidden(folder: Path, *ended: CommandResult) -> None:
    """The password is neither in what was said nor in any file, in none of its forms."""
    for form in (PASSWORD, quote(PASSWORD, safe="")):
        for said in ended:
            assert form not in said.output
        for path in folder.rglob("*"):
            if path.is_file():
                assert form.encode() not in path.read_bytes(), path


async def test_killed_and_continued(tmp_path: Path) -> None:
    url = shared_postgres().url(shared_postgres().new_database())
    async with vendor_and_workspace(tmp_path, render_s=1.0) as (vendor, desk):
        desk.write([f"clip {number}" for number in range(12)])
        options = ("--ledger", url, "--concurrency", "6")
        await kill_when(lambda: len(vendor.generations) >= 8, desk, vendor, *options)
        second = await desk.run(*options, "--reconcile-after", "3")
        assert second.code == 0, second.output
        assert len(vendor.create_counts) == 12
        assert set(vendor.create_counts.values()) == {1}
        assert desk.states() == {"done": 12}
        assert not any(name.endswith("sqlite3") for name in desk.files())
        assert_password_hidden(tmp_path, second)


async def test_other_commands_use_the_same_ledger(tmp_path: Path) -> None:
    url = shared_postgres().url(shared_postgres().new_database())
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.environment["VEOBATCH_LEDGER"] = url
        desk.write(["a", "b"])
        desk.write(["c"], name="other.json")
        assert (await desk.run()).code == 0
        assert (await desk.run(manifest="other.json")).code == 0
        assert sum(vendor.create_counts.values()) == 3
        for target, rows in (("batch.json", 2), ("other.json", 1), ("output/batch", 2)):
            status = await desk.command("status", target, "--json")
            assert json.loads(status.out)["counts"]["done"] == rows, status.output
        (desk.output / "results.csv").unlink()
        report = await desk.command("report", "batch.json")
        assert report.code == 0, report.output
        assert desk.states() == {"done": 2}
        costs = await desk.command("costs", "batch.json", "--base-url", vendor.api.url)
        assert costs.code in (0, 1), costs.output
        renamed = await desk.command("status", "batch.json", "--batch", "other", "--json")
        assert json.loads(renamed.out)["counts"]["done"] == 1, renamed.output
        missing = await desk.command("status", "nothing.json")
        assert missing.code == 3
        assert "no batch named 'nothing'" in missing.err
        adopted = await desk.command("adopt", "batch.json", "no-such-row", "g1")
        assert adopted.code == 2
        desk.environment.clear()
        lost = await desk.command("status", "batch.json", "--batch", "other")
        assert lost.code == 2
        assert "give --ledger too" in lost.err
        assert_password_hidden(tmp_path, status, report, costs, missing)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "immediate"])
async def test_a_restart_of_the_database_in_mid_run_pauses(
    tmp_path: Path, own_server: PostgresServer, how: signal.Signals
) -> None:
    url = own_server.url("postgres")
    async with vendor_and_workspace(tmp_path, render_s=0.5) as (vendor, desk):
        desk.write([f"clip {number}" for number in range(16)])
        process = await desk.start("--ledger", url, "--concurrency", "4")
        await wait_until(lambda: len(vendor.generations) >= 6)
        await asyncio.to_thread(own_server.stop, how)
        await wait_until(lambda: "is lost" in read_log(desk.output))
        await asyncio.to_thread(own_server.start)
        result = await wait_for_exit(process)
        assert result.code == 0, result.output
        assert "the connection to the database is lost" in result.err
        assert "the database is back" in result.err
        assert set(vendor.create_counts.values()) == {1}
        assert desk.states() == {"done": 16}
        assert_password_hidden(tmp_path, result)


def read_log(folder: Path) -> str:
    path = folder / "run.log"
    return path.read_text(encoding="utf-8") if path.exists() else ""


async def test_a_run_without_its_database_can_be_ended(tmp_path: Path, own_server: PostgresServer) -> None:
    """The second Ctrl-C does not wait for a database that never comes back."""
    async with vendor_and_workspace(tmp_path, render_s=0.3) as (vendor, desk):
        desk.write([f"clip {number}" for number in range(8)])
        process = await desk.start("--ledger", own_server.url("postgres"), "--concurrency", "2")
        await wait_until(lambda: len(vendor.generations) >= 3)
        await asyncio.to_thread(own_server.stop)
        await wait_until(lambda: "is lost" in read_log(desk.output))
        process.send_signal(signal.SIGINT)
        await wait_until(lambda: "stopping" in read_log(desk.output))
        process.send_signal(signal.SIGINT)
        result = await wait_for_exit(process, 30.0 * busy_factor())
        assert result.code == 130, result.output
        assert "veobatch run" in result.out
        assert_password_hidden(tmp_path, result)


async def test_one_run_at_a_time_from_wherever(tmp_path: Path) -> None:
    url = shared_postgres().url(shared_postgres().new_database())
    async with vendor_and_workspace(tmp_path, render_s=inf) as (vendor, desk):
        desk.write(["a"])
        process = await desk.start("--ledger", url)
        await wait_until(lambda: len(vendor.generations) == 1)
        second = await desk.run("--ledger", url, "--output", "elsewhere")
        assert second.code == 3
        assert "is held by veobatch" in second.err
        other = await desk.start("--ledger", url, "--output", "elsewhere", "--batch", "another")
        await wait_until(lambda: len(vendor.generations) == 2)
        for running in (process, other):
            running.kill()
            await running.communicate()
        vendor.generations[0].ends_at = 0.0
        taken = await desk.run("--ledger", url, "--output", "elsewhere")
        assert taken.code == 2  # that folder is the other batch's
        result = await desk.run("--ledger", url, "--output", "a-third")
        assert result.code == 0, result.output
        assert vendor.create_counts == {"a": 2}
        assert_password_hidden(tmp_path, second, result)


async def test_a_file_that_several_folders_share(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=inf) as (vendor, desk):
        desk.write(["a"])
        process = await desk.start("--ledger", "all.sqlite3")
        await wait_until(lambda: len(vendor.generations) == 1)
        second = await desk.run("--ledger", "sqlite:///all.sqlite3", "--output", "elsewhere")
        assert second.code == 3
        assert "is held by process" in second.err
        process.kill()
        await process.communicate()
        vendor.generations[0].ends_at = 0.0
        third = await desk.run("--ledger", "all.sqlite3", "--output", "elsewhere")
        assert third.code == 0, third.output
        assert vendor.create_counts == {"a": 1}


async def test_a_database_that_cannot_be_reached(tmp_path: Path) -> None:
    port = free_port()
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        desk.write(["a"])
        url = shared_postgres().url("missing", port=port)
        result = await desk.run("--ledger", url, "--json")
        assert result.code == 3, result.output
        assert "cannot be reached" in json.loads(result.out)["message"]
        asked = url.replace(f":{quote(PASSWORD, safe='')}@", "@") + f"?password={quote(PASSWORD, safe='')}"
        again = await desk.run("--ledger", asked)
        assert again.code == 3, again.output
        assert not vendor.generations
        assert_password_hidden(tmp_path, result, again)
