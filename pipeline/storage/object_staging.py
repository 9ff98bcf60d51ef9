"""A video on its way into a bucket: uploaded under a staging name, examined, then copied to its own.

Sources: Amazon S3 API Reference (multipart uploads), obstore's documentation (writers).
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.to_thread
import obstore
from obstore.exceptions import BaseError

from pipeline.errors import StoreError
from pipeline.storage.base import PART_SUFFIX, PublishedFile, TransientStoreError, first_line, kept_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from obstore import AsyncWritableFile, ReadableFile

    from pipeline.storage.object_store import ObjectStore

T = TypeVar("T")

PART_BYTES: Final = 5 * 1024 * 1024
"""The least S3 takes as a part; 10,000 parts make 50 GB."""
MAX_CONCURRENT_PARTS: Final = 1
"""One on its way while the next fills: eight uploads at once hold about 80 MB, whatever their size."""
READ_BYTES: Final = 256 * 1024
CLOSE_TIMEOUT_S: Final = 30.0


class StagedObject:
    """See `base.StagedFile`. What an earlier process uploaded cannot be resumed; it starts over."""

    def __init__(self, store: ObjectStore, path: str) -> None:
        self._store = store
        self.staging_path = path + PART_SUFFIX
        self._aside_path = f"{path}{PART_SUFFIX}.aside"
        self._aside_note_path = f"{path}{PART_SUFFIX}.whose"
        self._writer: AsyncWritableFile | None = None
        self._request: asyncio.Future[Any] | None = None
        """The upload's last request, while nobody has seen it succeed."""
        self._sha = hashlib.sha256()
        self._restored_sha256 = ""
        self._staged_bytes = 0
        self._tag = ""
        self._left_behind = False
        """Whether something may stand under the staging name that could not be removed yet."""

    @property
    def staged_bytes(self) -> int:
        return self._staged_bytes

    @property
    def tag(self) -> str:
        return self._tag

    async def restart(self, tag: str) -> None:
        await self.discard()
        # The Content-Type goes with the copy to the final name; most videos are MP4.
        self._writer = obstore.open_writer_async(
            self._store.backend,
            self.staging_path,
            attributes={"Content-Type": "video/mp4"},
            buffer_size=PART_BYTES,
            max_concurrency=MAX_CONCURRENT_PARTS,
        )
        self._tag = tag

    async def write(self, chunks: Sequence[bytes | memoryview]) -> None:
        if self._writer is None:
            raise ValueError("restart comes before write")
        block = await anyio.to_thread.run_sync(self._join_and_hash, chunks)
        await self._upload(self._writer.write(block))
        self._staged_bytes += len(block)

    async def digest(self) -> str:
        return self._restored_sha256 or self._sha.hexdigest()

    async def inspect(self, probe: Callable[[Path | BinaryIO], T]) -> T:
        """Finish the upload under its staging name first: only whole objects can be read."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            await self._upload(writer.close())
        found = await self._store.stamp(self.staging_path)
        if found is None or found.size_bytes != self._staged_bytes:
            arrived = found.size_bytes if found else 0
            raise TransientStoreError(
                f"{self._store.location}: {arrived} of {self._staged_bytes} bytes arrived"
            )
        try:
            return await self._store.call(anyio.to_thread.run_sync(self._probe, probe))
        except FileNotFoundError as error:
            raise TransientStoreError(f"{self._store.location}: {first_line(error)}") from error

    async def set_aside(self, tag: str = "") -> None:
        await self._store.copy(self.staging_path, self._aside_path)
        stamp = await self._store.stamp(self._aside_path)
        if stamp is None or stamp.size_bytes != self._staged_bytes:
            raise TransientStoreError(f"{self._store.location}: {self._aside_path} was not copied whole")
        note = AsideNote(stamp.size_bytes, stamp.etag, await self.digest(), tag or self._tag)
        await self._store.write_bytes(self._aside_note_path, note.to_bytes())
        await self.discard()

    async def aside_tag(self) -> str:
        note = await self._read_aside_note()
        return note.tag if note else ""

    async def _read_aside_note(self) -> AsideNote | None:
        """Return the note of what was set aside; None when nothing was, or the note is another copy's."""
        note = AsideNote.from_bytes(await self._store.read_bytes(self._aside_note_path) or b"")
        stamp = await self._store.stamp(self._aside_path) if note else None
        # A kill between the copy and its note leaves the note of another copy.
        if note is None or stamp is None or (stamp.size_bytes, stamp.etag) != (note.size_bytes, note.etag):
            return None
        return note

    async def restore(self) -> bool:
        note = await self._read_aside_note()
        if note is None:
            return False
        await self.discard()
        await self._store.copy(self._aside_path, self.staging_path)
        self._staged_bytes, self._restored_sha256, self._tag = note.size_bytes, note.sha256, note.tag
        return True

    async def publish(self, path: str, *, replaces: bool) -> PublishedFile:
        store, sha256, size_bytes, note = self._store, await self.digest(), self._staged_bytes, ""
        target, existing = await store.target(path, size_bytes, sha256, replaces=replaces)
        if existing is not None:
            await self._remove_all()
            note = f"{path} was there already, with the same content"
            return PublishedFile(target, size_bytes, sha256, existing, note)
        if target != path:
            name = target.rpartition("/")[2]
            note = f"{path} is not a file of this batch; the video was saved as {name}"
        elif replaces and await store.stamp(path) is not None:
            aside = await store.free_path(kept_name(path))
            await store.copy(path, aside)
            note = f"a different {path} was there already; it is now {aside.rpartition('/')[2]}"
        await store.copy(self.staging_path, target)
        stamp = await store.stamp(target)
        if stamp is None or stamp.size_bytes != size_bytes:
            raise TransientStoreError(f"{store.location}: {target} was not copied whole")
        await self._remove_all()
        return PublishedFile(target, size_bytes, sha256, stamp, note)

    async def _remove_all(self) -> None:
        """Tidy up after what is published; that it is stays true if this fails."""
        with suppress(StoreError):
            await self.discard()
        with suppress(StoreError):  # an earlier run may have left them
            await self._store.remove_all([self._aside_path, self._aside_note_path])

    async def remove_leftovers(self) -> None:
        """Remove what a killed run left under the staging name; if not now, then with what is staged."""
        self._left_behind = True
        with suppress(TransientStoreError):
            await self._store.remove_leftovers(self.staging_path)
            self._left_behind = False

    async def discard(self) -> None:
        """Abort the upload if it is under way; remove the staged object if it was finished.

        What cannot be removed now is written over by the next upload, and removed with that, or at the end.
        """
        request, writer = self._request, self._writer
        if request is not None:  # an upload that it begins or completes can be removed only after it
            await asyncio.wait({request})
        self._request, self._writer = None, None
        if writer is not None:
            await abort_writer(writer)
        if request is not None or self._left_behind:
            await self.remove_leftovers()
        elif writer is None and self._staged_bytes:
            self._left_behind = True
            with suppress(TransientStoreError):
                await self._store.remove(self.staging_path)
                self._left_behind = False
        self._sha, self._restored_sha256, self._staged_bytes, self._tag = hashlib.sha256(), "", 0, ""

    async def close(self) -> None:
        """Leave no upload behind: no other process can resume it. A failure here costs tidiness only."""
        with anyio.move_on_after(CLOSE_TIMEOUT_S), suppress(StoreError):
            await self.discard()

    def _join_and_hash(self, chunks: Sequence[bytes | memoryview]) -> bytes:
        block = b"".join(chunks)
        self._sha.update(block)
        return block

    def _probe(self, probe: Callable[[Path | BinaryIO], T]) -> T:
        """Raise what a read met, whatever `probe` made of it: it takes what cannot be read for damage."""
        file = ObjectReader(
            obstore.open_reader(self._store.backend, self.staging_path, size=self._staged_bytes)
        )
        try:
            return probe(io.BufferedReader(file, READ_BYTES))
        finally:
            if file.error is not None:
                raise file.error

    async def _upload(self, request: Awaitable[T]) -> T:
        """Await a request of the upload, for which "not found" can only mean the bucket.

        One that is cancelled goes on: obstore's writer forgets an upload whose answer it has not read.
        """
        self._request = future = asyncio.ensure_future(request)
        try:
            result = await self._store.call(asyncio.shield(future))
        except FileNotFoundError as error:
            raise StoreError(f"{self._store.location}: there is no such bucket") from error
        self._request = None
        return result


