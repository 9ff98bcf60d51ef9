"""What the package's file code calls, on the simulated disk of whoever runs: `os`, paths, aiofiles, locks."""

from __future__ import annotations

import asyncio
import errno
import io
import os
from contextlib import contextmanager
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

from tests.simulation import scheduler
from tests.simulation.disk import raise_os_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.simulation.disk import Disk, OpenFile


def disk() -> Disk:
    return scheduler.running().machine.disk


def _opened(fd: int) -> OpenFile:
    return disk().open_files[fd]


class SimPath(PurePosixPath):
    """A path on the disk of the running process's machine."""

    def _name(self) -> str:
        return str(self)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        disk().make_folder(str(self), parents=parents, exist_ok=exist_ok)

    def stat(self) -> os.stat_result:
        disk().touch(str(self))
        return _stat(disk().find(str(self)))

    def exists(self) -> bool:
        return str(self) in disk().names or str(self) in disk().folders

    def is_file(self) -> bool:
        return str(self) in disk().names

    def is_dir(self) -> bool:
        return str(self) in disk().folders

    def is_symlink(self) -> bool:
        return False

    def unlink(self, missing_ok: bool = False) -> None:
        disk().touch(str(self))
        if str(self) in disk().names:
            disk().link((str(self), None))
        elif not missing_ok:
            raise_os_error(errno.ENOENT, str(self))

    def rename(self, target: SimPath) -> SimPath:
        disk().touch(str(self))
        if str(target) == str(self):
            return target
        disk().link((str(target), disk().find(str(self))), (str(self), None))
        return target

    replace = rename

    def read_bytes(self) -> bytes:
        disk().touch(str(self))
        return bytes(disk().find(str(self)).data)

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self.read_bytes().decode(encoding, errors)

    def write_text(self, data: str, encoding: str = "utf-8") -> int:
        with self.open("wb") as file:
            file.write(data.encode(encoding))
        return len(data)

    @contextmanager
    def open(self, mode: str = "r", buffering: int = -1) -> Iterator[Any]:
        """Open for reading, as a file of its bytes now, or for writing from the start."""
        fd = disk().open(scheduler.running(), str(self), create="w" in mode)
        try:
            if "w" in mode:
                disk().truncate(fd, 0)
                yield SimpleNamespace(
                    write=lambda data: disk().write(fd, data), flush=lambda: None, fileno=lambda: fd
                )
            else:
                disk().touch(str(self))
                yield _Reader(bytes(_opened(fd).inode.data), fd)
        finally:
            if fd in disk().open_files:
                disk().close(fd)


class _Reader(io.BytesIO):
    def __init__(self, data: bytes, fd: int) -> None:
        super().__init__(data)
        self._fd = fd

    def fileno(self) -> int:
        return self._fd


def _stat(inode: Any) -> os.stat_result:
    size, mtime = len(inode.data), inode.mtime_ns
    values = (0o100644, inode.number, 1, 1, 0, 0, size, 0, mtime // 10**9, 0)
    return os.stat_result(values, {"st_mtime_ns": mtime})


class SimOs:
    """The part of `os` that `pipeline.storage` uses."""

    O_RDWR, O_CREAT, O_NOFOLLOW, O_RDONLY, O_CLOEXEC = os.O_RDWR, os.O_CREAT, os.O_NOFOLLOW, os.O_RDONLY, 0
    SEEK_CUR = os.SEEK_CUR
    name = "posix"
    strerror = staticmethod(os.strerror)

    def __init__(self) -> None:
        self.path = SimpleNamespace(
            lexists=lambda path: str(path) in disk().names or str(path) in disk().folders,
            samestat=os.path.samestat,
        )

    def open(self, path: object, flags: int, mode: int = 0o666) -> int:
        disk().touch(str(path))
        return disk().open(scheduler.running(), str(path), create=bool(flags & os.O_CREAT))

    def close(self, fd: int) -> None:
        disk().close(fd)

    def stat(self, path: object) -> os.stat_result:
        disk().touch(str(path))
        return _stat(disk().find(str(path)))

    def fstat(self, fd: int) -> os.stat_result:
        return _stat(_opened(fd).inode)

    def fsync(self, fd: int) -> None:
        disk().sync(fd)

    def lseek(self, fd: int, offset: int, whence: int) -> int:
        return _opened(fd).position

    def ftruncate(self, fd: int, size: int) -> None:
        disk().truncate(fd, size)

    def pread(self, fd: int, count: int, offset: int) -> bytes:
        disk().touch("")
        return bytes(_opened(fd).inode.data[offset : offset + count])

    @contextmanager
    def scandir(self, path: object) -> Iterator[Iterator[SimpleNamespace]]:
        """Yield the files of a folder, each with its name."""
        found = [name.rpartition("/") for name in disk().names]
        yield (SimpleNamespace(name=name) for folder, _, name in found if folder == str(path))

    def getpid(self) -> int:
        return scheduler.running().pid

    def kill(self, pid: int, number: int) -> None:
        if not scheduler.is_alive(pid):
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))


def flock(fd: int, operation: int) -> None:
    """Lock a file of the simulated disk for this descriptor, without waiting."""
    inode = _opened(fd).inode
    if inode.locked_by not in (None, fd):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    inode.locked_by = fd


class SimAsyncFile:
    """What `aiofiles.open` returns, each call in a thread of the process."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    async def seek(self, offset: int) -> None:
        def seek() -> None:
            _opened(self._fd).position = offset

        await _in_thread(seek)

    async def writelines(self, chunks: Iterable[bytes | memoryview]) -> None:
        def write() -> None:
            opened, data = _opened(self._fd), bytearray()
            start = opened.position
            for chunk in chunks:
                data += chunk
                opened.position = start + len(data)
            opened.position = start
            disk().write(self._fd, bytes(data))

        await _in_thread(write)

    async def close(self) -> None:
        await _in_thread(lambda: disk().close(self._fd))


async def _in_thread(work: Callable[[], object]) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, work)


class SimAiofiles:
    """The module `aiofiles`, as far as it is used."""

    async def open(self, path: object, mode: str, *, opener: Callable[[str, int], int], **_: Any) -> Any:
        return SimAsyncFile(await _in_thread(lambda: opener(str(path), 0)))

    def __enter__(self) -> Self:
        return self
