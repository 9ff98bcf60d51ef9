"""A folder on this machine as the output."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

import anyio

from pipeline.storage import files
from pipeline.storage.base import FileGone, FileStamp, StagedFile, TransientStoreError, candidate_names
from pipeline.storage.local_staging import LocalStagedFile
from pipeline.storage.os_errors import OwnershipLost, is_of_path, to_store_error
from pipeline.storage.shared_sync import SharedSync

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Sequence

T = TypeVar("T")


class LocalStore:
    """A folder on this machine. `threads` bounds how many calls into the file system run at once."""

    def __init__(self, root: str | Path, *, threads: int = 8) -> None:
        self.root = Path(root)
        self.executor = ThreadPoolExecutor(threads, thread_name_prefix="files")
        self._swept: set[Path] = set()
        self._synced: set[Path] = set()
        self.naming = threading.Lock()
        """Held while a final name is chosen and taken: two rows may want one name at once."""
        self._syncs: dict[Path, SharedSync] = {}

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
        await self.run_in_thread(lambda: self._replace(self.resolve(path), data, durable))

    async def write_again(self, path: str) -> bool:
        """Replace a file by a copy of itself, if it is there; return whether it is.

        Shows, without holding its bytes, that it can be replaced and that there is room.
        """
        return await self.run_in_thread(lambda: self._copy_over(self.resolve(path)))

    async def write_new(self, path: str, data: bytes, *, replaces: bool) -> str:
        return await self.run_in_thread(lambda: self._write_new(path, data, replaces))

    async def read_bytes(self, path: str) -> bytes | None:
        return await self.run_in_thread(lambda: files.read_bytes(self.resolve(path)), "read")

    async def stamp(self, path: str) -> FileStamp | None:
        def read() -> FileStamp | None:
            with suppress(FileNotFoundError):
                return files.stamp_of(self._resolve_inside(path))
            return None

        return await self.run_in_thread(read, "read")

    async def read_range(self, path: str, stamp: FileStamp, start: int, end: int) -> bytes:
        return await self.run_in_thread(
            lambda: files.read_range(self._resolve_inside(path), stamp, start, end)
        )

    async def copy(self, source: str, target: str) -> None:
        place = self.resolve(source)

        def copy() -> None:
            try:
                files.link_or_copy(place, self.resolve(target))
            except FileNotFoundError as error:
                if os.path.lexists(place):
                    raise
                raise FileGone(f"{place} is gone") from error

        await self.run_in_thread(copy)

    async def remove(self, path: str) -> None:
        await self.run_in_thread(lambda: self.resolve(path).unlink(missing_ok=True))

    async def stamps(self, paths: Sequence[str]) -> dict[str, FileStamp]:
        def read() -> dict[str, FileStamp]:
            found = ((path, self._stamp_of(path)) for path in paths)
            return {path: stamp for path, stamp in found if stamp is not None}

        return await self.run_in_thread(read, "read")

    def _stamp_of(self, path: str) -> FileStamp | None:
        place = self._place_of(path)
        try:
            return files.stamp_of(place)
        except OSError as error:
            if not is_of_path(error, place):
                raise
            return FileStamp(0, error=str(to_store_error(error, self.root, "read")))

    async def fingerprint(self, path: str, size_bytes: int) -> str | None:
        return await self.run_in_thread(lambda: files.sha256_of(self.resolve(path), size_bytes), "read")

    async def aclose(self) -> None:
        """Let idle threads go."""
        self.executor.shutdown(wait=False)

    async def run_in_thread(self, work: Callable[[], T], action: str = "write to") -> T:
        """Run `work` in a thread of ours, to its end even when cancelled. Raises `StoreError`.

        A part that another process has taken over is a `TransientStoreError`: one of the two has lost its
        right to the row and will notice; for the other one the name is free once it begins anew.
        """
        with self.uninterrupted(action):
            return await asyncio.get_running_loop().run_in_executor(self.executor, work)

    @contextmanager
    def uninterrupted(self, action: str = "write to") -> Generator[None]:
        """Shield file operations from cancellation, and raise their `OSError` as a `StoreError`.

        `action` is what they did, for the message.
        """
        with anyio.CancelScope(shield=True):
            try:
                yield
            except OwnershipLost as error:
                raise TransientStoreError(f"cannot write to {error.filename}: {error.strerror}") from error
            except OSError as error:
                raise to_store_error(error, self.root, action) from error

    def resolve(self, path: str) -> Path:
        """The place of a relative path; one that leaves the folder is a bug, not a name."""
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts:
            raise ValueError(f"not a path inside the output: {path!r}")
        return self.root.joinpath(*parts)

    def _place_of(self, path: str) -> str:
        """`resolve` as a text, in a tenth of its time where no dots begin the path or stand in pairs."""
        plain = path[:1] not in ("", "/", ".") and ".." not in path
        return f"{self.root}/{path}" if plain else str(self.resolve(path))

    def _resolve_inside(self, path: str) -> Path:
        """`resolve`, with links followed that stay inside the path's first folder."""
        # Not `Path.resolve`, which raises a RuntimeError for a link to itself.
        place = Path(os.path.realpath(self.resolve(path)))
        folder = Path(os.path.realpath(self.root.joinpath(PurePosixPath(path).parts[0])))
        if not place.is_relative_to(folder):
            raise FileNotFoundError(errno.ENOENT, "a link leads out of the output", str(self.resolve(path)))
        return place

    def sync_folders(self, folder: Path) -> None:
        """Make the names in a folder survive a power cut.

        The folder's own name too, once a run: a file's `fsync` says nothing of the folders above it (POSIX).
        """
        self._syncs.setdefault(folder, SharedSync(folder)).sync()
        if folder not in self._synced:
            for parent in {folder.parent: None, self.root.parent: None}:
                with suppress(PermissionError):  # one that may be passed through and not be read
                    files.sync_folder(parent)
            self._synced.add(folder)

    def _replace(self, path: Path, data: bytes, durable: bool) -> None:
        if path.parent not in self._swept:
            self._swept.add(path.parent)
            files.remove_leftovers(path.parent)
        files.replace_file(path, data, durable)

    def _copy_over(self, path: Path) -> bool:
        if not path.exists():
            return False
        temporary = files.temporary_beside(path)
        try:
            shutil.copyfile(path, temporary)
            files.replace_over(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def _write_new(self, path: str, data: bytes, replaces: bool) -> str:
        for name in candidate_names(path):
            target = self.resolve(name)
            ours = replaces and name == path and (target.is_symlink() or not target.is_dir())
            if ours or not os.path.lexists(target):
                self._replace(target, data, durable=False)
                return name
            try:
                if files.read_bytes(target) == data:
                    return name
            except OSError as error:
                if not is_of_path(error, target):
                    raise
        raise AssertionError("there is always another name")
