"""Folders for a Ray that is started here: private to the user, and removed when their driver is gone."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from pipeline import clocks

TEMP_ROOT: Final = "/tmp"  # noqa: S108 - made private at once; a socket's path may have 103 characters
"""Where the folder of a Ray of our own is made: Ray puts sockets into it, under long names."""

TEMP_PREFIX: Final = "veobatch-ray-"
OWNER_LOCK_NAME: Final = "owner.lock"
OWNER_MARK: Final = b"veobatch: files of a Ray that it started; this folder is removed once nobody holds it\n"
"""What the lock's file says: a folder of any name may be the user's, and one without this is left alone."""

STALE_FOLDER_S: Final = 600.0
"""How old a folder must be that nobody holds: Ray's helpers outlive a driver that was killed by a minute."""

_temp_folders: list[Path] = []
_owner_locks: list[int] = []


def make_temp_folder() -> Path:
    """Make a folder that only this user can read, and hold it for as long as this process lives."""
    _remove_stale_folders()
    folder = Path(tempfile.mkdtemp(prefix=TEMP_PREFIX, dir=TEMP_ROOT))
    _temp_folders.append(folder)
    _owner_locks.append(os.open(folder / OWNER_LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    _lock(_owner_locks[-1])
    # Once it is held: a folder that bears the mark without being held is removed by others.
    os.write(_owner_locks[-1], OWNER_MARK)
    return folder


def remove_temp_folders() -> None:
    while _temp_folders:
        shutil.rmtree(_temp_folders.pop(), ignore_errors=True)
    while _owner_locks:
        os.close(_owner_locks.pop())


def _remove_stale_folders() -> None:
    """Remove the folders of drivers that were killed; a live one holds the lock of its own."""
    for folder in Path(TEMP_ROOT).glob(f"{TEMP_PREFIX}*"):
        with suppress(OSError):
            if _is_old_and_ours(folder):
                _remove_unless_held(folder)


def _is_old_and_ours(folder: Path) -> bool:
    found = folder.lstat()
    is_private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return is_private and found.st_mtime <= clocks.wall() - STALE_FOLDER_S


def _remove_unless_held(folder: Path) -> None:
    """Remove a folder that bears the mark. Raises `OSError` where there is no lock, or somebody holds it."""
    # Never created, and opened for reading only: what is looked at may be anybody's.
    lock = os.open(folder / OWNER_LOCK_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if os.read(lock, len(OWNER_MARK) + 1) == OWNER_MARK:
            _lock(lock)
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _lock(file: int) -> None:
    """Lock a file for as long as it is open. Raises `OSError` when somebody holds it."""
    import fcntl

    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
