"""Generations that the vendor answers with 404: what its log shows decides, and no other row waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.integration.vendor_double import LOST_CREATES, vendor_and_workspace
from tests.integration.vendor_double.script import error_reply

if TYPE_CHECKING:
    from pathlib import Path

QUICK = ("--poll-interval", "0.05", "--reconcile-after", "1")
UNKNOWN = error_reply(404, "Generation not found")


async def test_a_generation_that_the_vendor_lost_keeps_no_other_row_in_doubt(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        vendor.offers_transactions = True
        desk.options = QUICK
        lost = vendor.script("lost", render_s=0.0)
        lost.in_log, lost.status_replies = False, [UNKNOWN] * 10_000
        lost.final_answer = {"status": "failed", "error": {"message": "never billed"}}
        vendor.script("slow", render_s=3.0)
        desk.write(["lost", "slow"])
        assert (await desk.run()).code == 1
        assert desk.states() == {"failed": 1, "done": 1}
        vendor.script("doubt", creates=[LOST_CREATES["504"]])
        desk.write(["lost", "slow", "doubt", "after"])
        result = await desk.run()
        assert result.code == 1, result.output
        assert desk.states() == {"failed": 1, "done": 3}
        assert vendor.paid_counts() == dict.fromkeys(("lost", "slow", "doubt", "after"), 1)


async def test_an_adopted_clip_that_the_log_shows_outlives_statuses_that_are_away(tmp_path: Path) -> None:
    """A proxy dropped the header of its create: the log has it by its generation alone."""
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        vendor.offers_transactions = True
        desk.options = QUICK
        script = vendor.script("adopted", creates=[LOST_CREATES["accepted then cut"]])
        script.in_log = False
        desk.write([{"id": "row", "prompt": "adopted"}])
        assert (await desk.run("--reconcile-wait", "0")).code == 3
        [made] = vendor.generations
        made.client_id, script.in_log = "", True
        command = ("batch.json", "--base-url", desk.base_url)
        assert (await desk.command("reconcile", *command, "--reconcile-after", "1")).code == 3
        adopted = await desk.command("adopt", "batch.json", "row", str(made.id), *command[1:])
        assert adopted.code == 0, adopted.output
        script.status_replies = [UNKNOWN] * 10_000
        assert (await desk.run("--timeout", "5")).code == 3
        assert desk.states() == {"generating": 1}
        script.status_replies = []
        result = await desk.run("--retry-failed")
        assert result.code == 0, result.output
        assert vendor.paid_counts() == {"adopted": 1}
