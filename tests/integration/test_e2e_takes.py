"""Takes through the real command: raised from one to three with kills in between, nothing is bought twice."""

from __future__ import annotations

import json
import random
import shlex
import signal
from typing import TYPE_CHECKING

import pytest

from tests.integration.vendor_double import kill_when, vendor_and_workspace

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.vendor_double import Workspace

ROWS = 20


def write(desk: Workspace, rows: int, takes: int) -> None:
    desk.write([{"id": f"row-{n}", "prompt": f"job {n}", "takes": takes} for n in range(rows)])


async def test_raising_takes_buys_only_the_new_ones_whenever_it_is_killed(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        write(desk, ROWS, 1)
        assert (await desk.run()).code == 0
        assert len(vendor.generations) == ROWS
        write(desk, ROWS, 3)
        for creates in sorted(random.Random(5).sample(range(ROWS, 3 * ROWS), 2)):
            await kill_when(lambda: len(vendor.generations) >= creates, desk, vendor, "--concurrency", "4")  # noqa: B023
        ended = await desk.run("--reconcile-after", "0.1")
        assert ended.code == 0, ended.output
        assert len(vendor.generations) == 3 * ROWS
        rows = desk.rows()
        assert [(row["id"], row["take"]) for row in rows[:4]] == [
            ("row-0", "1"), ("row-0.2", "2"), ("row-0.3", "3"), ("row-1", "1")
        ]  # fmt: skip
        assert {row["status"] for row in rows} == {"done"}
        assert len({row["video_path"] for row in rows}) == 3 * ROWS

        write(desk, ROWS, 1)
        assert (await desk.run()).code == 0
        assert len(vendor.generations) == 3 * ROWS
        assert len(desk.rows()) == 3 * ROWS, "what was paid for stays in the table"


@pytest.mark.parametrize("creates", [1, 2])
async def test_a_retake_by_id_is_bought_once_though_its_run_is_killed(tmp_path: Path, creates: int) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        write(desk, 1, 1)
        assert (await desk.run()).code == 0
        await kill_when(lambda: len(vendor.generations) >= creates, desk, vendor, "--retake", "row-0")
        ended = await desk.run("--retake", "row-0", "--reconcile-after", "0.1")
        assert ended.code == 0, ended.output
        assert len(vendor.generations) == 2
        assert (await desk.run()).code == 0
        assert [row["id"] for row in desk.rows()] == ["row-0", "row-0.2"]
        assert (await desk.run("--retake", "row-0")).code == 0
        assert len(vendor.generations) == 3, "the next wish, once the last one was met, is another take"
        refused = await desk.run("--retake", "row-7")
        assert refused.code == 2
        assert "no row of that id" in refused.output


def takes_in(desk: Workspace) -> dict[str, str]:
    return {row["id"]: row["status"] for row in desk.rows()}


async def test_the_next_command_after_a_retake_asks_for_no_other(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write([{"id": name, "prompt": name} for name in "abc"])
        assert (await desk.run("--limit", "2")).code == 0
        result = await desk.run("--retake", "a", "--limit", "1", "--json")
        assert result.code == 0, result.output
        command = json.loads(result.out)["next"]
        report = await desk.command("report", "batch.json")
        assert report.code == 0, report.output
        assert "--retake" not in command
        assert "--retake" not in (desk.output / "report.html").read_text(encoding="utf-8")
        ended = await desk.command(*shlex.split(command)[1:])
        assert ended.code == 0, ended.output
        assert takes_in(desk) == dict.fromkeys(("a", "a.2", "b", "c"), "done")
        assert len(vendor.generations) == 4


async def test_a_retake_for_which_a_run_had_no_room_stays_asked_for(tmp_path: Path) -> None:
    """The same command goes on with the takes that wait; when all are made, it asks for others."""
    same = ("--retake", "a", "--retake", "b", "--limit", "1")
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (_, desk):
        desk.write([{"id": name, "prompt": name} for name in "ab"])
        assert (await desk.run()).code == 0
        for made in (["a.2"], ["a.2", "b.2"], ["a.2", "a.3", "b.2"]):
            result = await desk.run(*same)
            assert result.code == 0, result.output
            done = [name for name, status in takes_in(desk).items() if status == "done" and "." in name]
            assert done == made
        assert takes_in(desk)["b.3"] == "pending"


async def test_a_retake_is_asked_for_until_its_run_has_told_everybody(tmp_path: Path) -> None:
    """Its run is killed at the very end, by a hook: who starts it again pays for no other take."""
    kill = """sh -c 'test "$VEOBATCH_EVENT" != run || kill -9 $PPID'"""
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        write(desk, 1, 1)
        assert (await desk.run()).code == 0
        killed = await desk.run("--retake", "row-0", "--on-done", kill)
        assert killed.code == -signal.SIGKILL, killed.output
        assert takes_in(desk) == {"row-0": "done", "row-0.2": "done"}
        assert (await desk.run("--retake", "row-0")).code == 0
        assert len(vendor.generations) == 2
        assert (await desk.run("--retake", "row-0")).code == 0
        assert len(vendor.generations) == 3
