"""Objects in S3, Google Cloud Storage or Azure, through obstore: streamed up while they come down.

A video's bytes go, part by part, into `<name>.part` beside its final name; only when they are whole and
have been looked into does the store itself copy them to the final name. Nothing touches the local disk.
A killed run leaves at most a `.part` object or an unfinished upload; both go when the row is next tried.
"""

from __future__ import annotations

import hashlib
import io
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import obstore
from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnknownConfigurationKeyError,
)
from obstore.store import from_url

from pipeline.errors import StoreError, UsageError
from pipeline.net.proxy import is_local_host
from pipeline.storage.aws_profile import with_profile
from pipeline.storage.base import PublishedFile, StagedFile, TransientStoreError
from pipeline.storage.multipart_uploads import MultipartUploads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from obstore import AsyncWritableFile, ReadableFile
    from obstore.store import ObjectStore as Backend

T = TypeVar("T")

PART_BYTES: Final = 5 * 1024 * 1024
"""The least S3 takes as a part; 10,000 parts make 50 GB."""
MAX_CONCURRENT_PARTS: Final = 1
"""One on its way while the next fills: eight uploads at once hold about 80 MB, whatever their size."""
READ_BYTES: Final = 256 * 1024
CLOSE_TIMEOUT_S: Final = 30.0
REQUEST_TIMEOUT: Final = timedelta(seconds=120)
"""For one request, body included: a part of 5 MiB on a line of 350 kbit/s."""

_CONTENT_TYPES: Final = {
    "mp4": "video/mp4",
    "jpg": "image/jpeg",
    "csv": "text/csv; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "json": "application/json",
}


def open_object_store(url: str, environ: Mapping[str, str]) -> ObjectStore:
    """Open the bucket or container of `url`; credentials and endpoint come from the usual variables, for
    S3 also from the AWS profile.

    Raises `UsageError` for a URL that names none, and for a profile that will not do.
    """
    config: Any = {}
    options: Any = {"timeout": REQUEST_TIMEOUT}
    if url.startswith(("s3://", "s3a://")):
        environ = with_profile(environ)
        config = _s3_config(environ)
        options |= _client_options(config.get("endpoint", ""))
    try:
        backend = from_url(url, config=config or None, client_options=options)
    except (BaseError, ValueError) as error:
        raise UsageError(f"--output {url}: {_first_line(error)}") from error
    return ObjectStore(backend, url.rstrip("/"), MultipartUploads.from_url(url, environ))


def _s3_config(environ: Mapping[str, str]) -> dict[str, str]:
    """What obstore is told rather than left to find: it knows the variables, and no profile."""
    options = {
        "endpoint": environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL"),
        "region": environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION"),
        "access_key_id": environ.get("AWS_ACCESS_KEY_ID"),
        "secret_access_key": environ.get("AWS_SECRET_ACCESS_KEY"),
        "session_token": environ.get("AWS_SESSION_TOKEN"),
    }
    return {name: value for name, value in options.items() if value}


def _client_options(endpoint: str) -> dict[str, Any]:
    """obstore takes the proxy of the variables by itself, and would take it to this machine too."""
    options: dict[str, Any] = {}
    if endpoint.startswith("http://"):
        options["allow_http"] = True
    host = urlsplit(endpoint).hostname or ""
    if is_local_host(host):
        options |= {"proxy_url": "http://unused.invalid", "proxy_excludes": host}
    return options


