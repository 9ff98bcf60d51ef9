"""Fetch one row's video: to its place, whole, checked, or say why not now. One row, no pools.

It knows a URL, a store and what a video looks like. It must not know the vendor's API (a fresh URL is
the caller's to get), the ledger, or other rows.
"""

from __future__ import annotations

import asyncio
import json
import random as randomness
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import aiohttp
import anyio

from pipeline import media as films
from pipeline.download.http import DownloadError, FileChanged, OpenBody, Unreachable, UrlExpired, open_body
from pipeline.download.redirects import ForbiddenUrl
from pipeline.download.response_headers import Validators
from pipeline.download.stall import StallDetector
from pipeline.errors import StoreError
from pipeline.model import Artifact, Failure
from pipeline.storage import TransientStoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from typing import BinaryIO

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from pipeline.model import Media, Record
    from pipeline.settings import Settings
    from pipeline.storage import OutputStore, StagedFile

BATCH_S: Final = 0.5
"""How long a batch may grow: what a slow line has brought should survive a kill."""
BATCH_BYTES: Final = 2 * 1024 * 1024
"""What is gathered before a thread writes it: at 64 KiB the hand-over costs more than the write."""


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """How hard one download tries before it is left for the next run.

    `tries` counts answers in a row that brought no new byte; a transfer that moves on is never out of
    tries. Without any answer, `patience_s` alone decides. `proofs` full fetches of the same bytes prove
    what the vendor's file is; after `full_fetches` in all, the bytes are what they are. A transfer under
    `stall_bytes_s` over `stall_window_s` is given up, and taken up again where it was.
    """

    max_bytes: int = 2 * 1024**3
    tries: int = 6
    patience_s: float = 60.0
    proofs: int = 4
    full_fetches: int = 7
    stall_window_s: float = 10.0
    stall_bytes_s: float = 1000.0
    answer_s: float = 20.0
    first_wait_s: float = 0.25
    longest_wait_s: float = 5.0

    @classmethod
    def of(cls, settings: Settings) -> DownloadLimits:
        """Return the limits of a run, whose waits go by its poll interval."""
        pace = settings.poll_interval
        return cls(max_bytes=settings.max_video_bytes, first_wait_s=pace / 40, longest_wait_s=pace)


@dataclass(frozen=True, slots=True)
class Saved:
    """The video is whole, verified, under its final name and durable. `note` is for the user, if any."""

    artifact: Artifact
    note: str = ""


