"""Fetch one row's video: to its place, whole, checked, or say why not now. One row, no pools.

It knows a URL, a store and what a video looks like. It must not know the vendor's API (a fresh URL is
the caller's to get), the ledger, or other rows.
"""

from __future__ import annotations

import json
import random as randomness
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import anyio

from pipeline import media as films
from pipeline.download.body_writer import BodyWriter, TooLarge, WrongContent, read_head, too_large
from pipeline.download.http import DownloadError, FileChanged, OpenBody, UrlExpired, open_body
from pipeline.download.redirects import ForbiddenUrl
from pipeline.download.response_headers import Validators
from pipeline.download.retry_state import DownloadLimits, RetryState
from pipeline.model import Artifact, Failure
from pipeline.storage import TransientStoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from typing import BinaryIO

    import aiohttp

    from pipeline.model import Media, Record
    from pipeline.storage import OutputStore, StagedFile


@dataclass(frozen=True, slots=True)
class Saved:
    """The video is whole, verified, under its final name and durable. `note` is for the user, if any."""

    artifact: Artifact
    note: str = ""


@dataclass(frozen=True, slots=True)
class InvalidVideo:
    """Several full fetches brought bytes that are provably no video."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Deferred:
    """It could not be fetched now; what has arrived is kept, and the row stays ready.

    `again` says whether another try in this run may do better.
    """

    reason: str
    again: bool = True


DownloadResult = Saved | InvalidVideo | Deferred


class Damaged(films.UnplayableVideo):
    """It plays, but not all of it: another fetch may bring it whole."""


STALE_URL_ERRORS: Final = (films.UnplayableVideo, UrlExpired, ForbiddenUrl, WrongContent)
"""Errors after which the vendor is asked for a fresh URL."""


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

    async def download(self, record: Record, refresh: Callable[[], Awaitable[str | None]]) -> DownloadResult:
        """Fetch the row's video to `videos/<file_stem>.mp4`, beginning where an earlier try ended.

        `refresh` asks the vendor for a fresh URL (None: it cannot say now). Raises `StoreTrouble` when
        the place itself will not take it; what has arrived is kept wherever that helps.
        """
        effort = RetryState(self._limits, self._random)
        url = record.video_url
        async with self._store.stage(f"videos/{record.file_stem}.mp4") as part:
            while True:
                try:
                    await self._transfer(part, url)
                    return await self._keep(part, record, effort)
                except TooLarge as error:
                    return Deferred(str(error), again=False)
                except (films.UnplayableVideo, DownloadError, ForbiddenUrl, TransientStoreError) as error:
                    next_step = await self._recover(error, part, effort)
                    stale = isinstance(
                        error, films.UnplayableVideo | UrlExpired | ForbiddenUrl | WrongContent
                    )
                if not isinstance(next_step, float):
                    return next_step
                await self._sleep(next_step)
                if stale:
                    url = await refresh() or url

    async def _recover(
        self, error: Exception, part: StagedFile, effort: RetryState
    ) -> InvalidVideo | Deferred | float:
        """Decide what a setback means: the outcome, or the seconds to wait before the next try."""
        proven = isinstance(error, films.UnplayableVideo) and effort.proven(await part.digest())
        if isinstance(error, films.UnplayableVideo | FileChanged | TransientStoreError):
            await part.discard()
        if proven and isinstance(error, Damaged):
            return Deferred(f"each fetch brought other bytes, all of them damaged: {error}")
        if proven:
            return InvalidVideo(Failure("not_a_video", f"what was delivered is no whole video: {error}"))
        effort.note(error)
        wait_s = effort.wait_s(part.staged_bytes, anyio.current_time())
        if wait_s is not None:
            return wait_s
        if isinstance(error, TransientStoreError):
            raise error
        return Deferred(str(error))

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
        async with open_body(self._session, url, held, offset, self._limits.response_timeout_s) as answer:
            if isinstance(answer, OpenBody):
                await self._receive(answer, part)

    async def _receive(self, body: OpenBody, part: StagedFile) -> None:
        limits = self._limits
        if (body.validators.total_bytes or 0) > limits.max_bytes:
            raise too_large(limits)
        head = await read_head(body, limits)
        if body.start == 0:
            await part.restart(body.validators.to_text())
        await BodyWriter(body, part, limits).run(head)
        total = body.validators.total_bytes
        if total is not None and part.staged_bytes < total:  # a 206 may be shorter than what was asked for
            raise DownloadError(f"the answer ended after {part.staged_bytes} of {total} bytes")

    async def _keep(self, part: StagedFile, record: Record, effort: RetryState) -> Saved:
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


def _described(look: films.ProbeResult, record: Record) -> Media:
    """What the look found, with warnings on all that differs from what the row asked for."""
    media = films.with_mismatch_warnings(look.media, json.loads(record.body))
    return replace(media, warnings=(*media.warnings, look.defects)) if look.defects else media
