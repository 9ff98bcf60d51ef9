"""A Ray of the run's own: for nobody else, whatever else of Ray there is; and gone with the run."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.cluster.temp_folders import OWNER_LOCK_NAME, OWNER_MARK, TEMP_PREFIX
from tests.cluster.cluster_batches import WORKER_PROCESS, descendants, pids_named, send_signal
from tests.integration.ports import free_port
from tests.integration.vendor_double import vendor_and_workspace, wait_for_exit, wait_until

if TYPE_CHECKING:
    from tests.cluster.ray_clusters import RayCluster

pytestmark = pytest.mark.ray

LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
LISTENING = "0A"
TEMP_DIR = Path("/tmp")  # noqa: S108 - it is looked at, no more


async def test_it_is_alone_and_ends_with_the_run_that_a_terminal_stops(
    tmp_path: Path, head: RayCluster
) -> None:
    abandoned, held = make_stale_folder(), make_stale_folder()
    async with vendor_and_workspace(tmp_path, render_s=3.0) as (vendor, desk):
        desk.write([f"job {number}" for number in range(8)])
        desk.environment = {"RAY_ADDRESS": f"127.0.0.1:{free_port()}"}
        with (held / OWNER_LOCK_NAME).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            process = await desk.start("--engine", "ray", "--workers", "1", "--concurrency", "2")
            await wait_until(lambda: not abandoned.exists())
            assert held.exists()
        shutil.rmtree(held, ignore_errors=True)  # a driver of another test may have been faster
        await wait_until(lambda: len(vendor.generations) >= 2)
        below = descendants(process.pid)
        assert not below & head.pids()
        workers = {os.getpriority(os.PRIO_PROCESS, pid) for pid in pids_named(WORKER_PROCESS, process.pid)}
        assert workers == {os.getpriority(os.PRIO_PROCESS, process.pid)}, "Ray's default is niceness 15"
        assert listening(below)
        assert listening(below) <= LOOPBACK
        folders = used_folders(below)
        assert [folder.stat().st_mode & 0o777 for folder in folders] == [0o700]
        for pid in {process.pid, *descendants(process.pid)}:
            send_signal(pid, signal.SIGINT)  # as a terminal does
        result = await wait_for_exit(process)
        assert result.code == 130, result.output
        assert 2 <= len(vendor.generations) < 8
        statuses = Counter(row["status"] for row in desk.rows())
        assert statuses == {"done": len(vendor.generations), "pending": 8 - len(vendor.generations)}
        assert not any(folder.exists() for folder in folders)


def make_stale_folder() -> Path:
    """A folder as a driver leaves it that is killed, some hours ago."""
    made = Path(tempfile.mkdtemp(prefix=TEMP_PREFIX, dir=TEMP_DIR))
    (made / OWNER_LOCK_NAME).write_bytes(OWNER_MARK)
    os.utime(made, (0.0, 0.0))
    return made


def listening(pids: set[int]) -> set[str]:
    """The local addresses, as the kernel writes them, at which these processes take connections."""
    sockets = {inode for pid in pids for inode in sockets_of(pid)}
    lines = [
        line.split()
        for kind in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{kind}").read_text().splitlines()
    ]
    return {line[1].partition(":")[0] for line in lines if line[3] == LISTENING and line[9] in sockets}


def sockets_of(pid: int) -> list[str]:
    found = []
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            match = re.fullmatch(r"socket:\[(\d+)\]", str(entry.readlink()))
            if match:
                found.append(match[1])
    except OSError:  # it has ended
        return found
    return found


def used_folders(pids: set[int]) -> list[Path]:
    """The folders of ours that these processes were started with."""
    commands = []
    for pid in pids:
        try:
            commands.append(Path(f"/proc/{pid}/cmdline").read_text())
        except OSError:
            continue
    return sorted({TEMP_DIR / name for name in re.findall(rf"{TEMP_PREFIX}\w+", " ".join(commands))})
