"""Stopping and not starting: signals, locks, wrong usage. Whoever stops finds all of it again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from math import inf
from typing import TYPE_CHECKING

import pytest

from tests import forked_python
from tests.integration.vendor_double import (
    LOST_CREATES,
    ScriptedCreate,
    Workspace,
    make_video,
    vendor_and_workspace,
    wait_for_exit,
    wait_until,
)
from tests.integration.vendor_double.script import error_reply, hang_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.vendor_double import VendorDouble


async def assert_resumes(vendor: VendorDouble, desk: Workspace, prompts: list[str]) -> None:
    result = await desk.run()
    assert result.code == 0, result.output
    assert vendor.paid_counts() == dict.fromkeys(prompts, 1)
    for row in desk.rows():
        assert desk.video(row).read_bytes() == make_video(row["prompt"])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_the_first_signal_finishes_what_is_paid(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    prompts = [f"job {number}" for number in range(12)]
    async with vendor_and_workspace(tmp_path, render_s=1.5) as (vendor, desk):
        desk.write(prompts)
        process = await desk.start("--concurrency", "3")
        await wait_until(lambda: len(vendor.generations) >= 4)
        process.send_signal(number)
        result = await wait_for_exit(process)
        assert result.code == code, result.output
        assert "once more" in result.err
        n_made = len(vendor.generations)
        assert 4 <= n_made <= 4 + 3
        assert desk.states() == {"done": n_made, "pending": 12 - n_made}
        await assert_resumes(vendor, desk, prompts)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_before_anything_is_submitted_ends_with_its_code_and_no_traceback(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    connected = asyncio.Event()

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read()
        writer.close()

    desk = Workspace(tmp_path)
    desk.write(["a job"])
    async with await asyncio.start_server(never_answer, "127.0.0.1", 0) as server:
        desk.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        process = await desk.start()
        await asyncio.wait_for(connected.wait(), 60.0)
        process.send_signal(number)
        result = await wait_for_exit(process)
    assert result.code == code, result.output
    assert result.err.strip() == "veobatch: interrupted"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_second_signal_stops_at_once(tmp_path: Path, number: signal.Signals) -> None:
    prompts = [f"job {number}" for number in range(6)]
    async with vendor_and_workspace(tmp_path, render_s=inf) as (vendor, desk):
        desk.write(prompts)
        process = await desk.start("--concurrency", "3")
        await wait_until(lambda: len(vendor.generations) >= 3)
        process.send_signal(number)
        assert process.stderr is not None
        async with asyncio.timeout(600):
            while b"once more" not in await process.stderr.readline():
                pass
        process.send_signal(number)
        result = await wait_for_exit(process)
        assert result.code == (130 if number is signal.SIGINT else 143), result.output
        assert desk.states() == {"generating": 3, "pending": 3}
        vendor.render_s = 0.1
        for made in vendor.generations:
            made.ends_at = 0.0
        await assert_resumes(vendor, desk, prompts)


async def test_stopping_while_answers_are_out_and_rows_in_doubt(tmp_path: Path) -> None:
    """A run that waits for the log, or for an answer that never comes, stops when it is told to."""
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        vendor.script("doubt", creates=[LOST_CREATES["502 accepted"]], in_log=False)
        vendor.script("silent", creates=[ScriptedCreate(accept=True, reply=hang_for(100.0))])
        desk.write(["doubt", "silent", "good", "good"])
        process = await desk.start()
        await wait_until(lambda: len(vendor.cdn.requests) >= 2)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        async with asyncio.timeout(600):
            while b"once more" not in await process.stderr.readline():
                pass
        process.send_signal(signal.SIGINT)
        result = await wait_for_exit(process)
        assert result.code == 130, result.output
        assert desk.states()["in_doubt"] == 2  # a download may have been stopped in the middle
        vendor.scripts["doubt"].in_log = True
        result = await desk.run()
        assert result.code == 0, result.output
        assert vendor.create_counts == {"doubt": 1, "silent": 1, "good": 2}


async def test_one_signal_is_enough_where_only_the_log_is_waited_for(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        vendor.script("doubt", creates=[LOST_CREATES["accepted then cut"]], in_log=False)
        desk.write(["doubt"])
        process = await desk.start()
        await wait_until(lambda: sum(request.path == "/v2/logs" for request in vendor.requests) >= 2)
        process.send_signal(signal.SIGTERM)
        result = await wait_for_exit(process)
        assert result.code == 143, result.output
        assert desk.states() == {"in_doubt": 1}


async def test_a_long_pause_of_the_vendor_can_be_stopped(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        refused = ScriptedCreate(accept=False, reply=error_reply(429, "slow down", Retry_After="300"))
        vendor.script("one", creates=[refused])
        desk.write(["one"])
        process = await desk.start()
        await wait_until(lambda: '"throttled"' in desk.log())
        process.send_signal(signal.SIGINT)
        result = await wait_for_exit(process)
        assert result.code == 130, result.output
        assert desk.states() == {"pending": 1}


async def test_a_reader_that_goes_away_stops_nothing(tmp_path: Path) -> None:
    """The pipe behind the command is closed in mid-run: what is paid is finished all the same."""
    prompts = [f"job {number}" for number in range(6)]
    async with vendor_and_workspace(tmp_path, render_s=0.5) as (vendor, desk):
        desk.write(prompts)
        desk.options = (*desk.options, "--concurrency", "2", "-vv")
        where = ("--base-url", desk.base_url, *desk.options)
        reading, writing = os.pipe()
        args = ("-m", "pipeline", "run", "batch.json", *where)
        process = await forked_python.start(
            *args, cwd=desk.folder, env=desk.environ(), stdout=writing, stderr=writing
        )
        os.close(writing)
        await wait_until(lambda: len(vendor.generations) >= 2)
        os.close(reading)
        async with asyncio.timeout(600):
            assert await process.wait() == 0
        assert desk.states() == {"done": 6}
        assert vendor.paid_counts() == dict.fromkeys(prompts, 1)


async def test_a_second_run_names_the_first_and_touches_nothing(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=inf) as (vendor, desk):
        desk.write(["one", "two"])
        process = await desk.start()
        await wait_until(lambda: len(vendor.generations) >= 2)
        await wait_until(
            lambda: desk.states() == {"generating": 2}
        )  # from now on the first one writes nothing
        requests, files = len(vendor.requests), desk.files()
        result = await desk.run("--concurrency", "1", "--poll-interval", "1000")
        assert result.code == 3, result.output
        assert str(process.pid) in result.err
        assert desk.files() == files
        assert len([r for r in vendor.requests[requests:] if r.method == "POST"]) == 0
        process.kill()
        await wait_for_exit(process)
        for made in vendor.generations:
            made.ends_at = 0.0
        await assert_resumes(vendor, desk, ["one", "two"])


@pytest.mark.parametrize(
    "args",
    [
        ("--concurrency", "0"),
        ("--poll-interval", "-1"),
        ("--timeout", "nan"),
        ("--base-url", "ftp://example.com"),
        ("--only", "refused"),
        ("--no-such-option",),
    ],
)
async def test_wrong_usage_touches_nothing(tmp_path: Path, args: tuple[str, ...]) -> None:
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        desk.write(["one"])
        files = desk.files()
        result = await desk.run(*args)
        assert result.code == 2, result.output
        assert "Traceback" not in result.err
        assert desk.files() == files
        assert not vendor.requests


async def test_a_manifest_that_is_wrong_touches_nothing(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        desk.write(["one", {"prompt": "two", "duration": 5}, {"promt": "three"}])
        files = desk.files()
        result = await desk.run()
        assert result.code == 2, result.output
        assert "batch.json:1:" in result.err
        assert desk.files() == files
        assert not vendor.requests
        assert (await desk.run(manifest="missing.yaml")).code == 2


@pytest.mark.parametrize("place", ["a file", "a file/below", "with blanks \u00e9"])
async def test_places_for_the_output(tmp_path: Path, place: str) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.05) as (vendor, desk):
        (tmp_path / "a file").write_text("mine")
        desk.write(["one"])
        result = await desk.run("--output", str(tmp_path / place))
        assert "Traceback" not in result.err
        if place.startswith("a file"):
            assert result.code in (2, 3), result.output
            assert not vendor.generations
            assert (tmp_path / "a file").read_text() == "mine"
        else:
            assert result.code == 0, result.output
            assert (tmp_path / place / "results.csv").exists()
            assert not (tmp_path / "output").exists()


async def test_a_damaged_ledger_is_said_and_left_alone(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        desk.write(["one"])
        assert (await desk.run()).code == 0
        ledger = desk.output / "ledger.sqlite3"
        whole = ledger.read_bytes()
        ledger.write_bytes(b"not a database at all" * 400)
        requests = len(vendor.requests)
        result = await desk.run("--json")
        assert result.code == 3, result.output
        assert "Traceback" not in result.err
        assert "ledger" in result.err
        assert len(vendor.requests) == requests
        ledger.write_bytes(whole)
        result = await desk.run("--json")
        assert result.code == 0, result.output
        assert json.loads(result.out)["exit_code"] == 0