@dataclass(frozen=True, slots=True)
class AsideNote:
    """What is known of a copy that was set aside, for a later round or run: it lies beside the copy."""

    size_bytes: int
    etag: str
    sha256: str
    tag: str

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> AsideNote | None:
        """Return the note; None for no note of ours."""
        try:
            found = cls(**json.loads(data))
        except (ValueError, TypeError):
            return None
        return found if [type(value) for value in astuple(found)] == [int, str, str, str] else None


class ObjectReader(io.RawIOBase):
    """An object as a file that can be read and sought, each read a ranged GET.

    `error` is what the first failing read met. None follows it: obstore's reader panics then.
    """

    def __init__(self, reader: ReadableFile) -> None:
        self._reader = reader
        self.error: Exception | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._raise_error()
        return self._reader.seek(offset, whence)

    def tell(self) -> int:
        return self._reader.tell()

    def readinto(self, buffer: Any) -> int:
        self._raise_error()
        try:
            data = self._reader.read(len(buffer))
        except (BaseError, OSError) as error:
            self.error = error
            raise OSError(first_line(error)) from error
        buffer[: len(data)] = memoryview(data)
        return len(data)

    def _raise_error(self) -> None:
        if self.error is not None:
            raise OSError(first_line(self.error)) from self.error


async def abort_writer(writer: AsyncWritableFile) -> None:
    """Abort a multipart upload: obstore does so when its writer is left with an error."""
    reason = ConnectionAbortedError("the upload was given up")
    with suppress(BaseError, OSError):
        await writer.__aexit__(type(reason), reason, None)
