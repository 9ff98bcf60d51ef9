"""Servers and clients as processes of their own: started, asked, ended. Owns no measurement.

Everything lies under one scratch folder beside this file, on the disk that the project is on, and every run
begins without any memory of earlier ones.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HERE: Final = Path(__file__).parent
SPEED: Final = 20.0
"""How much faster than the vendor the live runs go; the fixed clock of 10 s becomes 0.5 s."""

INTERVAL_S: Final = 10.0 / SPEED
TIMEOUT_S: Final = 600.0


@contextmanager
def temp_folder() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    root = HERE / ".scratch"
    root.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


class BenchmarkServer:
    """A running server; `seen` is what it tells of itself when asked."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.url = self._line().strip()

    def stats(self, watched_pid: int | str = "") -> dict[str, Any]:
        """Return what the server counts.

        The minimal one can watch a client's CPU from here on, by its id, or set its clock ahead: `+60`.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(f"{watched_pid}\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._line())
        return answer

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the server ended"
        return line


@contextmanager
def run_server(module: str, *words: str) -> Iterator[BenchmarkServer]:
    """Run one of the servers of this package."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{module}", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=HERE.parent,
    )
    try:
        yield BenchmarkServer(process)
    finally:
        process.kill()
        process.communicate()


def children_cpu_s() -> float:
    """Return the CPU of all children that have ended, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def sandbox_options(**options: Any) -> str:
    """Return the words for the sandbox: scaled, with tiny videos and more money than needed."""
    return json.dumps({"speed": SPEED, "video": "small", "balance_usd": 1e9, **options})


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process had taken by a time: CPU in seconds, the largest resident set in MB."""

    at: float
    cpu_s: float
    rss_mb: float


class VeobatchProcess:
    """The real command, running; `words` are its own, `how` is for `live_child`."""

    def __init__(self, folder: Path, url: str, jobs: int, *args: str, modes: Sequence[str] = ()) -> None:
        self._samples = folder / "samples"
        child = [sys.executable, "-m", "benchmarks.live_child", ",".join([str(self._samples), *modes])]
        words, environ = veobatch_command(folder, url, jobs, *args)
        self._process = subprocess.Popen(
            [*child, *words], stdout=subprocess.PIPE, text=True, cwd=HERE.parent, env=environ
        )

    def wait(self) -> dict[str, Any]:
        """Wait for its end and return its summary; every job must have been done."""
        try:
            out, _ = self._process.communicate(timeout=TIMEOUT_S)
        finally:
            self._process.kill()  # it has ended, or we are being stopped
        summary: dict[str, Any] = json.loads(out)
        assert self._process.returncode == 0, summary
        return summary

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()

    def resident_mb(self) -> float:
        """Return what it holds in memory now."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def samples(self) -> list[Sample]:
        lines = self._samples.read_text().split("\n")[:-1]
        return [Sample(*map(float, line.split())) for line in lines]

    def cpu_between(self, start: float, end: float) -> float:
        """Return the CPU spent from one time to another, in seconds."""
        samples = self.samples()
        return _cpu_at(samples, end) - _cpu_at(samples, start)


def veobatch_command(folder: Path, url: str, jobs: int, *args: str) -> tuple[list[str], dict[str, str]]:
    """Write a manifest into `folder`; return the words of the command that runs it, and its environment."""
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(_row(number) for number in range(jobs)))
    where = ["--base-url", url, "--output", str(folder / "output")]
    homes = {"XDG_CACHE_HOME": str(folder / "cache"), "XDG_STATE_HOME": str(folder / "state")}
    environ = {**_environment(), **homes, "AIMLAPI_API_KEY": "benchmark-key"}
    return ["run", str(manifest), *where, "--yes", "--quiet", "--json", *args], environ


def _cpu_at(samples: list[Sample], at: float) -> float:
    """Return the CPU spent by a time, between the two samples around it."""
    i = min(max(bisect_left(samples, at, key=lambda one: one.at), 1), len(samples) - 1)
    before, after = samples[i - 1], samples[i]
    share = (at - before.at) / (after.at - before.at)
    return before.cpu_s + (after.cpu_s - before.cpu_s) * min(max(share, 0.0), 1.0)


def _row(number: int) -> str:
    row = {
        "id": f"take-{number:06}",
        "model": "google/veo-3.1-i2v-fast",
        "image_url": f"https://images.example.com/paintings/{number:06}.jpg",
        "prompt": f"Take {number}: the woman in the painting turns her head and smiles.",
        "duration": 4,
        "resolution": "720p",
    }
    return json.dumps(row) + "\n"


def _environment() -> dict[str, str]:
    """Return the environment without anything that speaks to the command."""
    ours = ("VEOBATCH_", "AIMLAPI", "AIML_API")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def run_client(*args: str) -> str:
    """Run one of the plain clients to its end and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.clients", *args],
        stdout=subprocess.PIPE,
        text=True,
        cwd=HERE.parent,
        check=True,
        timeout=TIMEOUT_S,
    )
    return done.stdout


def wait_for_count(server: BenchmarkServer, name: str, count: int) -> dict[str, Any]:
    """Ask the server until it counts so many."""
    end = time.monotonic() + TIMEOUT_S
    while (seen := server.stats())[name] < count:
        assert time.monotonic() < end, seen
        time.sleep(0.05)
    return seen
