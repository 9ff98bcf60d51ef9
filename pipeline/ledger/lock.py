"""One run at a time in an output folder. The operating system lets go when its holder dies."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from filelock import FileLock, Timeout

from pipeline.errors import BatchLocked, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK_FILE_NAME: Final = ".veobatch.lock"
_NO_LOCKS_ADVICE: Final = "a file system without locks: choose another --output"
HOLDER_FILE_NAME: Final = ".veobatch.holder.json"


@contextlib.contextmanager
def hold_lock(folder: Path, *, command: str, started_at: str) -> Iterator[None]:
    """Hold `folder` (made if need be) while the body runs.

    Raises `BatchLocked`, naming the holder, when another process has it, and `StoreError` when the folder
    cannot be made or written. A lock that a dead process left is no obstacle: the kernel has freed it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE_NAME, timeout=0, mode=0o644)
        lock.acquire()
    except Timeout as error:
        raise BatchLocked(f"{folder} is held by {_describe_holder(folder)}") from error
    except NotImplementedError as error:
        raise StoreError(f"{folder} is on {_NO_LOCKS_ADVICE}") from error
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP):
            raise StoreError(f"{folder} is on {_NO_LOCKS_ADVICE}") from error
        reason = error.strerror or str(error)
        raise StoreError(f"the output folder {folder} cannot be written: {reason}") from error
    try:
        with contextlib.suppress(OSError):
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "what": command, "since": started_at}
            (folder / HOLDER_FILE_NAME).write_text(json.dumps(holder), encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / HOLDER_FILE_NAME).unlink()
        lock.release()


def holder_pid(folder: Path) -> int | None:
    """Return the process of this machine that has `folder`, None when none has it, or one elsewhere."""
    try:
        holder = json.loads((folder / HOLDER_FILE_NAME).read_text(encoding="utf-8"))
        pid = int(holder["pid"])
        if holder["host"] != socket.gethostname():
            return None
        # A process that was killed leaves its file behind; the lock falls with it.
        FileLock(folder / LOCK_FILE_NAME, timeout=0, mode=0o644).acquire().lock.release()
    except Timeout:
        return pid
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None


def _describe_holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / HOLDER_FILE_NAME).read_text(encoding="utf-8"))
        pid, host = int(holder["pid"]), holder["host"]
        holder = f"process {pid} on {host} ({holder['what']}, since {holder['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process; wait for it, or stop it"
    if host != socket.gethostname():
        return f"{holder}; wait for it, or stop it there"
    if _is_stopped(pid):
        holder += f", which is stopped (kill -CONT {pid} lets it go on)"
    return f"{holder}; wait for it, or stop it. To look at it: ps -o pid,stat,lstart,args -p {pid}"


def _is_stopped(pid: int) -> bool:
    """Return whether a signal or Ctrl-Z has suspended the process; False where /proc does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "T"
    except (OSError, IndexError):
        return False
