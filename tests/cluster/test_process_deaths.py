"""What a run is made of dies: the account, or Ray. It goes on, or says how."""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest

from pipeline.sandbox import Sandbox, SandboxOptions
from tests.cluster.cluster_batches import (
    COORDINATOR_PROCESS,
    make_cluster_batch,
    send_signal,
    wait_until,
)
from tests.cluster.ray_clusters import RayCluster

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.ray

FAST_SANDBOX = SandboxOptions(speed=100.0, video="small", id_style="hostile", log_lag_s=10.0)


async def test_coordinator_is_killed(tmp_path: Path, head: RayCluster) -> None:
    """Another one goes on in the same run, and still lends no more than there is."""
    async with Sandbox(FAST_SANDBOX) as box:
        batch = make_cluster_batch(tmp_path, box, 24, "--ray-address", head.address, workers=2, concurrency=6)
        process = await batch.start()
        for paid in (8, 16):
            await wait_until(partial(has_created, box, paid))
            send_signal(head.pids_named(COORDINATOR_PROCESS)[0], signal.SIGKILL)
        code = await batch.ended(process)
        assert code == 0, batch.output_text()
        assert "the coordinator's process is lost (its process died): another goes on" in batch.output_text()
        batch.assert_all_done()
        assert box.state.peak_in_flight <= 6


@pytest.mark.parametrize("what", ["gcs_server", "raylet"])
async def test_ray_itself_is_killed(tmp_path: Path, what: str) -> None:
    """Whoever is left goes on as long as that works; then the run ends in words, and can be continued."""
    hasty = {"RAY_gcs_rpc_server_reconnect_timeout_s": "3"}
    own = RayCluster(cpus=2, environment=hasty)
    try:
        own.start()
        async with Sandbox(FAST_SANDBOX) as box:
            batch = make_cluster_batch(
                tmp_path, box, 400, "--ray-address", own.address, workers=2, concurrency=2
            )
            process = await batch.start()
            await wait_until(lambda: len(box.state.generations) >= 4)
            send_signal(own.pids_named(what)[0], signal.SIGKILL)
            code = await batch.ended(process)
            assert code == 3, batch.output_text()
            assert "Stopped early: " in batch.output_text()
            assert "Next: veobatch run" in batch.output_text()
            assert "Traceback" not in batch.output_text()
            batch.assert_consistent()
    finally:
        own.end()


def has_created(box: Sandbox, generations: int) -> bool:
    return len(box.state.generations) >= generations
