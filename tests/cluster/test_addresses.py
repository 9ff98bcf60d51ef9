"""A cluster of two machines, one of which vanishes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipeline.sandbox import Fault, Sandbox, SandboxOptions
from tests.cluster.cluster_batches import (
    COORDINATOR_PROCESS,
    WORKER_PROCESS,
    make_cluster_batch,
    wait_until,
    wait_until_seen,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.ray_clusters import RayCluster

pytestmark = pytest.mark.ray

FAST_SANDBOX = SandboxOptions(speed=100.0, video="small", id_style="hostile", log_lag_s=10.0)


async def test_one_of_two_machines_vanishes(tmp_path: Path, head: RayCluster) -> None:
    """Workers are spread over both, the account is where the driver is.

    Those who have a place do the work: the run does not wait for those who never get one.
    """
    other = head.add(cpus=2)
    try:
        async with Sandbox(FAST_SANDBOX) as box:
            # However long a busy machine takes to start them: no row is done before both have workers.
            box.add_fault(Fault("throttled", value=2.0))
            batch = make_cluster_batch(
                tmp_path, box, 24, "--ray-address", head.address, workers=9, concurrency=6
            )
            process = await batch.start()
            await wait_until_seen(lambda: bool(other.pids_named(WORKER_PROCESS)))
            box._injector.faults.clear()
            await wait_until(lambda: len(box.state.generations) >= 8)
            assert not other.pids_named(COORDINATOR_PROCESS)
            other.kill()
            code = await batch.ended(process)
            assert code == 0, batch.output_text()
            assert "is lost (it" in batch.output_text()
            assert "raylet" not in batch.output_text()
            batch.assert_all_done()
            assert box.state.peak_in_flight <= 6
    finally:
        head.remove(other)
