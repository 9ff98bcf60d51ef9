"""Runs the command for an assistant: what it prints and how it words an error are the answers.

Each call is a process of its own, so that nothing is printed into the protocol's stream and a run outlives
the server that began it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio

import pipeline
from pipeline.batch.paths import batch_paths
from pipeline.errors import UsageError
from pipeline.ledger.lock import holder_pid
from pipeline.manifest.local_files import FILES_BELOW

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMAND: Final = (sys.executable, "-P", "-m", "pipeline")
"""`-P`: a folder `pipeline` beside the manifests is not this program."""

START_LIMIT_S: Final = 4.0
"""How long a run is watched before it counts as started: a wrong key or manifest shows by then."""

LOCK_LIMIT_S: Final = 60.0
LOCK_INTERVAL_S: Final = 0.2
"""Until it has its batch's lock no other server sees a run, and would start a second one."""

_ERROR_CHARS: Final = 4000


class CommandFailed(Exception):
    """The command ended with an error; the message is what it said."""


async def call(root: Path, *arguments: str) -> dict[str, Any]:
    """Run `veobatch ARGUMENTS` in `root` and return the JSON that it prints, or its text as `message`.

    Raises `CommandFailed` with its message when it prints no JSON and does not end with 0.
    """
    process = await anyio.run_process([*COMMAND, *arguments], cwd=root, env=_environment(root), check=False)
    text = process.stdout.decode("utf-8", "replace").strip()
    with suppress(ValueError):
        if isinstance(answer := json.loads(text), dict):
            return answer
    if process.returncode:
        message = process.stderr.decode("utf-8", "replace").strip()
        raise CommandFailed(message[-_ERROR_CHARS:] or f"exit code {process.returncode}")
    return {"message": text}


class BackgroundRuns:
    """Runs that go on by themselves, one a batch; a batch is named by its folder."""

    def __init__(self, root: Path, *, sandbox: bool) -> None:
        self._root, self._sandbox = root, sandbox
        self._started: dict[Path, subprocess.Popen[bytes]] = {}

    @property
    def started(self) -> Sequence[subprocess.Popen[bytes]]:
        """The processes that this server has started, the last one of each batch."""
        return tuple(self._started.values())

    def folder(self, manifest: Path) -> Path:
        """Return where a manifest's batch has its ledger and its lock."""
        return self._root / batch_paths(manifest, None, sandbox=self._sandbox).folder

    def is_running(self, folder: Path) -> bool:
        """Return whether a run has the batch now, whoever started it."""
        process = self._started.get(folder)
        return (process is not None and process.poll() is None) or holder_pid(folder) is not None

    def has_ended(self, folder: Path) -> bool:
        """Return whether the last run that was started here, by any server, has said how it ended."""
        return self.last_summary(folder) is not None or bool(self.last_error(folder))

    def last_summary(self, folder: Path) -> dict[str, Any] | None:
        """Return what the last run that was started here printed at its end, None while there is nothing."""
        try:
            found = json.loads(run_file(folder, ".json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def last_error(self, folder: Path) -> str:
        """Return the message of the last run that was started here, "" when it had none."""
        try:
            text = run_file(folder, ".err").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return text.strip()[-_ERROR_CHARS:]

    async def start(self, manifest: Path, arguments: Sequence[str]) -> dict[str, Any] | None:
        """Start a run; return None when it goes on, else its summary. Raises `CommandFailed` for an error."""
        folder = self.folder(manifest)
        if self.is_running(folder):
            raise UsageError(f"a run of {manifest.name} is going on: ask for its status, or stop it")
        output, errors = run_file(folder, ".json"), run_file(folder, ".err")
        output.parent.mkdir(parents=True, exist_ok=True)
        extra = ["--sandbox"] if self._sandbox else []
        command = [*COMMAND, "run", str(manifest), "--yes", "--json", "--quiet", *extra, *arguments]
        process = self._started[folder] = _spawn(command, self._root, output, errors)
        with anyio.move_on_after(START_LIMIT_S):
            await anyio.to_thread.run_sync(process.wait, abandon_on_cancel=True)
        with anyio.move_on_after(LOCK_LIMIT_S):
            while process.poll() is None and holder_pid(folder) is None:  # noqa: ASYNC110 - nobody tells
                await anyio.sleep(LOCK_INTERVAL_S)
        if process.poll() is None:
            return None
        summary = self.last_summary(folder)
        if summary is None or not summary["total"]:
            raise CommandFailed(self.last_error(folder) or f"exit code {process.returncode}")
        return summary

    def stop(self, folder: Path) -> bool:
        """Let a run submit no more and finish what is paid for; return whether there was one."""
        pid = holder_pid(folder)
        process = self._started.get(folder)
        if pid is None and process is not None and process.poll() is None:
            pid = process.pid
        if pid is None:
            return False
        os.kill(pid, getattr(signal, "CTRL_BREAK_EVENT", signal.SIGINT))
        return True


def run_file(folder: Path, suffix: str) -> Path:
    """Return where something of a folder's runs is kept: not among the results, which are the user's."""
    from platformdirs import user_state_path

    digest = sha256(str(folder.absolute()).encode("utf-8", "surrogatepass")).hexdigest()
    return user_state_path("veobatch") / "assistant" / f"{digest[:16]}{suffix}"


def _spawn(command: Sequence[str], root: Path, output: Path, errors: Path) -> subprocess.Popen[bytes]:
    """Start a process that goes on when this one is killed or its terminal closed."""
    detached: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        detached = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    with output.open("wb") as out, errors.open("wb") as err:
        return subprocess.Popen(  # noqa: S603 - our own command; the manifest's path is one argument
            command,
            cwd=root,
            env=_environment(root),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            **detached,
        )


def _environment(root: Path) -> dict[str, str]:
    """Return the environment in which this very package is found, whatever lies in the working folder.

    A manifest may be the assistant's: it names no files outside of `root`.
    """
    paths = [str(Path(pipeline.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    own = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), FILES_BELOW: str(root)}
    return {**os.environ, **own}
