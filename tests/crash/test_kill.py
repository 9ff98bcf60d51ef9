"""kill -9 at every commit and at random moments: no job is paid twice, none is lost, each file is whole.

`VEOBATCH_CRASH_SEEDS="1 2 3"` runs the large variant, 80 jobs and 30 kills, with each of the seeds.
"""

from __future__ import annotations

import asyncio
import os
import random
from functools import partial
from typing import TYPE_CHECKING

import pytest

from pipeline.sandbox import Fault, Sandbox, SandboxOptions
from tests.crash.batches import OPTIONS, Batch, wait_until
from tests.integration.ledger_servers import shared_postgres

if TYPE_CHECKING:
    from pathlib import Path

    from tests.forked_python import Command

pytestmark = pytest.mark.crash

SEEDS = [int(seed) for seed in os.environ.get("VEOBATCH_CRASH_SEEDS", "").split()]
BUSY_OPTIONS = ("--concurrency", "10", "--downloads", "4", "--generation-retries", "3")
N_JOBS, N_KILLS = (80, 30) if SEEDS else (24, 8)
FAST_SANDBOX = SandboxOptions(speed=100.0, video="small", id_style="hostile")


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Options that choose a ledger: the folder's own file, or a database."""
    return (
        ()
        if request.param == "sqlite"
        else ("--ledger", shared_postgres().url(shared_postgres().new_database()))
    )


@pytest.mark.parametrize(("moment", "first"), [("after", 1), ("before", 2)])
async def test_killed_at_every_commit(
    tmp_path: Path, where: tuple[str, ...], moment: str, first: int
) -> None:
    """Each life makes a commit or a few and dies, right after the last or right before the next.

    Those that die after a commit grow longer: always dying between intent and create gets nowhere.
    """
    n_jobs = 6 if SEEDS else 2
    async with Sandbox(FAST_SANDBOX) as box:
        options = (*OPTIONS, *where, "--concurrency", "1", "--downloads", "1")
        batch = Batch(tmp_path, box, n_jobs, options)
        lives = 0
        while True:
            number = first + (lives // 3 if moment == "after" else 0)
            process = await batch.start("tests.crash.kill_at_commit", moment, str(number))
            lives += 1
            async with asyncio.timeout(600):
                code = await process.wait()
            batch.assert_consistent()
            if code != -9:
                break
            assert lives < 20 * n_jobs, batch.output_text()
        assert code == 0, batch.output_text()
        assert lives > 2 * n_jobs
        batch.assert_all_done()


@pytest.mark.parametrize("seed", SEEDS or [None])
async def test_killed_at_random(tmp_path: Path, where: tuple[str, ...], seed: int | None) -> None:
    """Killed after so many requests or so many milliseconds, again and again."""
    seed = random.randrange(10**6) if seed is None else seed
    chance = random.Random(seed)
    options = SandboxOptions(
        speed=100.0, seed=seed, video="small", id_style="hostile", cdn_bytes_per_s=60_000.0
    )
    async with Sandbox(options) as box:
        box.add_fault(Fault("gateway-accepted", share=0.05, total=4))
        box.add_fault(Fault("cut-accepted", share=0.05, total=4))
        box.add_fault(Fault("error", share=0.1, times=1))
        batch = Batch(tmp_path, box, N_JOBS, (*OPTIONS, *where, *BUSY_OPTIONS))
        kills = 0
        while kills < N_KILLS:
            process = await batch.start()
            if not await kill_at_random(process, box, chance):
                break
            kills += 1
            batch.assert_consistent()
        code = await batch.finish()
        assert code == 0, f"seed {seed}, {kills} kills\n{batch.output_text()}"
        batch.assert_all_done()
        assert await batch.finish() == 0


async def kill_at_random(process: Command, box: Sandbox, chance: random.Random) -> bool:
    """Kill a process after some requests, or a while after its start; say whether it was still alive."""
    if chance.random() < 0.2:
        await asyncio.sleep(chance.uniform(0.1, 1.5))
        enough = 0
    else:
        enough = request_count(box) + chance.randint(1, 24)
    await wait_until(lambda: request_count(box) >= enough or process.returncode is not None)
    await asyncio.sleep(chance.choice([0.0, chance.uniform(0.0, 0.05), chance.uniform(0.0, 0.6)]))
    if process.returncode is not None:
        return False
    process.kill()
    return await process.wait() == -9


def request_count(box: Sandbox) -> int:
    return box.state.requests.total() + box.state.cdn_requests.total()


async def test_killed_during_downloads(tmp_path: Path, where: tuple[str, ...]) -> None:
    """Every life ends while bytes are on their way; the next one goes on with them."""
    options = SandboxOptions(speed=1000.0, video="small", cdn_bytes_per_s=20_000.0)
    async with Sandbox(options) as box:
        batch = Batch(tmp_path, box, 6, (*OPTIONS, *where, "--downloads", "3"))
        chance = random.Random(7)
        for _ in range(20 if SEEDS else 5):
            process = await batch.start()
            await wait_until(partial(is_downloading, box, process))
            await asyncio.sleep(chance.uniform(0.0, 0.3))
            if process.returncode is not None:
                break
            process.kill()
            await process.wait()
            batch.assert_consistent()
            await wait_until(lambda: not box.state.active_downloads)
        assert await batch.finish() == 0, batch.output_text()
        batch.assert_all_done()


def is_downloading(box: Sandbox, process: Command) -> bool:
    return box.state.active_downloads > 0 or process.returncode is not None
