"""A bug of ours, and a thread that hangs: what the real command leaves behind, and that it leaves."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests import forked_python
from tests.busy import busy_factor

ROOT = Path(__file__).resolve().parents[2]

BUG = """
from pipeline.reconcile.reconciler_pool import ReconcilerPool
async def broken(self): raise ZeroDivisionError("a bug")
ReconcilerPool.wait_until_idle = broken
"""
BUG_BESIDE = """
from pipeline.results.receipts import ReceiptWriter
from pipeline.runner.hooks import Hooks
async def broken(self, *args): raise ZeroDivisionError("a bug beside the run")
Hooks.keep_current = ReceiptWriter.finish = broken
"""
HANG = """
import time
from anyio import to_thread
from pipeline.client import Api
def hang():
    print("hanging", flush=True)
    time.sleep(1000)
async def stuck(self, *args, **options): await to_thread.run_sync(hang)
Api.get_status = stuck
"""
EARLY_BUG = """
import pipeline.cli.app
def broken(options): raise ZeroDivisionError("an early bug")
pipeline.cli.app.run = broken
"""


async def start(folder: Path, patch: str, *options: str) -> forked_python.ForkedPython:
    """Start `veobatch run` of three rows in the sandbox, with something of it broken."""
    rows = [{"image_url": "https://example.com/a.jpg", "prompt": f"Scene {n}."} for n in range(3)]
    (folder / "batch.json").write_text(json.dumps({"jobs": rows}))
    command = f"{patch}\nfrom pipeline.cli import main\nmain()"
    args = ("-c", command, "run", "batch.json", "--sandbox", "--sandbox-speed", "50", *options)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder), "TMPDIR": str(folder)}
    return await forked_python.start(*args, cwd=folder, env=env)


def crash_logs(folder: Path) -> list[Path]:
    return list(folder.glob("veobatch-crash-*.log"))


async def test_a_bug_ends_with_70_one_line_a_traceback_in_the_log_and_a_true_table(tmp_path: Path) -> None:
    process = await start(tmp_path, BUG)
    out, err = await asyncio.wait_for(process.communicate(), 600)
    output = tmp_path / "output" / "batch.sandbox"
    text = (out + err).decode()
    assert process.returncode == 70, text
    assert "Traceback" not in text
    assert "unexpected error" in text
    assert "Next: " in text
    assert "ZeroDivisionError: a bug" in (output / "run.log").read_text()
    assert (output / "results.csv").read_text(encoding="utf-8-sig").count("\n") == 4


async def test_a_bug_beside_the_run_costs_it_nothing(tmp_path: Path) -> None:
    process = await start(tmp_path, BUG_BESIDE, "--receipts")
    out, err = await asyncio.wait_for(process.communicate(), 600)
    output = tmp_path / "output" / "batch.sandbox"
    assert process.returncode == 3, "a receipt that was asked for is missing"
    assert b"Next: " in out + err
    log = (output / "run.log").read_text()
    assert "Hooks met an unexpected error" in log
    assert "ReceiptWriter met an unexpected error" in log
    assert "ZeroDivisionError: a bug beside the run" in log
    assert len(list((output / "videos").glob("*.mp4"))) == 3
    assert (output / "results.csv").read_text(encoding="utf-8-sig").count(",done,") == 3
    assert (output / "report.html").exists()


async def test_a_bug_before_any_log_leaves_its_traceback_in_a_file(tmp_path: Path) -> None:
    process = await start(tmp_path, EARLY_BUG)
    _, err = await asyncio.wait_for(process.communicate(), 600)
    assert process.returncode == 70
    assert b"Traceback" not in err
    [log] = crash_logs(tmp_path)
    assert str(log) in err.decode()
    assert "ZeroDivisionError: an early bug" in log.read_text()


@pytest.mark.parametrize("count", [2, 4])
async def test_a_thread_that_hangs_keeps_no_process(tmp_path: Path, count: int) -> None:
    process = await start(tmp_path, HANG)
    assert process.stdout is not None
    await asyncio.wait_for(process.stdout.readuntil(b"hanging"), 600)
    for _ in range(count):
        process.send_signal(signal.SIGINT)
        await asyncio.sleep(0.05)
    stopped_at = time.monotonic()
    await asyncio.wait_for(process.communicate(), 600)
    assert process.returncode == 130
    assert time.monotonic() - stopped_at < 6.0 * busy_factor()


def test_a_closed_terminal_ends_a_run_gently(tmp_path: Path) -> None:
    """What is paid is finished, the exit code says how it ended, and the next start says what happened."""
    rows = [{"image_url": "https://example.com/a.jpg", "prompt": f"Scene {n}."} for n in range(3)]
    defaults = {"duration": 4, "resolution": "720p"}
    (tmp_path / "batch.json").write_text(json.dumps({"defaults": defaults, "jobs": rows}))
    command = [sys.executable, "-m", "pipeline", "run", "batch.json", "--sandbox", "--sandbox-speed", "12"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    terminal, inside = pty.openpty()
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdin=inside,
        stdout=inside,
        stderr=inside,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(inside)
    log = tmp_path / "output" / "batch.sandbox" / "run.log"
    while b"generating" not in (log.read_bytes() if log.exists() else b""):
        assert process.poll() is None
        if select.select([terminal], [], [], 0.05)[0]:
            os.read(terminal, 65536)
    os.close(terminal)
    assert process.wait(60) == 143
    assert "the terminal was closed" in log.read_text()
    again = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, check=False, timeout=600
    )
    assert again.returncode == 0
    assert b"SIGHUP" in again.stderr
