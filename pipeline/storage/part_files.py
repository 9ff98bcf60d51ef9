"""Partial files: opened for one process alone, and written whole. Everything here blocks."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from pipeline.storage.os_errors import is_of_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


def open_part(path: Path) -> int:
    """Open a partial file for reading and writing, created if need be; never through a link.

    What bears its name and is no file of this user's gives way.
    """
    extra = (getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_BINARY"))
    flags = reduce(or_, extra, os.O_RDWR | os.O_CREAT)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = os.open(path, flags, 0o666)
    except OSError as error:
        if not os.path.lexists(path) or not is_of_path(error, path):
            raise
    else:
        if stat.S_ISREG(os.fstat(file).st_mode):
            return file
        os.close(file)
    remove_obstacle(path)
    return os.open(path, flags, 0o666)


def open_exclusive_part(path: Path) -> int:
    """Open a partial file that no other process has locked; one in use is unlinked and begun anew.

    The other process may be stalled for ever, or wake up and go on: then it writes to a nameless file.
    """
    file = open_part(path)
    try:
        import fcntl
    except ImportError:  # Windows keeps others from an open file by itself
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        path.unlink(missing_ok=True)
        file = open_part(path)
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # a file system without locks
        return file
    return file


def whole_writes(file: int, chunks: Sequence[bytes | memoryview]) -> Iterator[memoryview]:
    """Yield chunks to a raw `writelines`, and again what a write did not take of one: it does not look.

    A write that falls short raises nothing (a disk that fills up, a limit); the one after it says why.
    """
    position = os.lseek(file, 0, os.SEEK_CUR)
    for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            yield rest
            before, position = position, os.lseek(file, 0, os.SEEK_CUR)
            if position == before:
                raise OSError(errno.EIO, "a write took nothing and gave no reason")
            rest = rest[position - before :]


def path_names_file(file: int, path: Path) -> bool:
    """Return whether `path` still names the open file."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def remove_obstacle(path: Path) -> None:
    """Remove what stands where a file of ours belongs, if anything does: a link, or an empty folder."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
