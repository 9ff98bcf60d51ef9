"""A partial file beside its final name, verified, fsynced, renamed.

A video's bytes gather in `<name>.veobatch-part`; what they belong to is noted beside it. The final name
appears by one rename after the bytes are durable, so a kill at any moment leaves it absent or whole.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

import aiofiles

from pipeline import clocks
from pipeline.errors import StoreError
from pipeline.storage import files, part_files
from pipeline.storage.base import PART_SUFFIX, FileStamp, PublishedFile, candidate_names, kept_name
from pipeline.storage.local_aside import AsideCopy
from pipeline.storage.os_errors import OwnershipLost, is_of_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import BinaryIO

    from aiofiles.threadpool.binary import AsyncFileIO

    from pipeline.storage.local import LocalStore

T = TypeVar("T")


class LocalStagedFile:
    """See `base.StagedFile`. Methods that start with `_` block; each runs in a thread, one at a time."""

    def __init__(self, store: LocalStore, path: str) -> None:
        self._store = store
        self._part_path = store.resolve(path + PART_SUFFIX)
        self._origin_path = store.resolve(f"{path}{PART_SUFFIX}.origin")
        aside, note = (store.resolve(f"{path}{PART_SUFFIX}.{name}") for name in ("aside", "whose"))
        self._aside = AsideCopy(aside, note)
        self._file: AsyncFileIO | None = None
        self._fd = -1
        self._sha = hashlib.sha256()
        self._hashed_bytes = self._staged_bytes = self._position = 0
        self._tag = ""

    @property
    def staged_bytes(self) -> int:
        return self._staged_bytes

    @property
    def tag(self) -> str:
        return self._tag

    async def open(self) -> None:
        await self._open_file()
        await self._store.run_in_thread(self._find_staged)

    async def restart(self, tag: str) -> None:
        if self._file is None:
            await self._open_file()
        await self._store.run_in_thread(lambda: self._restart(tag))

    async def write(self, chunks: Sequence[bytes | memoryview]) -> None:
        """Hash a batch in one call of the executor while another writes it through aiofiles.

        The chunks are not joined: copying them costs as much as the two hand-overs.
        """
        file = self._file
        if file is None:
            raise ValueError("restart comes before write")
        if self._hashed_bytes < self._staged_bytes:
            await self._store.run_in_thread(self._hash_pending)
        with self._store.uninterrupted():
            try:
                await self._hash_and_append(file, chunks)
            except OSError:
                with suppress(StoreError):
                    await self.discard()  # no later run may trust them, and the ledger needs room to write
                raise
        self._staged_bytes = self._position = self._hashed_bytes

    async def _hash_and_append(self, file: AsyncFileIO, chunks: Sequence[bytes | memoryview]) -> None:
        hashing = asyncio.get_running_loop().run_in_executor(self._store.executor, self._hash, chunks)
        try:
            if self._position != self._staged_bytes:
                await file.seek(self._staged_bytes)
            await file.writelines(part_files.whole_writes(self._fd, chunks))
        finally:
            await hashing  # the memory of the chunks is used again, and `discard` begins a new hash

    async def digest(self) -> str:
        return await self._store.run_in_thread(self._digest)

    async def inspect(self, probe: Callable[[Path | BinaryIO], T]) -> T:
        return await self._store.run_in_thread(lambda: self._inspect(probe))

    async def set_aside(self, tag: str = "") -> None:
        await self._store.run_in_thread(lambda: self._set_aside(tag))
        await self._close_file()

    async def aside_tag(self) -> str:
        return await self._store.run_in_thread(self._aside.tag)

    async def restore(self) -> bool:
        if not await self._store.run_in_thread(self._aside.exists):
            return False
        await self.discard()
        await self._store.run_in_thread(self._restore)
        await self.open()
        return True

    async def publish(self, path: str, *, replaces: bool) -> PublishedFile:
        published = await self._store.run_in_thread(lambda: self._publish(path, replaces))
        await self._close_file()
        return published

    async def discard(self) -> None:
        await self._store.run_in_thread(self._discard)
        await self._close_file()

    async def close(self) -> None:
        if self._file is not None and not self._staged_bytes:
            await self.discard()
        await self._close_file()

    async def _open_file(self) -> None:
        """Open the part through aiofiles, unbuffered; the opener locks it and refuses links."""
        with self._store.uninterrupted():
            self._file = await aiofiles.open(
                self._part_path,
                "r+b",
                buffering=0,
                opener=lambda path, _: part_files.open_exclusive_part(Path(path)),
                executor=self._store.executor,
            )
            self._fd, self._position = self._file.fileno(), 0

    async def _close_file(self) -> None:
        file, self._file, self._fd = self._file, None, -1
        if file is not None:
            with self._store.uninterrupted():
                await file.close()

    def _hash(self, chunks: Sequence[bytes | memoryview]) -> None:
        for chunk in chunks:
            self._sha.update(chunk)
            self._hashed_bytes += len(chunk)

    @contextmanager
    def _discarding_on_error(self) -> Iterator[None]:
        """Leave no bytes to a later run that could not be read or synced: its own fsync would succeed.

        Linux reports a failed fsync once and drops what it could not write
        (https://lwn.net/Articles/752063/).
        """
        try:
            yield
        except OSError:
            with suppress(OSError):
                self._discard()
            raise

    def _find_staged(self) -> None:
        """Find what an earlier run left. Bytes without a note of their origin cannot be resumed.

        Nor can those from before the machine last started: what was not synced may be anything after a power
        cut, zeros at its full length too (https://pubs.opengroup.org/onlinepubs/9799919799/functions/fsync.html).
        """
        boot, _, self._tag = files.read_text(self._origin_path).rpartition("\n")
        if boot and boot != clocks.boot_id():
            self._tag = ""
        self._staged_bytes = os.fstat(self._fd).st_size if self._tag else 0

    def _restart(self, tag: str) -> None:
        """Delete the old origin note before truncating; write the new one before writing new bytes."""
        self._check_ownership()
        part_files.remove_obstacle(self._origin_path)
        os.ftruncate(self._fd, 0)
        self._position = -1
        self._reset()
        self._write_origin(tag)
        self._tag = tag

    def _write_origin(self, tag: str) -> None:
        """Note it; if the part was taken over meanwhile, its heir goes on without this note."""
        self._origin_path.write_text(f"{clocks.boot_id()}\n{tag}", encoding="utf-8")
        if self._fd >= 0 and not part_files.path_names_file(self._fd, self._part_path):
            self._origin_path.unlink(missing_ok=True)
            self._check_ownership()

    def _hash_pending(self) -> None:
        """Hash what an earlier run wrote, as it is on the disk now."""
        if self._hashed_bytes < self._staged_bytes:
            with self._discarding_on_error():
                files.hash_range(self._sha, self._fd, self._hashed_bytes, self._staged_bytes)
            self._hashed_bytes = self._staged_bytes

    def _digest(self) -> str:
        self._hash_pending()
        return self._sha.hexdigest()

    def _inspect(self, probe: Callable[[Path | BinaryIO], T]) -> T:
        self._check_ownership()
        with self._discarding_on_error():
            if os.fstat(self._fd).st_size != self._staged_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._part_path))
        try:
            return probe(self._part_path)
        except FileNotFoundError:
            self._check_ownership()
            raise

    def _set_aside(self, tag: str) -> None:
        self._check_ownership()
        if tag and self._origin_path.exists():
            self._write_origin(tag)
        self._aside.take(self._part_path, self._origin_path)
        self._reset()

    def _restore(self) -> None:
        self._write_origin(self._aside.tag())
        self._aside.give_back(self._part_path)

    def _publish(self, path: str, replaces: bool) -> PublishedFile:
        self._check_ownership()
        with self._discarding_on_error():
            os.fsync(self._fd)
        sha256 = self._digest()
        with self._store.naming:
            target, exists, note = self._take_name(path, sha256, replaces)
        self._store.sync_folders(target.parent)
        if exists:
            self._discard()
        else:
            self._origin_path.unlink(missing_ok=True)
        self._aside.remove()
        return self._published(target, sha256, note)

    def _take_name(self, path: str, sha256: str, replaces: bool) -> tuple[Path, bool, str]:
        """Move the part to its final name, unless its bytes are there already; say which, and a note."""
        target, exists = self._target(path, sha256, replaces)
        if exists:
            return target, True, f"{path} was there already, with the same content"
        note = ""
        if target.name != PurePosixPath(path).name:
            note = f"{path} is not a file of this batch; the video was saved as {target.name}"
        elif os.path.lexists(target):
            aside = files.free_path(target, PurePosixPath(kept_name(path)).name)
            target.rename(aside)
            note = f"a different {path} was there already; it is now {aside.name}"
        self._check_ownership()  # hashing took its time, and a process may be stopped for longer
        if files.ON_WINDOWS and self._file is not None:  # an open file cannot be renamed there
            self._file._file.close()  # type: ignore[attr-defined]  # left out of the stubs
        self._part_path.rename(target)
        return target, False, note

    def _target(self, path: str, sha256: str, replaces: bool) -> tuple[Path, bool]:
        """Return where to publish, and whether these very bytes are there already, and durable."""
        for name in candidate_names(path):
            target = self._store.resolve(name)
            if not os.path.lexists(target):
                return target, False
            try:
                if files.sha256_of(target, self._staged_bytes) == sha256:
                    files.sync_file(target)  # it may have been put there right before a kill
                    return target, True
            except OSError as error:
                if not is_of_path(error, target):
                    raise
                continue
            if replaces and name == path and target.is_file() and not target.is_symlink():
                return target, False
        raise AssertionError("there is always another name")

    def _published(self, target: Path, sha256: str, note: str) -> PublishedFile:
        found = target.stat()
        path = target.relative_to(self._store.root).as_posix()
        stamp = FileStamp(found.st_size, found.st_mtime_ns)
        return PublishedFile(path, found.st_size, sha256, stamp, note)

    def _check_ownership(self) -> None:
        if not part_files.path_names_file(self._fd, self._part_path):
            raise OwnershipLost(errno.ESTALE, "another process has taken it over", str(self._part_path))

    def _discard(self) -> None:
        """Remove the part, unless another process has taken its name over: then it is theirs."""
        if self._file is None or part_files.path_names_file(self._fd, self._part_path):
            self._origin_path.unlink(missing_ok=True)
            self._part_path.unlink(missing_ok=True)
        self._reset()

    def _reset(self) -> None:
        self._sha, self._hashed_bytes, self._staged_bytes, self._tag = hashlib.sha256(), 0, 0, ""
