"""Standard streams that are closed or full: a run does its work, and its exit code says how that ended."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from anyio import to_thread

from tests.integration.vendor_double import vendor_and_workspace

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.vendor_double import Workspace


def in_shell(desk: Workspace, command: str, redirection: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a shell starts it with some of its streams redirected."""
    return subprocess.run(
        ["/bin/sh", "-c", f"exec {sys.executable} -m pipeline {command} {redirection}"],
        cwd=desk.folder,
        env=desk.environ(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


async def test_closed_and_full_streams_change_no_exit_code(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.write(["a job"])
        run = f"run batch.json --base-url {desk.base_url} --poll-interval 0.1"
        for options, redirection in (("", "<&- >&- 2>&-"), ("--json", ">/dev/full 2>&1")):
            done = await to_thread.run_sync(in_shell, desk, f"{run} {options}", redirection)
            assert done.returncode == 0, (redirection, done)
            assert "Traceback" not in done.stderr
        assert vendor.create_counts == {"a job": 1}
        assert desk.states() == {"done": 1}
        full = await to_thread.run_sync(in_shell, desk, "status batch.json", ">/dev/full")
        assert full.returncode == 3, full
        assert full.stderr == "veobatch: the output cannot be written: No space left on device\n"
