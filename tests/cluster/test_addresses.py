"""A cluster that was there before: by address and by `auto`, with a machine that vanishes, or not at all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pipeline.sandbox import Sandbox, SandboxOptions
from tests.cluster.clusters import ACCOUNT, WORKER, batch_of
from tests.crash.batches import until
from tests.integration.ledgers import server
from tests.integration.vendor_double import at_work

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.heads import Head

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

QUICK = SandboxOptions(speed=100.0, video="small", id_style="hostile", log_lag_s=10.0)


async def test_one_of_two_machines_vanishes(tmp_path: Path, head: Head) -> None:
    """Workers are spread over both, the account is where the driver is.

    Those who have a place do the work: the run does not wait for those who never get one.
    """
    other = head.add(cpus=2)
    try:
        async with Sandbox(QUICK) as box:
            batch = batch_of(tmp_path, box, 24, "--ray-address", head.address, workers=9, concurrency=6)
            process = await batch.start()
            await until(lambda: len(box.book.generations) >= 8)
            assert other.called(WORKER)
            assert not other.called(ACCOUNT)
            other.kill()
            code = await batch.ended(process)
            assert code == 0, batch.said()
            assert "is lost (it" in batch.said()
            assert "raylet" not in batch.said()
            batch.assert_all_done()
            assert box.book.peak_in_flight <= 6
    finally:
        head.remove(other)


async def test_the_cluster_of_this_machine(tmp_path: Path, head: Head) -> None:
    async with at_work(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write(["one", "two", "three"])
        desk.environment = {"RAY_TMPDIR": str(head.folder), "VEOBATCH_LEDGER": ledger()}
        result = await desk.run("--engine", "ray", "--ray-address", "auto", "--json")
        assert result.code == 0, result.said
        assert json.loads(result.out)["counts"]["done"] == 3
        assert set(vendor.created.values()) == {1}


def ledger() -> str:
    return server().url(server().new_database())
