"""A response's body into a staged file: its head, which is judged, and then block by block."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import anyio

from pipeline.download.body_sources import open_source
from pipeline.download.resumable_get import BODY_ERRORS, DownloadError
from pipeline.download.stall import StallDetector
from pipeline.media import HEAD_BYTES, looks_like_page, starts_like_video

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.download.resumable_get import OpenBody
    from pipeline.download.retry_state import DownloadLimits
    from pipeline.storage import StagedFile

MAX_UNWRITTEN_S: Final = 0.5
"""The longest a block may gather: what a slow line has brought should survive a kill."""


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
    """Copies one body into a staged file: one block is hashed and written while the next is received."""

    def __init__(self, body: OpenBody, part: StagedFile, limits: DownloadLimits) -> None:
        self._body, self._part, self._limits = body, part, limits
        self._received_bytes = body.start
        self._clock = asyncio.get_running_loop().time
        self._stall = StallDetector(limits.stall_window_s, limits.min_bytes_per_s, self._clock())

    async def run(self, head: bytes) -> None:
        """Write everything that comes. What arrived before a cut is written before the cut is raised."""
        source = open_source(self._body)
        await self._write([head, *await source.take(self._wait_s())])
        while not source.ended:
            if self._clock() >= self._stall.deadline:
                rate = f"{self._limits.min_bytes_per_s:g} bytes a second"
                raise DownloadError(f"stalled after {self._received_bytes} bytes: under {rate}")
            await self._write(await source.take(self._wait_s()))
        if source.failure is not None:
            cause = type(source.failure).__name__
            raise DownloadError(f"cut off after {self._received_bytes} bytes ({cause})")
        source.release()

    def _wait_s(self) -> float:
        return min(MAX_UNWRITTEN_S, max(0.0, self._stall.deadline - self._clock()))

    async def _write(self, chunks: Sequence[bytes | memoryview]) -> None:
        """Write what came, and count it. A slow disk is not a stalled server: its time does not count."""
        chunks = [chunk for chunk in chunks if chunk]
        count, came_at = sum(map(len, chunks)), self._clock()
        self._received_bytes += count
        if self._received_bytes > self._limits.max_bytes:
            raise too_large(self._limits)
        self._stall.add(count, came_at)
        if chunks:
            await self._part.write(chunks)
            self._stall.window_started_at += self._clock() - came_at