class ObjectStore:
    """A bucket's prefix. See `base.Store`."""

    def __init__(self, backend: Backend, url: str, multipart_uploads: MultipartUploads | None) -> None:
        self.backend, self._url, self._multipart_uploads = backend, url, multipart_uploads

    @property
    def location(self) -> str:
        return self._url

    @asynccontextmanager
    async def stage(self, path: str) -> AsyncIterator[StagedFile]:
        staged = StagedObject(self, path)
        await self.remove_leftovers(staged.staging_path)
        try:
            yield staged
        finally:
            with anyio.CancelScope(shield=True):
                await staged.close()

    async def remove_leftovers(self, path: str) -> None:
        """Take away what a killed run left under a staging name: unfinished uploads and whole objects.

        Only this one name is looked at, so that others who share the bucket are left alone.
        """
        if self._multipart_uploads is not None:
            await self._multipart_uploads.abort_all(path)
        await self.remove(path)

    async def remove(self, path: str) -> None:
        """Delete an object if it is there."""
        try:
            await self.call(obstore.delete_async(self.backend, path))
        except FileNotFoundError:
            return

    async def size_of(self, path: str) -> int | None:
        """An object's size, None when there is none."""
        try:
            return int((await self.call(obstore.head_async(self.backend, path)))["size"])
        except FileNotFoundError:
            return None

    async def move_aside(self, path: str) -> str:
        """Copy an object that is in the way to the first free name of the form `x.kept-N.mp4`."""
        stem, dot, extension = path.rpartition(".")
        number = 1
        while await self.size_of(kept := f"{stem}.kept-{number}{dot}{extension}") is not None:
            number += 1
        await self.call(obstore.copy_async(self.backend, path, kept))
        return kept.rpartition("/")[2]

    async def write_bytes(self, path: str, data: bytes, *, durable: bool = True) -> None:
        """One PUT: atomic and durable by the store's own promise, so `durable` changes nothing."""
        try:
            await self.call(obstore.put_async(self.backend, path, data, attributes=_attributes(path)))
        except FileNotFoundError as error:
            raise StoreError(f"{self._url}: there is no such bucket") from error

    async def read_bytes(self, path: str) -> bytes | None:
        try:
            found = await self.call(obstore.get_async(self.backend, path))
            return bytes(await self.call(found.bytes_async()))
        except FileNotFoundError:
            return None

    async def fingerprint(self, path: str, size_bytes: int) -> str | None:
        if await self.size_of(path) != size_bytes:
            return None
        sha = hashlib.sha256()
        found = await self.call(obstore.get_async(self.backend, path))
        try:
            async for chunk in found.stream(min_chunk_size=1024 * 1024):
                await anyio.to_thread.run_sync(sha.update, chunk)
        except (BaseError, OSError) as error:
            raise TransientStoreError(f"{self._url}: {_first_line(error)}") from error
        return sha.hexdigest()

    async def aclose(self) -> None:
        """Nothing is held open between calls."""

    async def call(self, request: Awaitable[T]) -> T:
        """Await one call to the store. Raises `StoreTrouble`, `Flaky`, or FileNotFoundError as it is."""
        try:
            return await request
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise StoreError(f"{self._url} refused the credentials: {_first_line(error)}") from error
        except (InvalidPathError, UnknownConfigurationKeyError) as error:
            raise StoreError(f"{self._url}: {_first_line(error)}") from error
        except (BaseError, TimeoutError, ConnectionError) as error:
            raise TransientStoreError(f"{self._url}: {_first_line(error)}") from error


