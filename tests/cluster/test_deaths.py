"""What a run is made of dies: the account, Ray, the driver. It goes on, or says how; nothing stays behind."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

import pytest

from pipeline.sandbox import Sandbox, SandboxOptions
from tests.cluster.clusters import ACCOUNT, batch_of, called, command_of, descendants, tell
from tests.cluster.heads import Head
from tests.crash.batches import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

QUICK = SandboxOptions(speed=100.0, video="small", id_style="hostile", log_lag_s=10.0)
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Two processes of Ray's own that try to reach its head for a minute before they end."""
SHARED = Path("/dev/shm")  # noqa: S108 - it is looked at, no more


async def test_the_account_is_killed(tmp_path: Path, head: Head) -> None:
    """Another one goes on in the same run, and still lends no more than there is."""
    async with Sandbox(QUICK) as box:
        batch = batch_of(tmp_path, box, 24, "--ray-address", head.address, workers=2, concurrency=6)
        process = await batch.start()
        for paid in (8, 16):
            await until(partial(paid_for, box, paid))
            tell(head.called(ACCOUNT)[0], signal.SIGKILL)
        code = await batch.ended(process)
        assert code == 0, batch.said()
        assert "the account's process is lost (its process died): another goes on" in batch.said()
        batch.assert_all_done()
        assert box.book.peak_in_flight <= 6


@pytest.mark.parametrize("what", ["gcs_server", "raylet"])
async def test_ray_itself_is_killed(tmp_path: Path, what: str) -> None:
    """Whoever is left goes on as long as that works; then the run ends in words, and can be continued."""
    hasty = {"RAY_gcs_rpc_server_reconnect_timeout_s": "3"}
    own = Head(cpus=2, environment=hasty)
    try:
        own.start()
        async with Sandbox(QUICK) as box:
            batch = batch_of(tmp_path, box, 400, "--ray-address", own.address, workers=2, concurrency=2)
            process = await batch.start()
            await until(lambda: len(box.book.generations) >= 4)
            tell(own.called(what)[0], signal.SIGKILL)
            code = await batch.ended(process)
            assert code == 3, batch.said()
            assert "Stopped early: " in batch.said()
            assert "Next: veobatch run" in batch.said()
            assert "Traceback" not in batch.said()
            batch.assert_sound()
    finally:
        own.end()


async def test_nothing_stays_behind_a_driver_that_was_killed(tmp_path: Path) -> None:
    before = shared()
    async with Sandbox(QUICK) as box:
        batch = batch_of(tmp_path, box, 200, workers=2, concurrency=4)
        process = await batch.start()
        await until(lambda: len(box.book.generations) >= 4)
        started = [pid for pid in descendants(process.pid) if command_of(pid) not in AGENTS]
        assert len(called("ray::", process.pid)) > 2
        process.kill()
        await process.wait()
        await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started))
        await until(lambda: not shared() - before)


def shared() -> set[str]:
    """What Ray has in the memory that processes share."""
    return {entry.name for entry in SHARED.iterdir() if entry.name.startswith(("plasma", "ray"))}


def paid_for(box: Sandbox, generations: int) -> bool:
    return len(box.book.generations) >= generations
