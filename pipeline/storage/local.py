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
from pipeline.storage.base import Flaky, Part, Published

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
    def where(self) -> str:
        return str(self.root)

    @asynccontextmanager
    async def part(self, path: str) -> AsyncIterator[Part]:
        part = LocalPart(self, path)
        try:
            await part.open()
            yield part
        finally:
            with anyio.CancelScope(shield=True):
                await part.close()

    async def write_bytes(self, path: str, data: bytes, *, durable: bool = True) -> None:
        await self.run(lambda: files.replace_file(self.at(path), data, durable))

    async def read_bytes(self, path: str) -> bytes | None:
        return await self.run(lambda: files.read_file(self.at(path)))

    async def fingerprint(self, path: str, size_bytes: int) -> str | None:
        return await self.run(lambda: files.sha256_of(self.at(path), size_bytes))

    async def aclose(self) -> None:
        """Nothing is held open between calls."""

    async def run(self, work: Callable[[], T]) -> T:
        """Do `work` in a thread; what the file system refuses becomes `StoreTrouble`.

        A part that another process has taken over is `Flaky`: one of the two has lost its right to the row,
        and will hear of it; to the other one the place will belong when it begins anew.
        """
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._limiter)
        except files.TakenOver as error:
            raise Flaky(f"cannot write to {error.filename}: {error.strerror}") from error
        except OSError as error:
            raise files.trouble(error, self.root) from error

    def at(self, path: str) -> Path:
        """The place of a relative path; one that leaves the folder is a bug, not a name."""
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts:
            raise ValueError(f"not a path inside the output: {path!r}")
        return self.root.joinpath(*parts)


class LocalPart:
    """See `base.Part`. Methods that start with `_` block; each runs in a thread, one at a time."""

    def __init__(self, store: LocalStore, path: str) -> None:
        self._store, self._path = store, path
        self._final = store.at(path)
        self._part = self._final.with_name(self._final.name + ".part")
        self._note = self._final.with_name(self._final.name + ".origin.part")
        self._file = -1
        self._sha = hashlib.sha256()
        self._hashed = 0
        self._held = 0
        self._tag = ""

    @property
    def held_bytes(self) -> int:
        return self._held

    @property
    def tag(self) -> str:
        return self._tag

    async def open(self) -> None:
        await self._store.run(self._open)

    async def begin(self, tag: str) -> None:
        await self._store.run(lambda: self._begin(tag))

    async def write(self, chunks: Sequence[bytes]) -> None:
        await self._store.run(lambda: self._write(chunks))

    async def digest(self) -> str:
        return await self._store.run(self._digest)

    async def inspect(self, look: Callable[[Path | BinaryIO], T]) -> T:
        return await self._store.run(lambda: self._inspect(look))

    async def publish(self) -> Published:
        return await self._store.run(self._publish)

    async def discard(self) -> None:
        await self._store.run(self._discard)

    async def close(self) -> None:
        await self._store.run(self._close)

    def _open(self) -> None:
        """Find what an earlier run left. Bytes without a note on their origin serve nobody."""
        self._file = files.open_own_part(self._part)
        note = files.read_file(self._note)
        self._tag = "" if note is None else note.decode("utf-8", "replace")
        self._held = os.fstat(self._file).st_size if self._tag else 0

    def _begin(self, tag: str) -> None:
        """The note goes before the bytes it no longer fits, and comes before those that it will."""
        if self._file < 0:
            self._file = files.open_own_part(self._part)
        self._need_own()
        self._note.unlink(missing_ok=True)
        os.ftruncate(self._file, 0)
        self._sha, self._hashed, self._held = hashlib.sha256(), 0, 0
        self._note.write_text(tag, encoding="utf-8")
        self._tag = tag

    def _write(self, chunks: Sequence[bytes]) -> None:
        try:
            self._catch_up()
            os.lseek(self._file, self._held, os.SEEK_SET)
            for chunk in chunks:
                files.write_all(self._file, chunk)
                self._sha.update(chunk)
                self._held += len(chunk)
                self._hashed = self._held
        except OSError as error:
            if error.errno in files.FULL:  # a full disk serves nobody, the ledger least of all
                with suppress(OSError):
                    self._discard()
            raise

    def _catch_up(self) -> None:
        """Bytes that an earlier run wrote are read once more: what counts is what is on the disk."""
        if self._hashed < self._held:
            files.hash_into(self._sha, self._file, self._hashed, self._held)
            self._hashed = self._held

    def _digest(self) -> str:
        self._catch_up()
        return self._sha.hexdigest()

    def _inspect(self, look: Callable[[Path | BinaryIO], T]) -> T:
        self._need_own()
        try:
            return look(self._part)
        except FileNotFoundError:
            self._need_own()
            raise

    def _publish(self) -> Published:
        self._need_own()
        os.fsync(self._file)
        sha256 = self._digest()
        size_bytes, note = self._held, ""
        if os.path.lexists(self._final):
            if files.sha256_of(self._final, size_bytes) == sha256:
                self._discard()
                return Published(self._path, size_bytes, sha256, f"{self._path} was there already, whole")
            kept = files.move_aside(self._final)
            note = f"a different {self._path} was there already; it is now {kept}"
        self._need_own()  # the hashes took their time, and a process may be stopped for longer
        self._part.rename(self._final)
        files.sync_folder(self._final.parent)
        self._note.unlink(missing_ok=True)
        self._shut()
        return Published(self._path, size_bytes, sha256, note)

    def _need_own(self) -> None:
        if not files.still_at(self._file, self._part):
            raise files.TakenOver(errno.ESTALE, "another process has taken it over", str(self._part))

    def _discard(self) -> None:
        """Take away what is here, unless another process has taken the place over: then it is theirs."""
        if self._file < 0 or files.still_at(self._file, self._part):
            self._note.unlink(missing_ok=True)
            self._part.unlink(missing_ok=True)
        self._sha, self._hashed, self._held, self._tag = hashlib.sha256(), 0, 0, ""
        self._shut()

    def _close(self) -> None:
        if self._file >= 0 and not os.fstat(self._file).st_size:
            self._discard()
        self._shut()

    def _shut(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
