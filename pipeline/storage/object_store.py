"""Objects in S3, Google Cloud Storage or Azure, through obstore: uploaded while they are downloaded.

A video's bytes go, part by part, into `<name>.veobatch-part` beside its final name; once they are whole
and examined, the store itself copies them to the final name. Nothing touches the local disk. A killed run
leaves at most a staged object or an unfinished upload; both are removed when the row is next tried.
"""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager
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
from pipeline.storage.aws import S3Account
from pipeline.storage.base import (
    FileGone,
    FileStamp,
    StagedFile,
    TransientStoreError,
    candidate_names,
    first_line,
)
from pipeline.storage.object_staging import StagedObject
from pipeline.storage.object_upload import put_whole

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Sequence

    from obstore import ObjectMeta
    from obstore.store import ObjectStore as Backend

T = TypeVar("T")

REQUEST_TIMEOUT: Final = timedelta(seconds=120)
"""For one request, body included: a part of 5 MiB on a line of 350 kbit/s."""

_CONTENT_TYPES: Final = {
    "mp4": "video/mp4",
    "jpg": "image/jpeg",
    "csv": "text/csv; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "json": "application/json",
}


def open_object_store(url: str) -> ObjectStore:
    """Open the bucket or container of `url`; credentials and endpoint come from the usual variables, for
    S3 from wherever AWS's own tools find them.

    Raises `UsageError` for a URL that names none, and for a profile that will not do.
    """
    backend, account = open_backend(url, "--output")
    return ObjectStore(backend, url.rstrip("/"), account)


