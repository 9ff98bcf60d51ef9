"""Workers and drivers die, stall and wake up: nothing is paid twice, nothing is lost, no slot is lent twice.

`VEOBATCH_RAY_JOBS=400` runs the large variant of the kills, `VEOBATCH_RAY_SEED` chooses whom they hit.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.sandbox import Fault, Sandbox, SandboxOptions
from tests.busy import busy_factor
from tests.cluster.cluster_batches import (
    WORKER_PROCESS,
    command_of,
    descendants,
    make_cluster_batch,
    pids_named,
    send_signal,
    wait_until,
    wait_until_seen,
)
from tests.integration.ledger_servers import PostgresServer, remove_server
from tests.integration.ports import free_port

if TYPE_CHECKING:
    from tests.cluster.ray_clusters import RayCluster
    from tests.crash.batches import Batch
    from tests.forked_python import Command

pytestmark = pytest.mark.ray

N_JOBS = int(os.environ.get("VEOBATCH_RAY_JOBS", "40"))
N_WORKER_KILLS, N_DRIVER_KILLS = (16, 4) if N_JOBS > 100 else (3, 1)
FAST_SANDBOX = SandboxOptions(speed=100.0, video="small", id_style="hostile", log_lag_s=10.0)
RAY_AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Two processes of Ray's own that try to reach its head for a minute before they end."""
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - it is looked at, no more


def has_created(process: Command, box: Sandbox, generations: int) -> bool:
    return process.returncode is not None or len(box.state.generations) >= generations


@pytest.mark.timeout(1800)
async def test_workers_and_drivers_are_killed(tmp_path: Path) -> None:
    """Of a Ray of the driver's own, of which nothing stays behind it."""
    seed = int(os.environ.get("VEOBATCH_RAY_SEED", "8"))
    chance = random.Random(seed)
    concurrency = 12
    async with Sandbox(FAST_SANDBOX) as box:
        box.add_fault(Fault("gateway-accepted", share=0.05, total=4))
        batch = make_cluster_batch(tmp_path, box, N_JOBS, workers=3, concurrency=concurrency)
        step = N_JOBS // (N_WORKER_KILLS + N_DRIVER_KILLS + 1)
        kills = ["worker"] * N_WORKER_KILLS + ["driver"] * N_DRIVER_KILLS
        chance.shuffle(kills)
        shared = shared_memory_files()
        process = await batch.start()
        for number, whom in enumerate(kills, 1):
            await wait_until(partial(has_created, process, box, number * step))
            await asyncio.sleep(chance.uniform(0.0, 0.3))
            if process.returncode is not None:
                break
            if whom == "driver":
                await kill_with_its_ray(process, shared)
                process = await batch.start()
            elif alive := pids_named(WORKER_PROCESS, process.pid):
                send_signal(chance.choice(alive), signal.SIGKILL)
        async with asyncio.timeout(600):
            code = await process.wait()
        print(f"seed {seed}: peak {box.state.peak_in_flight}, exit {code}")
        assert code == 0, f"seed {seed}\n{batch.output_text()}"
        batch.assert_all_done()
        assert box.state.peak_in_flight <= concurrency


async def kill_with_its_ray(driver: Command, before: set[str]) -> None:
    """Kill a driver; wait until its Ray has ended, too, and has left nothing in the memory it shares."""
    started = [pid for pid in descendants(driver.pid) if command_of(pid) not in RAY_AGENTS]
    assert len(pids_named("ray::", driver.pid)) > 2
    made = shared_memory_files() - before
    driver.kill()
    await driver.wait()
    await wait_until_seen(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started))
    await wait_until_seen(lambda: not made & shared_memory_files())


def shared_memory_files() -> set[str]:
    """What Ray has in the memory that processes share."""
    return {entry.name for entry in SHARED_MEMORY.iterdir() if entry.name.startswith(("plasma", "ray"))}