class StagedObject:
    """See `base.Part`. What an earlier process uploaded of a part cannot be used again; it starts over."""

    def __init__(self, store: ObjectStore, path: str) -> None:
        self._store, self._path = store, path
        self.staging_path = f"{path}.part"
        self._writer: AsyncWritableFile | None = None
        self._sha = hashlib.sha256()
        self._staged_bytes = 0
        self._tag = ""

    @property
    def staged_bytes(self) -> int:
        return self._staged_bytes

    @property
    def tag(self) -> str:
        return self._tag

    async def restart(self, tag: str) -> None:
        await self.discard()
        self._writer = obstore.open_writer_async(
            self._store.backend,
            self.staging_path,
            attributes=_attributes(self._path),
            buffer_size=PART_BYTES,
            max_concurrency=MAX_CONCURRENT_PARTS,
        )
        self._tag = tag

    async def write(self, chunks: Sequence[bytes]) -> None:
        if self._writer is None:
            raise ValueError("begin comes before write")
        block = await anyio.to_thread.run_sync(self._join_and_hash, chunks)
        await self._upload(self._writer.write(block))
        self._staged_bytes += len(block)

    async def digest(self) -> str:
        return self._sha.hexdigest()

    async def inspect(self, probe: Callable[[Path | BinaryIO], T]) -> T:
        """The upload is finished for this, under its staging name: only whole objects can be read."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            await self._upload(writer.close())
        found = await self._store.size_of(self.staging_path)
        if found != self._staged_bytes:
            raise TransientStoreError(
                f"{self._store.location}: {found} of {self._staged_bytes} bytes arrived"
            )
        reader = await self._store.call(anyio.to_thread.run_sync(self._open_reader))
        return await anyio.to_thread.run_sync(
            lambda: probe(io.BufferedReader(ObjectReader(reader), READ_BYTES))
        )

    async def publish(self) -> PublishedFile:
        sha256, size_bytes, note = self._sha.hexdigest(), self._staged_bytes, ""
        existing_size = await self._store.size_of(self._path)
        if existing_size is not None:
            if await self._store.fingerprint(self._path, size_bytes) == sha256:
                await self.discard()
                return PublishedFile(self._path, size_bytes, sha256, f"{self._path} was there already, whole")
            kept = await self._store.move_aside(self._path)
            note = f"a different {self._path} was there already; it is now {kept}"
        await self._store.call(obstore.copy_async(self._store.backend, self.staging_path, self._path))
        await self.discard()
        return PublishedFile(self._path, size_bytes, sha256, note)

    async def discard(self) -> None:
        """Abort the upload if it is under way; remove the staged object if it was finished."""
        writer, self._writer = self._writer, None
        if writer is not None:
            await _abort(writer)
        elif self._staged_bytes:
            await self._store.remove(self.staging_path)
        self._sha, self._staged_bytes, self._tag = hashlib.sha256(), 0, ""

    async def close(self) -> None:
        """Leave nothing: an upload cannot be taken up by another process. Trouble here is only untidy."""
        with anyio.move_on_after(CLOSE_TIMEOUT_S), suppress(StoreError):
            await self.discard()

    def _join_and_hash(self, chunks: Sequence[bytes]) -> bytes:
        block = b"".join(chunks)
        self._sha.update(block)
        return block

    def _open_reader(self) -> ReadableFile:
        return obstore.open_reader(self._store.backend, self.staging_path, size=self._staged_bytes)

    async def _upload(self, request: Awaitable[T]) -> T:
        """While uploading, "not found" can only be the bucket."""
        try:
            return await self._store.call(request)
        except FileNotFoundError as error:
            raise StoreError(f"{self._store.location}: there is no such bucket") from error


class ObjectReader(io.RawIOBase):
    """An object as a file that can be read and sought, each read a ranged GET."""

    def __init__(self, reader: ReadableFile) -> None:
        self._reader = reader

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._reader.seek(offset, whence)

    def tell(self) -> int:
        return self._reader.tell()

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._reader.read(len(buffer))
        except BaseError as error:
            raise OSError(_first_line(error)) from error
        buffer[: len(data)] = memoryview(data)
        return len(data)


async def _abort(writer: AsyncWritableFile) -> None:
    """Leaving the writer with an error is how obstore is told to abort a multipart upload."""
    reason = ConnectionAbortedError("the upload was given up")
    with suppress(BaseError, OSError):
        await writer.__aexit__(type(reason), reason, None)


def _attributes(path: str) -> dict[str, str]:
    """The Content-Type, so that a bucket served as a web site plays videos and shows the report."""
    kind = _CONTENT_TYPES.get(path.rpartition(".")[2])
    return {"Content-Type": kind} if kind else {}


def _first_line(error: BaseException) -> str:
    """obstore appends a dump of its internals; the first line is what a person can use."""
    return str(error).strip().partition("\n")[0][:300] or type(error).__name__