def open_backend(url: str, option: str) -> tuple[Backend, S3Account | None]:
    """Open the bucket of `url` as obstore does it; `option` is what messages say it came from."""
    options: dict[str, Any] = {}
    client_options: Any = {"timeout": REQUEST_TIMEOUT}
    account = None
    try:
        if url.startswith(("s3://", "s3a://")):
            account = S3Account(url)
            options = account.store_options()
            client_options |= _client_options(account.endpoint)
        return from_url(url, client_options=client_options, **options), account
    except (BaseError, ValueError) as error:
        raise UsageError(f"{option} {url}: {first_line(error)}") from error


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
    """A bucket's prefix. See `base.OutputStore`."""

    def __init__(self, backend: Backend, url: str, account: S3Account | None) -> None:
        self.backend, self._url, self._account = backend, url, account

    @property
    def location(self) -> str:
        return self._url

    @asynccontextmanager
    async def stage(self, path: str) -> AsyncIterator[StagedFile]:
        staged = StagedObject(self, path)
        await staged.remove_leftovers()
        try:
            yield staged
        finally:
            with anyio.CancelScope(shield=True):
                await staged.close()

    async def remove_leftovers(self, path: str) -> None:
        """Remove what a killed run left under a staging name: unfinished uploads and whole objects.

        Only this one name is touched, so that others who share the bucket are left alone.
        """
        if self._account is not None:
            await self._account.abort_uploads(path)
        await self.remove(path)

    async def remove(self, path: str) -> None:
        """Delete an object if it is there."""
        try:
            await self.call(obstore.delete_async(self.backend, path))
        except FileNotFoundError:
            return

    async def remove_all(self, paths: list[str]) -> None:
        """Delete those objects that are there: by one request on S3, which alone takes names of none."""
        if self._account is not None:
            await self.call(obstore.delete_async(self.backend, paths))
            return
        for path in paths:
            await self.remove(path)

    async def stamp(self, path: str) -> FileStamp | None:
        """An object's size and ETag, None when there is none."""
        try:
            return _stamp(await self.call(obstore.head_async(self.backend, path)))
        except FileNotFoundError:
            return None

    async def free_path(self, pattern: str) -> str:
        """The first path that `pattern` gives and no object has yet."""
        number = 1
        while await self.stamp(free := pattern.format(number)) is not None:
            number += 1
        return free

    async def copy(self, source: str, target: str) -> None:
        """Copy inside the bucket; the bytes do not pass through this machine."""
        try:
            await self.call(obstore.copy_async(self.backend, source, target))
        except FileNotFoundError as error:
            raise FileGone(f"{self._url}: {source} is gone") from error

    async def write_bytes(self, path: str, data: bytes, *, durable: bool = True) -> None:
        """One PUT, whatever its size: atomic and durable by the store's own promise.

        So `durable` changes nothing. S3 takes 5 GiB at once.
        """
        try:
            await self.call(put_whole(self.backend, path, data, content_type_attributes(path)))
        except FileNotFoundError as error:
            raise StoreError(f"{self._url}: there is no such bucket") from error

    async def write_new(self, path: str, data: bytes, *, replaces: bool) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        path, existing = await self.target(path, len(data), sha256, replaces=replaces)
        if existing is None:
            await self.write_bytes(path, data)
        return path

    async def target(
        self, path: str, size_bytes: int, sha256: str, *, replaces: bool
    ) -> tuple[str, FileStamp | None]:
        """Return where to write, and the stamp of an object that holds these very bytes already."""
        for name in candidate_names(path):
            stamp = await self.stamp(name)
            if stamp is None:
                return name, None
            if await self.fingerprint(name, size_bytes) == sha256:
                return name, stamp
            if replaces and name == path:
                return name, None
        raise AssertionError("there is always another name")

    async def read_bytes(self, path: str) -> bytes | None:
        try:
            found = await self.call(obstore.get_async(self.backend, path))
            return bytes(await self.call(found.bytes_async()))
        except FileNotFoundError:
            return None

    async def read_range(self, path: str, stamp: FileStamp, start: int, end: int) -> bytes:
        options: Any = {"range": (start, end)} | ({"if_match": stamp.etag} if stamp.etag else {})
        try:
            found = await self.call(obstore.get_async(self.backend, path, options=options))
            data = bytes(await self.call(found.bytes_async()))
        except FileNotFoundError as error:
            raise StoreError(f"{self._url}: {path} is gone") from error
        if len(data) != end - start:
            raise StoreError(f"{self._url}: {path} changed while it was read")
        return data

    async def stamps(self, paths: Sequence[str]) -> dict[str, FileStamp]:
        """List the folders of the paths: one request for a thousand objects, and no GET."""
        wanted, found = set(paths), {}
        for folder in {path.rpartition("/")[0] for path in paths}:
            entries = await self.call(obstore.list(self.backend, prefix=folder or None).collect_async())
            found.update({entry["path"]: _stamp(entry) for entry in entries if entry["path"] in wanted})
        return found

    async def fingerprint(self, path: str, size_bytes: int) -> str | None:
        stamp = await self.stamp(path)
        if stamp is None or stamp.size_bytes != size_bytes:
            return None
        sha = hashlib.sha256()
        try:
            found = await self.call(obstore.get_async(self.backend, path))
            async for chunk in found.stream(min_chunk_size=1024 * 1024):
                await anyio.to_thread.run_sync(sha.update, chunk)
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise TransientStoreError(f"{self._url}: {first_line(error)}") from error
        return sha.hexdigest()

    async def aclose(self) -> None:
        """Nothing stays open between calls."""

    async def call(self, request: Awaitable[T]) -> T:
        """Await one request. Raises `StoreError`, `TransientStoreError`, or FileNotFoundError as it is."""
        try:
            return await request
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise StoreError(f"{self._url} refused the credentials: {first_line(error)}") from error
        except (InvalidPathError, UnknownConfigurationKeyError) as error:
            raise StoreError(f"{self._url}: {first_line(error)}") from error
        except FileNotFoundError:
            raise
        except (BaseError, OSError) as error:  # obstore's writers raise plain OSError when they are closed
            raise TransientStoreError(f"{self._url}: {first_line(error)}") from error


def _stamp(entry: ObjectMeta) -> FileStamp:
    """Return the stamp, its ETag in quotes: Azure leaves them out in a listing (Azure/Azurite issue 361)."""
    etag = entry["e_tag"] or ""
    return FileStamp(int(entry["size"]), etag=etag if etag.endswith('"') or not etag else f'"{etag}"')


def content_type_attributes(path: str) -> dict[str, str]:
    """The Content-Type, so that a bucket served as a web site plays videos and shows the report."""
    kind = _CONTENT_TYPES.get(path.rpartition(".")[2])
    return {"Content-Type": kind} if kind else {}
