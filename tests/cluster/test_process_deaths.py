"""What a run is made of dies: the account, or Ray. It goes on, or says how."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from pipeline.sandbox import Sandbox, SandboxOptions
from tests.cluster.cluster_batches import (
    COORDINATOR_PROCESS,
    make_cluster_batch,
    send_signal,
    wait_until,
)
from tests.cluster.ray_clusters import RayCluster

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
            threads = ThreadTimes(process.pid)
            send_signal(own.pids_named(what)[0], signal.SIGKILL)
            ending = asyncio.ensure_future(batch.ended(process))
            while not ending.done():
                threads.read()
                await asyncio.wait([ending], timeout=0.2)
            code = await ending
            assert code == 3, batch.output_text()
            assert threads.busiest_s() < 1.0, "a thread of Ray's asks its head without a pause"
            assert "Stopped early: " in batch.output_text()
            assert "Next: veobatch run" in batch.output_text()
            assert "Traceback" not in batch.output_text()
            batch.assert_consistent()
    finally:
        own.end()


class ThreadTimes:
    """What CPU the threads of a process take, but for its main thread and those that are new."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}/task")
        self._first = {
            task.name: self._seconds(task.name) for task in self._folder.iterdir() if task.name != str(pid)
        }
        self._last = dict(self._first)

    def read(self) -> None:
        for name in self._first:
            with suppress(OSError):  # it has ended
                self._last[name] = self._seconds(name)

    def busiest_s(self) -> float:
        return max(self._last[name] - first for name, first in self._first.items())

    def _seconds(self, name: str) -> float:
        fields = (self._folder / name / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def has_created(box: Sandbox, generations: int) -> bool:
    return len(box.state.generations) >= generations
