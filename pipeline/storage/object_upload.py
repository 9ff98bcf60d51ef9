"""A file into a bucket: in one request, or in parts of which none stays unfinished.

obstore's `put` uploads in parts by itself whatever is larger than 5 MiB, and a cancelled caller cannot end
that: so it is told not to, and a large file goes through a writer.
"""

from __future__ import annotations

import asyncio
from typing import IO, TYPE_CHECKING, Final

import anyio
import anyio.to_thread
import obstore

from pipeline.storage.object_staging import abort_writer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from obstore import AsyncWritableFile
    from obstore.store import ObjectStore as Backend

    from pipeline.storage.aws import S3Account

MAX_SINGLE_PUT_BYTES: Final = 16 * 1024 * 1024
"""A request has two minutes, its body included: this on a line of 1.2 Mbit/s."""
PART_BYTES: Final = 8 * 1024 * 1024
MAX_CONCURRENT_PARTS: Final = 4


async def put_whole(
    backend: Backend, name: str, data: bytes | IO[bytes], attributes: Mapping[str, str]
) -> None:
    """Upload in one request, which leaves the whole object or nothing. Raises what obstore raises."""
    await obstore.put_async(backend, name, data, attributes=dict(attributes), use_multipart=False)


async def put_file(
    backend: Backend,
    account: S3Account | None,
    name: str,
    file: IO[bytes],
    size_bytes: int,
    attributes: Mapping[str, str],
) -> None:
    """Upload a file whose name tells its content. Raises what obstore raises, and OSError.

    Once the object is there, every unfinished upload of its name is ended, whoever began it: a killed run
    left it, or somebody uploads the same bytes, in vain.
    """
    if size_bytes <= MAX_SINGLE_PUT_BYTES:
        await put_whole(backend, name, file, attributes)
        return
    upload = _Upload(
        obstore.open_writer_async(
            backend,
            name,
            attributes=dict(attributes),
            buffer_size=PART_BYTES,
            max_concurrency=MAX_CONCURRENT_PARTS,
        )
    )
    try:
        await upload.run(file)
    finally:
        with anyio.CancelScope(shield=True):
            await upload.abort()
            if upload.closed and account is not None:
                await account.abort_uploads(name)


class _Upload:
    """One upload in parts. A request that is cancelled goes on: only after it can the upload be ended."""

    def __init__(self, writer: AsyncWritableFile) -> None:
        self._writer = writer
        self._request: asyncio.Future[object] | None = None
        self.closed = False
        """Whether its end was asked for: then the writer ends nothing any more, well or not."""

    async def run(self, file: IO[bytes]) -> None:
        while block := await anyio.to_thread.run_sync(file.read, PART_BYTES):
            await self._send(self._writer.write(block))
        self.closed = True
        await self._send(self._writer.close())

    async def _send(self, request: Awaitable[object]) -> None:
        self._request = asyncio.ensure_future(request)
        await asyncio.shield(self._request)

    async def abort(self) -> None:
        """End what is unfinished of it; nothing, once it was closed."""
        if self._request is not None:
            await asyncio.wait({self._request})
        if not self.closed:
            await abort_writer(self._writer)
