"""File operations, one blocking call each: replace, hash, make durable, move aside.

Everything here blocks and belongs in a thread, and raises `OSError`, which `os_errors` explains.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import platform
import re
import shutil
import stat
import threading
from typing import TYPE_CHECKING, Final

from pipeline.storage.base import PART_SUFFIX, FileStamp
from pipeline.storage.os_errors import is_of_path

if TYPE_CHECKING:
    from pathlib import Path

READ_BYTES: Final = 1024 * 1024
ON_WINDOWS: Final = os.name == "nt"
REPLACE_ATTEMPTS: Final = 10
REPLACE_WAIT_S: Final = 0.1
_PID: Final = re.compile(r"[0-9]{1,9}")


def hash_range(sha: hashlib._Hash, file: int, start: int, end: int) -> None:
    """Feed the bytes of an open file from `start` to `end` to a hash."""
    while start < end:
        chunk = _read_at(file, min(READ_BYTES, end - start), start)
        if not chunk:
            raise OSError(errno.EIO, "the file got shorter while it was read")
        sha.update(chunk)
        start += len(chunk)


def sha256_of(path: Path, size_bytes: int | None = None) -> str | None:
    """The sha256 (hex) of a regular file; None when it is missing or not of the size that was asked."""
    try:
        if _is_no_file(path):
            return None
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size_bytes is not None and size != size_bytes:
                return None
            sha = hashlib.sha256()
            hash_range(sha, file.fileno(), 0, size)
            return sha.hexdigest()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def read_text(path: Path) -> str:
    """A small file's text, or "" when there is none that can be read."""
    try:
        return "" if _is_no_file(path) else path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        if not is_of_path(error, path):
            raise
        return ""


def read_bytes(path: Path) -> bytes | None:
    """A small file's bytes, or None when it cannot be read as a file."""
    try:
        return None if _is_no_file(path) else path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None


def _is_no_file(path: Path) -> bool:
    """Return whether what is there is no file: to open a pipe is to wait, and a device never ends."""
    return path.exists() and not path.is_file()


def stamp_of(path: Path | str) -> FileStamp | None:
    """Size and modification time of a regular file, None when there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a hundred thousand files; `Path` takes as long as the disk
    except (FileNotFoundError, NotADirectoryError):
        return None
    return FileStamp(found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def read_range(path: Path, stamp: FileStamp, start: int, end: int) -> bytes:
    """The bytes from `start` to `end` of the file that had this stamp; an `OSError` when it has changed."""
    if _is_no_file(path):
        raise FileNotFoundError(errno.ENOENT, "it is no file", str(path))
    with path.open("rb", buffering=0) as file:
        found = os.fstat(file.fileno())
        data = _read_at(file.fileno(), end - start, start)
    if FileStamp(found.st_size, found.st_mtime_ns) != stamp or len(data) != end - start:
        raise OSError(errno.EIO, "the file changed while it was read", str(path))
    return data


def _read_at(file: int, count: int, position: int) -> bytes:
    """Read without moving the file's position. Windows has no `pread`: there it is put back."""
    if not ON_WINDOWS:
        return os.pread(file, count, position)
    before = os.lseek(file, 0, os.SEEK_CUR)
    try:
        os.lseek(file, position, os.SEEK_SET)
        return os.read(file, count)
    finally:
        os.lseek(file, before, os.SEEK_SET)


def replace_over(source: Path, target: Path) -> None:
    """Move `source` over `target`. Windows refuses while another process reads it, mostly for a moment."""
    for attempt in range(REPLACE_ATTEMPTS):
        try:
            source.replace(target)
        except PermissionError:
            if not ON_WINDOWS or attempt == REPLACE_ATTEMPTS - 1:
                raise
            threading.Event().wait(REPLACE_WAIT_S)
        else:
            return


def replace_file(path: Path, data: bytes, durable: bool) -> None:
    """Put `data` under `path` at once: readers see the old bytes or the new ones, never a mixture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        replace_over(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        sync_folder(path.parent)


def temporary_beside(path: Path) -> Path:
    """Return where to prepare what is to be put under `path`; if we die, it counts as a leftover."""
    return path.with_name(f"{_temporary_prefix()}-{threading.get_ident()}{PART_SUFFIX}")


def link_or_copy(source: Path, target: Path) -> None:
    """Put the file `source` under `target` too, at once: a hard link, or a copy where there are none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(target)
    temporary.unlink(missing_ok=True)
    try:
        try:
            temporary.hardlink_to(source)
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise
            shutil.copy2(source, temporary)
        temporary.replace(target)
    finally:
        # Two names of one file: POSIX lets rename() succeed and change nothing.
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that dead processes of this machine left in `folder`."""
    mark = f".{_host_tag()}-"
    # No glob: among 100,000 files that takes most of a second.
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(mark)]
        for name in names:
            pid = name.removeprefix(mark).partition("-")[0]
            if name.endswith(PART_SUFFIX) and _PID.fullmatch(pid) and not _is_alive(int(pid)):
                folder.joinpath(name).unlink()


def _temporary_prefix() -> str:
    return f".{_host_tag()}-{os.getpid()}"


@functools.cache
def _host_tag() -> str:
    """Eight letters for this machine: a process id means nothing on another one that shares the folder."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def sync_file(path: Path) -> None:
    """Make the bytes of a file survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut. Where folders cannot be opened (Windows) there is no such call."""
    if ON_WINDOWS:
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network drives sync by themselves
            raise
    finally:
        os.close(handle)


def free_path(path: Path, pattern: str) -> Path:
    """The first path beside `path` that `pattern` gives and nothing has yet."""
    number = 1
    while os.path.lexists(free := path.with_name(pattern.format(number))):
        number += 1
    return free
