"""What is asked for once (doubts, failed rows, takes, a rewritten manifest) is nothing until a run begins."""

from __future__ import annotations

import asyncio
import os
import pty
import shutil
import signal
import socket
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pipeline import Batch, UsageError
from pipeline.ledger import Ledger
from pipeline.model import State
from pipeline.submit.submission_journal import SubmissionJournal
from tests.integration.test_signal_sequences import read_until
from tests.integration.vendor_double import (
    KEY,
    LOST_CREATES,
    ScriptedCreate,
    VendorDouble,
    vendor_and_workspace,
    wait_for_exit,
    wait_until,
)
from tests.integration.vendor_double.script import error_reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from pipeline.model import Record
    from tests.integration.vendor_double import Workspace

WAIT = ("--reconcile-wait", "0.2")
RESUBMIT = ("--resubmit-in-doubt", *WAIT)


async def rows_of(desk: Workspace) -> dict[str, Record]:
    async with await Ledger.open(desk.output / "ledger.sqlite3", read_only=True) as ledger:
        return {record.id: record for record in await ledger.load()}


async def leave_in_doubt(vendor: VendorDouble, desk: Workspace, *names: str) -> dict[str, Record]:
    """Run rows whose creates are accepted, answered with a 502, and never shown in the log."""
    for name in names:
        vendor.script(name, creates=[LOST_CREATES["502 accepted"]], in_log=False)
    desk.write([{"id": name, "prompt": name} for name in names])
    result = await desk.run(*WAIT)
    assert result.code == 3, result.output
    return await rows_of(desk)


async def leave_failed(vendor: VendorDouble, desk: Workspace, *names: str) -> dict[str, Record]:
    for name in names:
        vendor.script(name, creates=[ScriptedCreate(accept=False, reply=error_reply(400, "no such image"))])
    desk.write([{"id": name, "prompt": name} for name in names])
    result = await desk.run()
    assert result.code == 1, result.output
    return await rows_of(desk)


async def decline(desk: Workspace, *options: str) -> None:
    """Start a run on a terminal and answer its question with No."""
    terminal, end = pty.openpty()
    try:
        process = await desk.start("--assume-price", "1", *options, terminal=end)
        shown = await asyncio.to_thread(read_until, terminal, b"Go on?")
        assert b"Go on?" in shown
        os.write(terminal, b"n\n")
        result = await wait_for_exit_on_terminal(process, terminal)
        assert result == 3
    finally:
        os.close(end)
        os.close(terminal)


async def wait_for_exit_on_terminal(process: Any, terminal: int) -> int:
    await asyncio.wait_for(process.wait(), 600)
    os.set_blocking(terminal, False)
    assert b"nothing was submitted" in os.read(terminal, 65536)
    return int(process.returncode)


async def mistype(desk: Workspace, *options: str) -> None:
    result = await desk.run(*options, "--select", "nobody")
    assert result.code == 2, result.output


async def lose_the_network(desk: Workspace, *options: str) -> None:
    url, desk.base_url = desk.base_url, "http://127.0.0.1:9"
    result = await desk.run(*options)
    desk.base_url = url
    assert result.code == 3, result.output


