"""Folders for a Ray that is started here: private to the user, and removed when their driver is gone."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from pipeline import clocks

TEMP_ROOT: Final = "/tmp"  # noqa: S108 - made private at once; a socket's path may have 103 characters
"""Where the folder of a Ray of our own is made: Ray puts sockets into it, under long names."""

TEMP_PREFIX: Final = "veobatch-"
OWNER_LOCK_NAME: Final = "owner.lock"

STALE_FOLDER_S: Final = 600.0
"""How old a folder must be that nobody holds: Ray's helpers outlive a driver that was killed by a minute."""

_temp_folders: list[Path] = []
_owner_locks: list[FileLock] = []


def make_temp_folder() -> Path:
    """Make a folder that only this user can read, and hold it for as long as this process lives."""
    _remove_stale_folders()
    folder = Path(tempfile.mkdtemp(prefix=TEMP_PREFIX, dir=TEMP_ROOT))
    _temp_folders.append(folder)
    _owner_locks.append(FileLock(folder / OWNER_LOCK_NAME))
    _owner_locks[-1].acquire(timeout=0)
    return folder


def remove_temp_folders() -> None:
    while _temp_folders:
        shutil.rmtree(_temp_folders.pop(), ignore_errors=True)
    while _owner_locks:
        _owner_locks.pop().release()


def _remove_stale_folders() -> None:
    """Remove the folders of drivers that were killed; a live one holds the lock of its own."""
    for folder in Path(TEMP_ROOT).glob(f"{TEMP_PREFIX}*"):
        with suppress(OSError, Timeout):
            found = folder.stat()
            if found.st_uid != os.getuid() or found.st_mtime > clocks.wall() - STALE_FOLDER_S:
                continue
            with FileLock(folder / OWNER_LOCK_NAME, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
