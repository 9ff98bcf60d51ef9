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
import shutil
import stat
import threading
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Final

from pipeline.storage.base import PART_SUFFIX, FileStamp

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

READ_BYTES: Final = 1024 * 1024
ON_WINDOWS: Final = os.name == "nt"
REPLACE_ATTEMPTS: Final = 10
REPLACE_WAIT_S: Final = 0.1


def open_part(path: Path) -> int:
    """Open a partial file for reading and writing, created if need be; never through a link."""
    extra = (getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_CLOEXEC", "O_BINARY"))
    flags = reduce(or_, extra, os.O_RDWR | os.O_CREAT)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR):
            raise
        _remove_obstacle(path)
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
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size_bytes is not None and size != size_bytes:
                return None
            sha = hashlib.sha256()
            hash_range(sha, file.fileno(), 0, size)
            return sha.hexdigest()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None


def read_text(path: Path) -> str:
    """A small file's text, or "" when there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""


def read_bytes(path: Path) -> bytes | None:
    """A small file's bytes, or None when it cannot be read as a file."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None


def stamp_of(path: Path | str) -> FileStamp | None:
    """Size and modification time of a regular file, None when there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a hundred thousand files; `Path` takes as long as the disk
    except (FileNotFoundError, NotADirectoryError):
        return None
    return FileStamp(found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def read_range(path: Path, stamp: FileStamp, start: int, end: int) -> bytes:
    """The bytes from `start` to `end` of the file that had this stamp; an `OSError` when it has changed."""
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
            if name.endswith(PART_SUFFIX) and pid.isdigit() and not _is_alive(int(pid)):
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


def _remove_obstacle(path: Path) -> None:
    """Remove a link or an empty folder that stands where a partial file belongs."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink()