async def test_a_stalled_worker_that_wakes_up_can_no_longer_write(tmp_path: Path, head: RayCluster) -> None:
    await wait_until_seen(lambda: not head.pids_named(WORKER_PROCESS))  # none is left of another batch
    async with Sandbox(FAST_SANDBOX) as box:
        box.add_fault(Fault("throttled", value=0.3))
        batch = make_cluster_batch(tmp_path, box, 16, "--ray-address", head.address, workers=2, concurrency=6)
        process = await batch.start()
        await wait_until_seen(
            lambda: len(batch.workers_with_rows()) == 2
        )  # one that never joined is not missed
        box._injector.faults.clear()
        await wait_until(lambda: len(box.state.generations) >= 8)
        stalled = head.pids_named(WORKER_PROCESS)[0]
        send_signal(stalled, signal.SIGSTOP)
        try:
            await wait_until_seen(lambda: "is silent" in batch.output_text())
            paid = len(box.state.generations)
            await wait_until(lambda: len(box.state.generations) > paid or process.returncode is not None)
        finally:
            send_signal(stalled, signal.SIGCONT)
        async with asyncio.timeout(600):
            code = await process.wait()
        assert code == 0, batch.output_text()
        batch.assert_all_done()
        assert box.state.peak_in_flight <= 6


async def test_the_first_signal_drains_all_workers(tmp_path: Path, head: RayCluster) -> None:
    async with Sandbox(FAST_SANDBOX) as box:
        batch = make_cluster_batch(tmp_path, box, 40, "--ray-address", head.address, workers=2, concurrency=4)
        process = await batch.start()
        await wait_until(lambda: len(box.state.generations) >= 6)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(600):
            code = await process.wait()
        assert code == 130, batch.output_text()
        assert 6 <= len(box.state.generations) < 40
        batch.assert_consistent()
        states = statuses(batch)
        assert states == {"done": len(box.state.generations), "pending": 40 - len(box.state.generations)}


async def test_the_second_signal_ends_all_workers_at_once(tmp_path: Path, head: RayCluster) -> None:
    """Nothing that renders will ever end, so a run that waited for it would not either."""
    async with Sandbox(SandboxOptions(durations="fixed:1000000", video="small")) as box:
        batch = make_cluster_batch(tmp_path, box, 12, "--ray-address", head.address, workers=2, concurrency=4)
        process = await batch.start()
        await wait_until(lambda: len(box.state.generations) >= 4)
        process.send_signal(signal.SIGINT)
        await wait_until_seen(lambda: "stopping" in batch.output_text())
        process.send_signal(signal.SIGINT)
        assert await batch.ended(process, 40.0 * busy_factor()) == 130, batch.output_text()
        assert len(box.state.generations) == 4
        assert statuses(batch) == {"generating": 4, "pending": 8}
        await wait_until_seen(lambda: not head.pids_named(WORKER_PROCESS))


async def test_the_database_restarts_in_mid_run(tmp_path: Path, head: RayCluster) -> None:
    own = PostgresServer(free_port())
    own.initialise()
    own.start()
    try:
        async with Sandbox(FAST_SANDBOX) as box:
            where, ledger = ("--ray-address", head.address), own.url("postgres")
            batch = make_cluster_batch(tmp_path, box, 16, *where, workers=2, concurrency=4, ledger=ledger)
            process = await batch.start()
            await wait_until(lambda: len(box.state.generations) >= 6)
            await asyncio.to_thread(own.stop)
            await wait_until_seen(lambda: "is lost" in batch.output_text())
            await asyncio.to_thread(own.start)
            async with asyncio.timeout(600):
                code = await process.wait()
            assert code == 0, batch.output_text()
            batch.assert_all_done()
            assert box.state.peak_in_flight <= 4
    finally:
        remove_server(own)


def statuses(batch: Batch) -> dict[str, int]:
    import csv

    with (batch.output / "results.csv").open(newline="", encoding="utf-8-sig") as file:
        found = [row["status"] for row in csv.DictReader(file)]
    return {state: found.count(state) for state in set(found)}
