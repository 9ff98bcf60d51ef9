"""A Ray cluster as its administrator starts it: `ray start`, here with all of its nodes on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.cluster_batches import ROOT, descendants, pids_named, send_signal
from tests.integration.ports import free_port

RAY = Path(sys.executable).with_name("ray")
NODE_OPTIONS = ("--disable-usage-stats", "--block", "--object-store-memory=100000000")
PORT_OPTIONS = ("--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0")
START_TIMEOUT_S = 600.0
NICENESS = {"RAY_worker_niceness": "0"}
"""As our own Ray has it. Ray's 15 lets the other tests take all of two cores for minutes."""


@dataclass
class RayNode:
    """What Ray takes for one machine."""

    process: subprocess.Popen[bytes]
    log_path: Path

    def wait(self) -> None:
        """Wait until it is part of its cluster."""
        until = time.monotonic() + START_TIMEOUT_S
        while "Ray runtime started" not in self.log_path.read_text():
            assert self.process.poll() is None, self.log_path.read_text()
            assert time.monotonic() < until, self.log_path.read_text()
            time.sleep(0.05)

    def pids_named(self, name: str) -> list[int]:
        """The node's processes whose command line begins with `name`, oldest first."""
        return pids_named(name, self.process.pid)

    def kill(self) -> None:
        """Let it vanish as a machine does whose plug is pulled."""
        for pid in (self.process.pid, *descendants(self.process.pid)):
            send_signal(pid, signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        below = descendants(self.process.pid)
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pid in below:
            send_signal(pid, signal.SIGKILL)


@dataclass
class RayCluster:
    """A cluster with a folder of its own; `environment` is what its processes have beside the usual.

    Whoever has the folder as RAY_TMPDIR finds the cluster by `auto`, whatever else of Ray there is.
    """

    cpus: int
    environment: dict[str, str]
    # A socket's path may have 107 characters, of which Ray takes some seventy.
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp")))
    port: int = field(default_factory=free_port)
    nodes: list[RayNode] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        port, place = f"--port={self.port}", f"--temp-dir={self.folder / 'ray'}"
        self._start("--head", port, place, "--include-dashboard=false", f"--num-cpus={self.cpus}")

    def add(self, cpus: int) -> RayNode:
        """Start another node of the cluster."""
        return self._start(f"--address={self.address}", f"--num-cpus={cpus}")

    def remove(self, node: RayNode) -> None:
        self.nodes.remove(node)
        node.end()

    def pids_named(self, name: str) -> list[int]:
        """The cluster's processes whose command line begins with `name`, oldest first."""
        return pids_named(name, *(node.process.pid for node in self.nodes))

    def pids(self) -> set[int]:
        return {pid for node in self.nodes for pid in (node.process.pid, *descendants(node.process.pid))}

    def end(self) -> None:
        for node in reversed(self.nodes):
            node.end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, *how: str) -> RayNode:
        words = self.folder / f"node-{len(self.nodes)}.txt"
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "TMPDIR")}
        home = {"HOME": str(self.folder / "home"), "PYTHONPATH": str(ROOT)}
        with words.open("wb") as said:
            process = subprocess.Popen(
                [RAY, "start", *how, *NODE_OPTIONS, *PORT_OPTIONS],
                env={**kept, **home, **NICENESS, **self.environment},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        node = RayNode(process, words)
        self.nodes.append(node)
        node.wait()
        return node
