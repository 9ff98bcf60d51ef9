"""What `run`, `estimate` and `doctor` check beforehand: each cause on one line, with what to do next."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import TYPE_CHECKING, Final

from pipeline.engine import MAX_SUBMITTERS
from pipeline.errors import StopRun, StoreError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.client.reachability import Finding, Preflight
    from pipeline.settings import Settings

MIN_FREE_BYTES: Final = 200 * 1024**2
"""Less is reported: some twenty clips of the built-in model (8 s at 1080p take about 8 MiB)."""

FILES_PER_DOWNLOAD: Final = 2
"""A socket and a file; a poll and a create hold a socket each."""

MAX_API_CONNECTIONS: Final = 128
WANTED_FILES: Final = 4096

RESERVED_FILES: Final = 64
"""For the ledger, the log, the standard streams and what libraries open."""


def raise_obstacle(preflight: Preflight) -> tuple[str, ...]:
    """Raise the finding that stops a run, if there is one; return the others, for the user to see."""
    obstacle = preflight.obstacle
    if obstacle is not None:
        raise as_error(obstacle)
    return warnings_of(preflight)


def warnings_of(preflight: Preflight) -> tuple[str, ...]:
    """Return what the user should know and what stops nothing."""
    return tuple(str(finding) for finding in preflight.findings if not finding.blocking)


def as_error(finding: Finding) -> UsageError | StopRun:
    """Return a blocking finding as the error that ends a command: 2 for a wrong address, else 3."""
    if finding.code == "not_the_api":
        return UsageError(str(finding))
    return StopRun(finding.reason, str(finding))


def check_report_file(option: str, path: Path) -> None:
    """Raise `UsageError` for a file that could not be written in the end: `--junit` into a missing folder."""
    folder = path.parent
    if path.is_dir():
        raise UsageError(f"{option} {path} is a folder: name a file in it")
    if not folder.is_dir():
        raise UsageError(f"{option} {path}: there is no folder {folder}: make it, or name another file")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise UsageError(f"{option} {path} cannot be written: check the permissions, or name another file")


def check_writable(folder: Path) -> None:
    """Try to make a file in `folder`, or in the nearest folder above it that exists. Raises `StoreError`."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"the output folder {folder} cannot be written: {reason}") from error


def space_warning(folder: Path) -> str:
    """Return a warning when little space is left where the output goes, else nothing."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free >= MIN_FREE_BYTES:
        return ""
    return f"only {free / 1024**2:.0f} MiB are free at {existing}: a run stops when the disk is full"


def raise_open_file_limit() -> int:
    """Raise this process's soft limit of open files as far as a run can use it; return the limit.

    macOS starts programs with 256, which a large batch exceeds.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return WANTED_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = [limit for limit in (hard, WANTED_FILES) if limit != resource.RLIM_INFINITY]
    reachable = min(limits)
    if soft == resource.RLIM_INFINITY or soft >= reachable:
        return WANTED_FILES if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
    except (OSError, ValueError):
        return soft
    return reachable


def fit_to_open_files(settings: Settings, limit: int) -> tuple[Settings, int, str]:
    """Return settings and a number of API connections within `limit` open files; warn if they shrank.

    A generation in flight holds no file while nobody polls it: `concurrency` shrinks only where not even the
    creates that are on their way at once have a socket each.
    """
    share = max(1, (limit - RESERVED_FILES) // 3)
    most = {"downloads": share // FILES_PER_DOWNLOAD or 1}
    if share < MAX_SUBMITTERS:
        most["concurrency"] = share
    shrunk = {name: most[name] for name in sorted(most) if most[name] < getattr(settings, name)}
    connections = min(MAX_API_CONNECTIONS, share)
    if not shrunk:
        return settings, connections, ""
    used = " and ".join(f"--{name} {value}" for name, value in shrunk.items())
    warning = f"only {limit} files may be open at once (ulimit -n): no more than {used} is used"
    return settings.model_copy(update=shrunk), connections, warning