@dataclass(frozen=True, slots=True)
class NotAVideo:
    """Several full fetches brought bytes that are provably no video."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class NotNow:
    """It could not be fetched now; what has arrived is kept, and the row stays ready.

    `again` says whether another try in this run may do better.
    """

    reason: str
    again: bool = True


Outcome = Saved | NotAVideo | NotNow


class Damaged(films.UnplayableVideo):
    """It plays, but not all of it: another fetch may bring it whole."""


class TooLarge(Exception):
    """The video is larger than the user allows."""


class Downloader:
    """Downloads rows one at a time a call; calls may run side by side. `session` must carry no key."""

    def __init__(
        self,
        *,
        session: aiohttp.ClientSession,
        store: OutputStore,
        limits: DownloadLimits | None = None,
        media: bool = True,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        random: Callable[[], float] = randomness.random,
    ) -> None:
        if "Authorization" in session.headers or session.auth is not None:
            raise ValueError("the session for downloads must not carry an Authorization header")
        if media:
            films.preload_decoders()
        self._session, self._store = session, store
        self._limits = limits or DownloadLimits()
        self._media = media
        self._sleep, self._random = sleep, random

    async def download(self, record: Record, refresh: Callable[[], Awaitable[str | None]]) -> Outcome:
        """Fetch the row's video to `videos/<file_stem>.mp4`, beginning where an earlier try ended.

        `refresh` asks the vendor for a fresh URL (None: it cannot say now). Raises `StoreTrouble` when
        the place itself will not take it; what has arrived is kept wherever that helps.
        """
        effort = Effort(self._limits, self._random)
        url = record.video_url
        async with self._store.stage(f"videos/{record.file_stem}.mp4") as part:
            while True:
                try:
                    await self._transfer(part, url)
                    return await self._keep(part, record, effort)
                except TooLarge as error:
                    return NotNow(str(error), again=False)
                except (films.UnplayableVideo, DownloadError, ForbiddenUrl, TransientStoreError) as error:
                    next_step = await self._recover(error, part, effort)
                    stale = isinstance(error, films.UnplayableVideo | UrlExpired | ForbiddenUrl)
                if not isinstance(next_step, float):
                    return next_step
                await self._sleep(next_step)
                if stale:
                    url = await refresh() or url

    async def _recover(
        self, error: Exception, part: StagedFile, effort: Effort
    ) -> NotAVideo | NotNow | float:
        """Decide what a setback means: the outcome, or the seconds to wait before the next try."""
        proven = isinstance(error, films.UnplayableVideo) and effort.proven(await part.digest())
        if isinstance(error, films.UnplayableVideo | FileChanged | TransientStoreError):
            await part.discard()
        if proven and isinstance(error, Damaged):
            return NotNow(f"each fetch brought other bytes, all of them damaged: {error}")
        if proven:
            return NotAVideo(Failure("not_a_video", f"what was delivered is no whole video: {error}"))
        effort.note(error)
        wait_s = effort.wait_s(part.staged_bytes, anyio.current_time())
        if wait_s is not None:
            return wait_s
        if isinstance(error, TransientStoreError):
            raise error
        return NotNow(str(error))

    async def intact(self, artifact: Artifact) -> bool:
        """Whether the saved file is there and unaltered: its size first, then its sha256, in a thread."""
        return await self._store.fingerprint(artifact.path, artifact.size_bytes) == artifact.sha256

    async def _transfer(self, part: StagedFile, url: str) -> None:
        """Bring the part to its full length; returns at once when it has it already."""
        held = Validators.from_text(part.tag)
        offset = part.staged_bytes if held is not None and held.resumable else 0
        if held is not None and offset and held.total_bytes == offset:
            return
        if not url:
            raise UrlExpired("the vendor has given no URL for this video yet")
        async with open_body(self._session, url, held, offset, self._limits.answer_s) as answer:
            if isinstance(answer, OpenBody):
                await self._receive(answer, part)

    async def _receive(self, body: OpenBody, part: StagedFile) -> None:
        limits = self._limits
        if (body.validators.total_bytes or 0) > limits.max_bytes:
            raise _too_large(limits)
        first = await _first_chunk(body, limits)
        if body.start == 0:
            await part.restart(body.validators.to_text())
        await Pour(body, part, limits).run(first)
        total = body.validators.total_bytes
        if total is not None and part.staged_bytes < total:  # a 206 may be shorter than what was asked for
            raise DownloadError(f"the answer ended after {part.staged_bytes} of {total} bytes")

    async def _keep(self, part: StagedFile, record: Record, effort: Effort) -> Saved:
        """Look into the whole file, then publish it. Raises `NotPlayable`.

        A file that plays but is damaged in places is fetched once more: if the same bytes come again,
        that is what the vendor made, and it is kept with a warning.
        """
        size_bytes, media = part.staged_bytes, self._media

        def examine(source: Path | BinaryIO) -> films.ProbeResult | None:
            films.check_structure(source, size_bytes)
            return films.probe_video(source) if media else None

        look = await part.inspect(examine)
        if look is not None and look.defects and not effort.fetches[await part.digest()]:
            raise Damaged(look.defects)
        poster_path = ""
        if look is not None:
            poster_path = f"posters/{record.file_stem}.jpg"
            await self._store.write_bytes(poster_path, look.poster, durable=False)
        published = await part.publish()
        found = None if look is None else _described(look, record)
        artifact = Artifact(published.path, published.size_bytes, published.sha256, found, poster_path)
        return Saved(artifact, published.note)


@dataclass(slots=True)
class Effort:
    """How long to go on with one row. Knows no clock: times come in as arguments."""

    limits: DownloadLimits
    random: Callable[[], float]
    tries: int = 0
    furthest: int = 0
    silent_since: float | None = None
    silent: bool = False
    asked_wait_s: float = 0.0
    fetches: Counter[str] = field(default_factory=Counter)

    def note(self, error: Exception) -> None:
        """Take in what kind of trouble it was. A refused URL is not going to improve: it weighs more."""
        self.silent = isinstance(error, Unreachable)
        if isinstance(error, ForbiddenUrl):
            self.tries += self.limits.tries // 4
        elif isinstance(error, DownloadError) and error.retry_after_s:
            self.asked_wait_s = error.retry_after_s

    def proven(self, digest: str) -> bool:
        """Count a full fetch that was no video; True when that is now proven. A new fetch begins at 0."""
        self.fetches[digest] += 1
        self.furthest, self.silent = 0, False
        return self.fetches[digest] >= self.limits.proofs or self.fetches.total() >= self.limits.full_fetches

    def wait_s(self, held_bytes: int, now: float) -> float | None:
        """Seconds until the next try, with jitter; None when enough was tried for this run."""
        if held_bytes > self.furthest:
            self.furthest, self.tries, self.silent_since = held_bytes, 0, None
        else:
            self.tries += 1
        if not self.silent:
            self.silent_since = None
        elif self.silent_since is None:
            self.silent_since = now
        if self.silent_since is not None:
            if now - self.silent_since >= self.limits.patience_s:
                return None
        elif self.tries >= self.limits.tries:
            return None
        most = min(self.limits.longest_wait_s, self.limits.first_wait_s * 2.0 ** min(self.tries, 30))
        wait_s = max(most * (0.5 + self.random() / 2), min(self.asked_wait_s, self.limits.longest_wait_s))
        self.asked_wait_s = 0.0
        return wait_s


class Pour:
    """Network to store: one task gathers a batch while the other writes the one before it."""

    def __init__(self, body: OpenBody, part: StagedFile, limits: DownloadLimits) -> None:
        self._body, self._part, self._limits = body, part, limits
        self._store_trouble: StoreError | None = None

    async def run(self, first: bytes) -> None:
        """Write all that comes. What arrived before a cut is written before the cut is raised."""
        send, receive = anyio.create_memory_object_stream[list[bytes]](0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._write, receive)
            async with send:
                trouble = await self._read(first, send)
        if self._store_trouble is not None:
            raise self._store_trouble
        if trouble is not None:
            raise trouble

    async def _write(self, receive: MemoryObjectReceiveStream[list[bytes]]) -> None:
        async with receive:
            async for batch in receive:
                try:
                    await self._part.write(batch)
                except StoreError as error:
                    self._store_trouble = error
                    return

    async def _read(self, first: bytes, send: MemoryObjectSendStream[list[bytes]]) -> Exception | None:
        """Read to the end of the body; what went wrong comes back as a value, so that nothing is lost."""
        limits, content = self._limits, self._body.response.content
        clock = asyncio.get_running_loop().time
        meter = StallDetector(limits.stall_window_s, limits.stall_bytes_s, clock())
        batch, gathered, held = [first], len(first), self._body.start + len(first)
        sent_at = meter.window_started_at
        problem: Exception | None = None
        with anyio.CancelScope(deadline=meter.deadline) as patience:
            try:
                while chunk := await content.readany():
                    batch.append(chunk)
                    gathered += len(chunk)
                    held += len(chunk)
                    if held > limits.max_bytes:
                        return _too_large(limits)
                    now = clock()
                    if meter.add(len(chunk), now):
                        patience.deadline = meter.deadline
                    if gathered >= BATCH_BYTES or now - sent_at >= BATCH_S:
                        patience.deadline = float("inf")  # a slow disk is not a stalled server
                        await send.send(batch)
                        batch, gathered, sent_at = [], 0, clock()
                        meter.window_started_at += sent_at - now
                        patience.deadline = meter.deadline
            except (aiohttp.ClientError, OSError) as error:
                batch.append(rest := self._body.read_buffered())
                held += len(rest)
                problem = DownloadError(f"cut off after {held} bytes ({type(error).__name__})")
            except anyio.BrokenResourceError:
                return None
        if patience.cancelled_caught:
            problem = DownloadError(
                f"stalled after {held} bytes: under {limits.stall_bytes_s:g} bytes a second"
            )
        try:
            await send.send(batch)
        except anyio.BrokenResourceError:
            return None
        return problem


def _described(look: films.ProbeResult, record: Record) -> Media:
    """What the look found, with warnings on all that differs from what the row asked for."""
    media = films.with_mismatch_warnings(look.media, json.loads(record.body))
    return replace(media, warnings=(*media.warnings, look.defects)) if look.defects else media


async def _first_chunk(body: OpenBody, limits: DownloadLimits) -> bytes:
    """The first bytes, before anything that is held is given up for them. Raises `Trouble`."""
    first = b""
    try:
        with anyio.fail_after(limits.stall_window_s):
            while len(first) < 12 and (chunk := await body.response.content.readany()):
                first += chunk
    except TimeoutError as error:
        raise DownloadError("the server began an answer and then sent nothing") from error
    except (aiohttp.ClientError, OSError) as error:
        first += body.read_buffered()
        if not first:
            raise DownloadError(f"cut off before the first byte ({type(error).__name__})") from error
    if not first:
        raise DownloadError("the server sent an empty file")
    if body.declared_page and not films.starts_like_mp4(first):
        raise DownloadError("the server sent a web page instead of a video")
    return first


def _too_large(limits: DownloadLimits) -> TooLarge:
    return TooLarge(f"the video is larger than --max-video-bytes {limits.max_bytes}; raise it and run again")
