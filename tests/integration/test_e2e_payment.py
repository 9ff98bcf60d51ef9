"""Paid once, never lost: lost answers, empty purses, wrong keys, dead networks, through the real command."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from tests.integration.vendor_double import (
    KEY,
    LOST_CREATES,
    JobScript,
    ScriptedCreate,
    VendorDouble,
    make_video,
    vendor_and_workspace,
    wait_for_exit,
    wait_until,
)
from tests.integration.vendor_double.script import error_reply, json_reply

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.vendor_double import Workspace


def script_lost_answers(vendor: VendorDouble, n_jobs: int) -> list[str]:
    """Lose the first create's answer of each of so many jobs, in each of the ways by turns."""
    prompts = []
    for number in range(n_jobs):
        ways = list(LOST_CREATES)
        way = ways[number % len(ways)]
        prompts.append(f"{way} {number}")
        vendor.scripts[prompts[-1]] = JobScript(creates=[LOST_CREATES[way]])
    return prompts


def assert_paid_once_and_done(vendor: VendorDouble, desk: Workspace, prompts: list[str]) -> None:
    """Each prompt was paid once, is done, and its file is its own."""
    assert vendor.paid_counts() == dict.fromkeys(prompts, 1)
    rows = {row["prompt"]: row for row in desk.rows()}
    assert set(rows) == set(prompts)
    assert {row["status"] for row in rows.values()} == {"done"}
    for prompt, row in rows.items():
        assert desk.video(row).read_bytes() == make_video(prompt, vendor.cdn.padding)


