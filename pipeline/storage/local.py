"""Files in a folder: a partial file beside its final name, verified, fsynced, renamed.

A video's bytes gather in `<name>.part`; what they belong to is noted in `<name>.origin.part`. The final
name appears by one rename after the bytes are durable, so a kill at any moment leaves it absent or whole.
"""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import asynccontextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread

from pipeline.storage import files
from pipeline.storage.base import PublishedFile, StagedFile, TransientStoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from typing import BinaryIO

T = TypeVar("T")


class LocalStore:
    """A folder on this machine. `threads` bounds how many calls into the file system run at once."""

    def __init__(self, root: str | Path, *, threads: int = 8) -> None:
        self.root = Path(root)
        self._limiter = anyio.CapacityLimiter(threads)

    @property
    def location(self) -> str:
        return str(self.root)

    @asynccontextmanager
    async def stage(self, path: str) -> AsyncIterator[StagedFile]:
        staged = LocalStagedFile(self, path)
        try:
            await staged.open()
            yield staged
        finally:
            with anyio.CancelScope(shield=True):
                await staged.close()

    async def write_bytes(self, path: str, data: bytes, *, durable: bool = True) -> None:
        await self.run_in_thread(lambda: files.replace_file(self.resolve(path), data, durable))

    async def read_bytes(self, path: str) -> bytes | None:
        return await self.run_in_thread(lambda: files.read_file(self.resolve(path)))

    async def fingerprint(self, path: str, size_bytes: int) -> str | None:
        return await self.run_in_thread(lambda: files.sha256_of(self.resolve(path), size_bytes))

    async def aclose(self) -> None:
        """Nothing is held open between calls."""

    async def run_in_thread(self, work: Callable[[], T]) -> T:
        """Do `work` in a thread; what the file system refuses becomes `StoreTrouble`.

        A part that another process has taken over is `Flaky`: one of the two has lost its right to the row,
        and will hear of it; to the other one the place will belong when it begins anew.
        """
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._limiter)
        except files.OwnershipLost as error:
            raise TransientStoreError(f"cannot write to {error.filename}: {error.strerror}") from error
        except OSError as error:
            raise files.to_store_error(error, self.root) from error

    def resolve(self, path: str) -> Path:
        """The place of a relative path; one that leaves the folder is a bug, not a name."""
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts:
            raise ValueError(f"not a path inside the output: {path!r}")
        return self.root.joinpath(*parts)


class LocalStagedFile:
    """See `base.Part`. Methods that start with `_` block; each runs in a thread, one at a time."""

    def __init__(self, store: LocalStore, path: str) -> None:
        self._store, self._path = store, path
        self._final_path = store.resolve(path)
        self._part_path = self._final_path.with_name(self._final_path.name + ".part")
        self._origin_path = self._final_path.with_name(self._final_path.name + ".origin.part")
        self._fd = -1
        self._sha = hashlib.sha256()
        self._hashed_bytes = 0
        self._staged_bytes = 0
        self._tag = ""

    @property
    def staged_bytes(self) -> int:
        return self._staged_bytes

    @property
    def tag(self) -> str:
        return self._tag

    async def open(self) -> None:
        await self._store.run_in_thread(self._open)

    async def restart(self, tag: str) -> None:
        await self._store.run_in_thread(lambda: self._restart(tag))

    async def write(self, chunks: Sequence[bytes]) -> None:
        await self._store.run_in_thread(lambda: self._write(chunks))

    async def digest(self) -> str:
        return await self._store.run_in_thread(self._digest)

    async def inspect(self, probe: Callable[[Path | BinaryIO], T]) -> T:
        return await self._store.run_in_thread(lambda: self._inspect(probe))

    async def publish(self) -> PublishedFile:
        return await self._store.run_in_thread(self._publish)

    async def discard(self) -> None:
        await self._store.run_in_thread(self._discard)

    async def close(self) -> None:
        await self._store.run_in_thread(self._close)

    def _open(self) -> None:
        """Find what an earlier run left. Bytes without a note on their origin serve nobody."""
        self._fd = files.open_exclusive_part(self._part_path)
        origin = files.read_file(self._origin_path)
        self._tag = "" if origin is None else origin.decode("utf-8", "replace")
        self._staged_bytes = os.fstat(self._fd).st_size if self._tag else 0

    def _restart(self, tag: str) -> None:
        """The note goes before the bytes it no longer fits, and comes before those that it will."""
        if self._fd < 0:
            self._fd = files.open_exclusive_part(self._part_path)
        self._check_ownership()
        self._origin_path.unlink(missing_ok=True)
        os.ftruncate(self._fd, 0)
        self._sha, self._hashed_bytes, self._staged_bytes = hashlib.sha256(), 0, 0
        self._origin_path.write_text(tag, encoding="utf-8")
        self._tag = tag

    def _write(self, chunks: Sequence[bytes]) -> None:
        try:
            self._hash_pending()
            os.lseek(self._fd, self._staged_bytes, os.SEEK_SET)
            for chunk in chunks:
                files.write_all(self._fd, chunk)
                self._sha.update(chunk)
                self._staged_bytes += len(chunk)
                self._hashed_bytes = self._staged_bytes
        except OSError as error:
            if error.errno in files.DISK_FULL_ERRNOS:  # a full disk serves nobody, the ledger least of all
                with suppress(OSError):
                    self._discard()
            raise

    def _hash_pending(self) -> None:
        """Bytes that an earlier run wrote are read once more: what counts is what is on the disk."""
        if self._hashed_bytes < self._staged_bytes:
            files.hash_range(self._sha, self._fd, self._hashed_bytes, self._staged_bytes)
            self._hashed_bytes = self._staged_bytes

    def _digest(self) -> str:
        self._hash_pending()
        return self._sha.hexdigest()

    def _inspect(self, probe: Callable[[Path | BinaryIO], T]) -> T:
        self._check_ownership()
        try:
            return probe(self._part_path)
        except FileNotFoundError:
            self._check_ownership()
            raise

    def _publish(self) -> PublishedFile:
        self._check_ownership()
        os.fsync(self._fd)
        sha256 = self._digest()
        size_bytes, note = self._staged_bytes, ""
        if os.path.lexists(self._final_path):
            if files.sha256_of(self._final_path, size_bytes) == sha256:
                self._discard()
                return PublishedFile(self._path, size_bytes, sha256, f"{self._path} was there already, whole")
            kept = files.move_aside(self._final_path)
            note = f"a different {self._path} was there already; it is now {kept}"
        self._check_ownership()  # the hashes took their time, and a process may be stopped for longer
        self._part_path.rename(self._final_path)
        files.sync_folder(self._final_path.parent)
        self._origin_path.unlink(missing_ok=True)
        self._close_fd()
        return PublishedFile(self._path, size_bytes, sha256, note)

    def _check_ownership(self) -> None:
        if not files.path_names_file(self._fd, self._part_path):
            raise files.OwnershipLost(errno.ESTALE, "another process has taken it over", str(self._part_path))

    def _discard(self) -> None:
        """Take away what is here, unless another process has taken the place over: then it is theirs."""
        if self._fd < 0 or files.path_names_file(self._fd, self._part_path):
            self._origin_path.unlink(missing_ok=True)
            self._part_path.unlink(missing_ok=True)
        self._sha, self._hashed_bytes, self._staged_bytes, self._tag = hashlib.sha256(), 0, 0, ""
        self._close_fd()

    def _close(self) -> None:
        if self._fd >= 0 and not os.fstat(self._fd).st_size:
            self._discard()
        self._close_fd()

    def _close_fd(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
