"""A response's body into a staged file: one task reads the network while another writes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import anyio

from pipeline.download.resumable_get import BODY_ERRORS, DownloadError
from pipeline.download.stall import StallDetector
from pipeline.errors import StoreError
from pipeline.media import HEAD_BYTES, looks_like_page, starts_like_video

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from pipeline.download.resumable_get import OpenBody
    from pipeline.download.retry_state import DownloadLimits
    from pipeline.storage import StagedFile

WRITE_BATCH_S: Final = 0.5
"""The longest a batch may gather: what a slow line has brought should survive a kill."""
WRITE_BATCH_BYTES: Final = 2 * 1024 * 1024
"""What is gathered before a thread writes it: at 64 KiB the hand-over costs more than the write."""


class VideoTooLarge(Exception):
    """The video is larger than the user allows."""


class WrongContent(DownloadError):
    """A web page or an error document, sent with status 200 in place of the video."""


def too_large(limits: DownloadLimits) -> VideoTooLarge:
    """The error for a video over `--max-video-bytes`, with the way out."""
    return VideoTooLarge(
        f"the video is larger than --max-video-bytes {limits.max_bytes}; raise it and run again"
    )


async def read_head(body: OpenBody, limits: DownloadLimits) -> bytes:
    """Return the first bytes of a body, read before anything that is staged is given up for them.

    Raises `WrongContent` for a page, and `DownloadError` when the body is empty, cut off or stalled.
    """
    head = b""
    try:
        with anyio.fail_after(limits.stall_window_s):
            while len(head) < HEAD_BYTES and (chunk := await body.response.content.readany()):
                head += chunk
    except TimeoutError as error:
        raise DownloadError("the server sent headers and then nothing") from error
    except BODY_ERRORS as error:
        head += body.read_buffered()
        if not head:
            raise DownloadError(f"cut off before the first byte ({type(error).__name__})") from error
    if not head:
        raise DownloadError("the server sent an empty file")
    if body.start == 0 and (looks_like_page(head) or (body.declared_page and not starts_like_video(head))):
        raise WrongContent(
            "the server sent a web page instead of a video: a proxy or a sign-in page of this network may "
            "stand in between; the clip is paid for, and each run asks for it again"
        )
    return head


class BodyWriter:
    """Copies one body into a staged file."""

    def __init__(self, body: OpenBody, part: StagedFile, limits: DownloadLimits) -> None:
        self._body, self._part, self._limits = body, part, limits
        self._store_error: StoreError | None = None

    async def run(self, head: bytes) -> None:
        """Write everything that comes. What arrived before a cut is written before the cut is raised."""
        # No buffer: one batch is written while the next is read, and no more than two are ever in memory.
        send, receive = anyio.create_memory_object_stream[list[bytes]](0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._write, receive)
            async with send:
                error = await self._read(head, send)
        if self._store_error is not None:
            raise self._store_error
        if error is not None:
            raise error

    async def _write(self, receive: MemoryObjectReceiveStream[list[bytes]]) -> None:
        async with receive:
            async for batch in receive:
                try:
                    await self._part.write(batch)
                except StoreError as error:
                    self._store_error = error
                    return

    async def _read(self, head: bytes, send: MemoryObjectSendStream[list[bytes]]) -> Exception | None:
        """Read to the end of the body; an error is returned, so that the last batch is still written."""
        limits, content = self._limits, self._body.response.content
        clock = asyncio.get_running_loop().time
        stall_detector = StallDetector(limits.stall_window_s, limits.min_bytes_per_s, clock())
        batch, batch_bytes, received = [head], len(head), self._body.start + len(head)
        sent_at = stall_detector.window_started_at
        failure: Exception | None = None
        with anyio.CancelScope(deadline=stall_detector.deadline) as stall_scope:
            try:
                while chunk := await content.readany():
                    batch.append(chunk)
                    batch_bytes += len(chunk)
                    received += len(chunk)
                    if received > limits.max_bytes:
                        return too_large(limits)
                    now = clock()
                    if stall_detector.add(len(chunk), now):
                        stall_scope.deadline = stall_detector.deadline
                    if batch_bytes >= WRITE_BATCH_BYTES or now - sent_at >= WRITE_BATCH_S:
                        stall_scope.deadline = float("inf")  # a slow disk is not a stalled server
                        await send.send(batch)
                        batch, batch_bytes, sent_at = [], 0, clock()
                        stall_detector.window_started_at += sent_at - now
                        stall_scope.deadline = stall_detector.deadline
            except BODY_ERRORS as error:
                batch.append(rest := self._body.read_buffered())
                received += len(rest)
                failure = DownloadError(f"cut off after {received} bytes ({type(error).__name__})")
            except anyio.BrokenResourceError:
                return None
        if stall_scope.cancelled_caught:
            failure = DownloadError(
                f"stalled after {received} bytes: under {limits.min_bytes_per_s:g} bytes a second"
            )
        try:
            await send.send(batch)
        except anyio.BrokenResourceError:
            return None
        return failure