async def test_answers_lost_in_every_way_and_a_log_of_many_pages(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        prompts = script_lost_answers(vendor, 14)
        vendor.log_page_rows, vendor.log_noise, vendor.log_lag_s = 10, 15, 0.5
        desk.write(prompts)
        result = await desk.run("--reconcile-after", "6", "--concurrency", "8")
        assert result.code == 0, result.output
        assert_paid_once_and_done(vendor, desk, prompts)
        assert all(made.client_id for made in vendor.generations)


async def test_a_log_that_never_shows_them_holds_them(tmp_path: Path) -> None:
    good = [f"good {number}" for number in range(4)]
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        prompts = script_lost_answers(vendor, 7)
        for prompt in prompts:
            vendor.scripts[prompt].in_log = False
        desk.write([*prompts, *good])
        result = await desk.run("--reconcile-wait", "1")
        assert result.code == 3, result.output
        assert desk.states() == {"done": 4, "in_doubt": 7}
        assert vendor.create_counts == dict.fromkeys([*prompts, *good], 1)
        assert "--resubmit-in-doubt" in result.out + result.err
        vendor.log_down = 503
        result = await desk.run("--reconcile-wait", "1", "--reconcile-after", "0")
        assert result.code == 3, result.output
        assert desk.states() == {"done": 4, "in_doubt": 7}
        vendor.log_down = 0
        for prompt in prompts:
            vendor.scripts[prompt].in_log = True
        result = await desk.run("--reconcile-wait", "1")
        assert result.code == 3, result.output
        assert desk.states() == {"done": 8, "in_doubt": 3}
        result = await desk.run("--resubmit-in-doubt")
        assert result.code == 0, result.output
        assert_paid_once_and_done(vendor, desk, [*prompts, *good])


async def test_credits_for_five_of_forty(tmp_path: Path) -> None:
    prompts = [f"job {number}" for number in range(40)]
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        vendor.credits = 5
        desk.write(prompts)
        # Until submitting has stopped, what is paid keeps its slots, however slow this machine is.
        vendor.render_s = inf
        process = await desk.start("--concurrency", "6")
        log = desk.output / "run.log"
        await wait_until(lambda: log.exists() and '"topic": "stopping"' in log.read_text(encoding="utf-8"))
        vendor.render_s = 0.3
        for made in vendor.generations:
            made.ends_at = 0.0
        result = await wait_for_exit(process)
        assert result.code == 3, result.output
        assert desk.states() == {"done": 5, "pending": 35}
        assert sum(vendor.create_counts.values()) <= 5 + 6
        assert "credits" in result.err + result.out
        vendor.credits = None
        result = await desk.run("--concurrency", "6")
        assert result.code == 0, result.output
        assert_paid_once_and_done(vendor, desk, prompts)


async def test_a_quota_stops_and_a_later_run_goes_on(tmp_path: Path) -> None:
    prompts = [f"job {number}" for number in range(6)]
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        vendor.quota = True
        desk.write(prompts)
        result = await desk.run("--concurrency", "3")
        assert result.code == 3, result.output
        assert desk.states() == {"pending": 6}
        assert sum(vendor.create_counts.values()) <= 3
        vendor.quota = False
        result = await desk.run()
        assert result.code == 0, result.output
        assert_paid_once_and_done(vendor, desk, prompts)


async def test_a_wrong_key_fails_no_row_and_shows_nowhere(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path) as (_, desk):
        desk.write(["one", "two"])
        desk.key, desk.key_name = "sk-a-wrong-key-0815", "AIML_API_KEY"
        result = await desk.run()
        assert result.code == 3, result.output
        assert "AIML_API_KEY" in result.err + result.out
        assert desk.states() == {"pending": 2}
        assert_key_hidden(desk, desk.key, result.out, result.err)
        desk.key = KEY
        result = await desk.run()
        assert result.code == 0, result.output


async def test_the_key_is_shown_nowhere_even_by_a_vendor_that_repeats_it(tmp_path: Path) -> None:
    words = f"Header 'Authorization: Bearer {KEY}' is not liked"
    ending = {"status": "error", "error": {"name": KEY, "message": words}}
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        vendor.script("refused", creates=[ScriptedCreate(accept=False, reply=error_reply(400, words))])
        vendor.script("doubted", creates=[ScriptedCreate(accept=True, reply=error_reply(502, words))])
        vendor.script("ended", final_answer=ending)
        vendor.script("no url", final_answer={"status": "completed", "video": None, "note": words})
        vendor.script("unknown", status_replies=[json_reply(200, {"status": KEY})])
        vendor.script("looked", status_replies=[error_reply(500, words)])
        vendor.script("busy", creates=[ScriptedCreate(accept=False, reply=error_reply(503, words))])
        vendor.script("slow", creates=[ScriptedCreate(accept=False, reply=error_reply(429, words))])
        desk.write(list(vendor.scripts))
        result = await desk.run("-vv", "--generation-retries", "0")
        assert result.code == 1, result.output
        assert_key_hidden(desk, KEY, result.out, result.err)
        vendor.scripts["last"] = JobScript(
            creates=[ScriptedCreate(accept=False, reply=error_reply(403, words))] * 10
        )
        desk.write(list(vendor.scripts))
        result = await desk.run("-vv", "--json")
        assert result.code == 3, result.output
        assert_key_hidden(desk, KEY, result.out, result.err)


def assert_key_hidden(desk: Workspace, key: str, *outputs: str) -> None:
    for text in outputs:
        assert key not in text
    for path in desk.folder.rglob("*"):
        assert not path.is_file() or key.encode() not in path.read_bytes(), path


async def test_a_network_that_is_gone_for_a_while(tmp_path: Path) -> None:
    prompts = [f"job {number}" for number in range(20)]
    async with vendor_and_workspace(tmp_path, render_s=0.8, fixed_ports=True) as (vendor, desk):
        vendor.cdn.padding, vendor.cdn.bytes_per_s = 100_000, 100_000
        desk.write(prompts)
        process = await desk.start("--concurrency", "4", "--reconcile-after", "3")
        await wait_until(lambda: len(vendor.generations) >= 8)
        await vendor.network_outage(2.0)
        result = await wait_for_exit(process)
        assert result.code == 0, result.output
        assert_paid_once_and_done(vendor, desk, prompts)


async def test_a_limit_that_nobody_told(tmp_path: Path) -> None:
    prompts = [f"job {number}" for number in range(30)]
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        vendor.max_in_flight = 4
        desk.write(prompts)
        result = await desk.run("--concurrency", "30")
        assert result.code == 0, result.output
        assert_paid_once_and_done(vendor, desk, prompts)
        assert sum(vendor.create_counts.values()) < 30 + 60