async def find_the_pages_port_taken(desk: Workspace, *options: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        result = await desk.run(*options, "--serve", str(taken.getsockname()[1]))
    assert result.code == 2, result.output


async def find_the_output_unwritable(desk: Workspace, *options: str) -> None:
    table = desk.output / "results.csv"
    table.unlink()
    (table / "in the way").mkdir(parents=True)
    result = await desk.run(*options)
    assert result.code == 3, result.output
    (table / "in the way").rmdir()
    table.rmdir()


WAYS_NOT_TO_BEGIN = [
    decline,
    mistype,
    lose_the_network,
    find_the_pages_port_taken,
    find_the_output_unwritable,
]


async def test_consent_to_what_an_older_ledger_may_have_forgotten_counts_for_the_run_that_begins(
    tmp_path: Path,
) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write([{"id": name, "prompt": name} for name in "abc"])
        assert (await desk.run("--limit", "1")).code in (0, 3)
        shutil.rmtree(tmp_path / "home")  # a machine that has never seen the batch, with a key of its own
        vendor.other_keys = {"sk-fedcba9876543210.OTHER"}
        desk.key = "sk-fedcba9876543210.OTHER"
        for way in (decline, mistype, find_the_pages_port_taken):
            await way(desk, "--resubmit-in-doubt")
            result = await desk.run()
            assert (result.code, "another key" in result.err) == (3, True), result.output
        assert vendor.create_counts == {"a": 1}
        assert (await desk.run("--resubmit-in-doubt", "--select", "b")).code in (0, 3)
        result = await desk.run()
        assert (result.code, vendor.create_counts) == (3, {"a": 1, "b": 1}), result.output
        assert (await desk.run("--resubmit-in-doubt")).code == 0
        assert vendor.create_counts == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize("way", WAYS_NOT_TO_BEGIN)
async def test_a_run_that_did_not_begin_leaves_doubts_as_they_are(
    tmp_path: Path, way: Callable[..., Awaitable[None]]
) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        before = await leave_in_doubt(vendor, desk, "a", "b")
        await way(desk, *RESUBMIT)
        after = await rows_of(desk)
        assert {row.state for row in after.values()} == {State.IN_DOUBT}
        assert [row.correlation_id for row in after.values()] == [r.correlation_id for r in before.values()]
        assert all(row.correlation_id for row in after.values())
        await desk.run(*WAIT)
        assert vendor.create_counts == {"a": 1, "b": 1}, "a run without the word asks the log"
        again = await desk.run(*RESUBMIT)
        assert again.code == 0, again.output
        assert vendor.create_counts == {"a": 2, "b": 2}


@pytest.mark.parametrize("way", WAYS_NOT_TO_BEGIN)
async def test_a_run_that_did_not_begin_leaves_failed_rows_failed(
    tmp_path: Path, way: Callable[..., Awaitable[None]]
) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        before = await leave_failed(vendor, desk, "a", "b")
        await way(desk, "--retry-failed")
        assert await rows_of(desk) == before
        assert (await desk.run()).code == 1
        assert vendor.create_counts == {"a": 1, "b": 1}
        again = await desk.run("--retry-failed")
        assert again.code == 0, again.output
        assert vendor.create_counts == {"a": 2, "b": 2}


@pytest.mark.parametrize("way", WAYS_NOT_TO_BEGIN)
async def test_a_run_that_did_not_begin_buys_no_take(
    tmp_path: Path, way: Callable[..., Awaitable[None]]
) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write([{"id": "a", "prompt": "a"}])
        assert (await desk.run()).code == 0
        await way(desk, "--retake", "a")
        plain = await desk.run()
        assert plain.code == 0, plain.output
        assert vendor.create_counts == {"a": 1}
        again = await desk.run("--retake", "a")
        assert again.code == 0, again.output
        assert [row["id"] for row in desk.rows()] == ["a", "a.2"]


async def test_ctrl_c_while_a_run_prepares_leaves_doubts_as_they_are(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        before = await leave_in_doubt(vendor, desk, "a", "b")
        vendor.prices_delay_s, asked = 60.0, len(vendor.requests)
        process = await desk.start(*RESUBMIT)
        # Prices are asked for once the plan is made.
        await wait_until(lambda: any(request.path == "/v1/models" for request in vendor.requests[asked:]))
        process.send_signal(signal.SIGINT)
        ended = await wait_for_exit(process)
        assert ended.code == 130, ended.output
        assert await rows_of(desk) == before


@pytest.mark.parametrize("selection", [("--select", "a"), ("--limit", "1")])
async def test_only_selected_doubts_are_submitted_again(tmp_path: Path, selection: tuple[str, str]) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        before = await leave_in_doubt(vendor, desk, "a", "b")
        result = await desk.run(*RESUBMIT, *selection)
        assert result.code == 3, result.output
        rows = await rows_of(desk)
        assert (rows["a"].state, rows["b"].state) == (State.DONE, State.IN_DOUBT)
        assert rows["b"].correlation_id == before["b"].correlation_id
        await desk.run(*WAIT)
        assert vendor.create_counts == {"a": 2, "b": 1}, "nobody has said it of b"
        vendor.scripts["b"].in_log = True
        settled = await desk.run()
        assert settled.code == 0, settled.output
        assert vendor.create_counts == {"a": 2, "b": 1}


async def test_selecting_failed_rows_submits_no_doubt_again(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        before = await leave_in_doubt(vendor, desk, "a")
        result = await desk.run(*RESUBMIT, "--select", "@failed")
        assert result.code == 3, result.output
        assert (await rows_of(desk))["a"].correlation_id == before["a"].correlation_id
        assert vendor.create_counts == {"a": 1}


async def test_failed_rows_beyond_the_limit_stay_failed_and_do_not_count(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        before = await leave_failed(vendor, desk, "a", "b", "c")
        result = await desk.run("--retry-failed", "--limit", "1")
        assert result.code == 0, result.output
        assert "2 rows that failed before" in result.out + result.err
        rows = await rows_of(desk)
        assert (rows["a"].state, rows["b"], rows["c"]) == (State.DONE, before["b"], before["c"])
        await desk.run()
        assert vendor.create_counts == {"a": 2, "b": 1, "c": 1}


async def test_a_rewritten_manifest_that_nobody_paid_for_is_asked_about_again(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        old, new = [f"cat number {n}" for n in range(4)], [f"cat no. {n}" for n in range(4)]
        desk.write(old)
        assert (await desk.run()).code == 0
        desk.write(new)
        await decline(desk, "--as-new")
        for _ in range(2):
            refused = await desk.run()
            assert refused.code == 2, refused.output
            assert "4 rows of the manifest are new, and 4 that are paid for" in refused.err
        desk.write(old)
        assert (await desk.run()).code == 0
        assert sum(vendor.create_counts.values()) == 4
        desk.write(new)
        bought = await desk.run("--as-new")
        assert bought.code == 0, bought.output
        assert sum(vendor.create_counts.values()) == 8
        assert (await desk.run()).code == 0, "it was paid for, and is no longer asked about"


async def test_a_failed_row_that_was_completed_as_only_the_journal_knows_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        script = vendor.script("a", final_answer={"status": "error", "error": "GPU fell off the bus"})
        desk.write([{"id": "a", "prompt": "a"}])
        assert (await desk.run("--generation-retries", "0")).code == 1
        monkeypatch.setenv("HOME", desk.environ()["HOME"])
        monkeypatch.delenv("XDG_STATE_HOME", raising=False)
        async with await Ledger.open(desk.output / "ledger.sqlite3", read_only=True) as ledger:
            [failed] = await ledger.load()
            SubmissionJournal(ledger.identity).append(replace(failed, completed_at=7.0))
        script.final_answer = None
        again = await desk.run("--retry-failed")
        assert again.code == 0, again.output
        assert vendor.create_counts == {"a": 1}


async def test_a_program_that_prepares_a_batch_and_leaves_it_has_asked_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        before = await leave_in_doubt(vendor, desk, "a", "b")
        monkeypatch.chdir(tmp_path)
        options: dict[str, Any] = {"base_url": vendor.api.url, "api_key": KEY, "resubmit_in_doubt": True}
        async with Batch("batch.json", **options) as batch:
            assert (await batch.prepare()).cost_estimate.rows == 2
            assert [row.status for row in await batch.results()] == ["in_doubt", "in_doubt"]
        assert await rows_of(desk) == before
        with pytest.raises(UsageError, match="nobody"):
            async with Batch("batch.json", select=("nobody",), **options) as batch:
                await batch.prepare()
        assert await rows_of(desk) == before
        async with Batch("batch.json", **options) as batch:
            batch.stop()
            async for _ in batch.run():
                pass
        assert await rows_of(desk) == before
        assert vendor.create_counts == {"a": 1, "b": 1}
