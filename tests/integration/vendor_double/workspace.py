"""The real command as its user starts it: a process of its own, in a folder of its own."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests import forked_python
from tests.integration.vendor_double.vendor import KEY, VendorDouble

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from tests.forked_python import Command

ROOT = Path(__file__).resolve().parents[3]
IMAGE = "https://example.com/image.jpg"


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended, and all that it said."""

    code: int
    out: str
    err: str

    @property
    def output(self) -> str:
        return f"exit {self.code}\n{self.out}\n{self.err}"


@dataclass(slots=True)
class Workspace:
    """A folder in which a person works: manifests, the command, what it leaves behind."""

    folder: Path
    base_url: str = ""
    key: str = KEY
    key_name: str = "AIMLAPI_API_KEY"
    options: Sequence[str] = ("--poll-interval", "0.1")
    environment: dict[str, str] = field(default_factory=dict)
    forked: bool = True
    """Whether the command begins with its imports done."""

    def write(self, prompts: Sequence[str | dict[str, Any]], name: str = "batch.json") -> Path:
        """Write a manifest of prompts, or of whole rows."""
        rows = [{"image_url": IMAGE, **({"prompt": p} if isinstance(p, str) else p)} for p in prompts]
        path = self.folder / name
        path.write_text(json.dumps({"jobs": rows}), encoding="utf-8")
        return path

    @property
    def output(self) -> Path:
        return self.folder / "output" / "batch"

    def log(self) -> str:
        """Return what the command has written to its log so far."""
        path = self.output / "run.log"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def environ(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "TMPDIR")}
        home = self.folder / "home"
        kept |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "PYTHONPATH": str(ROOT)}
        if self.key:
            kept[self.key_name] = self.key
        return kept | self.environment

    async def start(self, *args: str, manifest: str = "batch.json", terminal: int | None = None) -> Command:
        """Start a run; `terminal` is one's file descriptor, to read answers from and write messages to."""
        where = ("--base-url", self.base_url) if self.base_url else ()
        return await self._start("run", manifest, *where, *self.options, *args, terminal=terminal)

    async def _start(self, *args: str, terminal: int | None = None) -> Command:
        # Ray looks at how its driver was started; SSL_CERT_FILE is read by an import.
        if self.forked and terminal is None and "ray" not in args and "SSL_CERT_FILE" not in self.environment:
            return await forked_python.start("-m", "pipeline", *args, cwd=self.folder, env=self.environ())
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "pipeline", *args),
            cwd=self.folder,
            env=self.environ(),
            stdin=asyncio.subprocess.DEVNULL if terminal is None else terminal,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE if terminal is None else terminal,
        )

    async def start_command(self, *args: str) -> Command:
        """Start another of the commands."""
        return await self._start(*args)

    async def run(self, *args: str, manifest: str = "batch.json", within_s: float = 600.0) -> CommandResult:
        return await wait_for_exit(await self.start(*args, manifest=manifest), within_s)

    async def command(self, *args: str, within_s: float = 600.0) -> CommandResult:
        """Run another of the commands."""
        return await wait_for_exit(await self._start(*args), within_s)

    def rows(self) -> list[dict[str, str]]:
        with (self.output / "results.csv").open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))

    def states(self) -> dict[str, int]:
        states = [row["status"] for row in self.rows()]
        return {state: states.count(state) for state in sorted(set(states))}

    def video(self, row: dict[str, str]) -> Path:
        return self.output / row["video_path"]

    def files(self) -> set[str]:
        """Every file of the folder but those of the home within it."""
        found = (path for path in self.folder.rglob("*") if path.is_file())
        names = {str(path.relative_to(self.folder)) for path in found}
        return {name for name in names if not name.startswith("home/")}


async def wait_for_exit(process: Command, within_s: float = 600.0) -> CommandResult:
    """Wait for a command's end; one that does not end in time is killed, and the test fails."""
    try:
        out, err = await asyncio.wait_for(process.communicate(), within_s)
    except TimeoutError:
        process.kill()
        out, err = await process.communicate()
        raise AssertionError(f"not ended within {within_s} s\n{out.decode()}\n{err.decode()}") from None
    assert process.returncode is not None
    return CommandResult(process.returncode, out.decode(), err.decode())


@contextlib.asynccontextmanager
async def vendor_and_workspace(
    folder: Path, *, render_s: float = 0.3, fixed_ports: bool = False
) -> AsyncIterator[tuple[VendorDouble, Workspace]]:
    """A vendor that is open, and the desk of someone who uses it."""
    async with VendorDouble(render_s=render_s, fixed_ports=fixed_ports) as vendor:
        yield vendor, Workspace(folder, vendor.api.url)


async def wait_until(condition: Callable[[], bool], within_s: float = 600.0) -> None:
    """Wait for something that the vendor sees and cannot announce."""
    async with asyncio.timeout(within_s):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


async def kill_when(
    condition: Callable[[], bool], desk: Workspace, vendor: VendorDouble, *options: str
) -> None:
    """Start a run and kill it then, if it has not ended before; return when the vendor is done with it."""
    # A kill between intent and create may hit the last row: no later row then shows that the log went on, so
    # that nothing but the account's charges can prove that it was never accepted.
    vendor.offers_transactions = True
    process = await desk.start(*options)
    await wait_until(lambda: condition() or process.returncode is not None)
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.communicate()
    await wait_until(vendor.is_settled)  # what is accepted later would count as absent by then
