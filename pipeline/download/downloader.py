"""Fetch one row's video: to its place, whole and examined, or the reason why not now. One row, no pools.

It knows URLs, a store and what a video looks like. It must not know the vendor's API (fresh URLs are the
caller's to get), the ledger, or other rows.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio

from pipeline import clocks, media
from pipeline.download.body_writer import BodyWriter, VideoTooLarge, WrongContent, read_head, too_large
from pipeline.download.clips import Clip, examined_tag, may_play, new_artifact, staged_validators
from pipeline.download.download_result import Deferred, DownloadResult, InvalidVideo, Saved, joined_result
from pipeline.download.redirects import ForbiddenUrl
from pipeline.download.resumable_get import DownloadError, FileChanged, OpenBody, UrlExpired, open_body
from pipeline.download.retry_state import DownloadLimits, RetryState
from pipeline.errors import StoreError
from pipeline.model import Failure
from pipeline.plan import clip_urls
from pipeline.storage import TransientStoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path
    from typing import BinaryIO

    import aiohttp

    from pipeline.model import Record
    from pipeline.storage import OutputStore, StagedFile

    Refresh = Callable[[], Awaitable[Sequence[str]]]


class DamagedVideo(media.UnplayableVideo):
    """It plays, but not all of it: another fetch may bring it whole."""

    def __init__(self, found: media.Examination) -> None:
        super().__init__(found.defects)
        self.found = found


RETRYABLE: Final = (media.UnplayableVideo, DownloadError, ForbiddenUrl, TransientStoreError)
STALE_URL_ERRORS: Final = (media.UnplayableVideo, UrlExpired, ForbiddenUrl, WrongContent)
"""Errors after which the vendor is asked for a fresh URL."""


class Downloader:
    """Downloads one row a call; calls may run side by side. `session` must carry no key."""

    def __init__(
        self,
        *,
        session: aiohttp.ClientSession,
        store: OutputStore,
        limits: DownloadLimits | None = None,
        media: bool = True,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        random: Callable[[], float] | None = None,
    ) -> None:
        # The CDN answers 400 to a request that carries a key, and must not learn it anyway.
        if "Authorization" in session.headers or session.auth is not None:
            raise ValueError("the session for downloads must not carry an Authorization header")
        self.store = store
        self._session = session
        self._limits = limits or DownloadLimits()
        self.decodes = media
        self._sleep, self._random = sleep, random or clocks.new_random().random

    async def download(self, record: Record, refresh: Refresh, *, final: bool = True) -> DownloadResult:
        """Save the row's clip as `videos/<file_stem>.<ext>`, resuming an earlier try, and any further
        clips of its generation as `<file_stem>_2.<ext>` and so on.

        `refresh` asks the vendor for fresh URLs (empty: it cannot say now). `final` says that the run will
        not try again: then a damaged copy that plays is kept, where a whole one cannot be had, and what never
        plays is called no video. Raises `StoreError` when the output cannot be written,
        `TransientStoreError` when it could not be for now; what has arrived is kept wherever that helps.
        """
        urls: Sequence[str] = clip_urls(record)
        results: list[DownloadResult] = []

        async def refresh_all() -> Sequence[str]:
            nonlocal urls
            urls = await refresh() or urls
            return urls

        while len(results) < len(urls):  # a fresh answer may name further clips
            is_main = not any(isinstance(result, Saved) for result in results)
            clip = Clip(len(results), record, final, is_main)
            if len(urls) > 1 and not clip.url(urls):
                results.append(InvalidVideo(Failure("no_video", "the vendor has given no URL for it")))
            else:
                results.append(await self._download_clip(clip, urls, refresh_all))
        return results[0] if len(results) == 1 else joined_result(record, results, final)

    async def _download_clip(self, clip: Clip, urls: Sequence[str], refresh: Refresh) -> DownloadResult:
        retry = RetryState(self._limits, self._random)
        async with self.store.stage(clip.staging_path) as part:
            while True:
                try:
                    await self._transfer(part, clip, clip.url(urls))
                    return await self._verify_and_publish(part, clip, retry)
                except VideoTooLarge as error:
                    return Deferred(str(error), retryable=False)
                except RETRYABLE as error:
                    next_step = await self._recover(error, part, clip, retry)
                    stale = isinstance(error, STALE_URL_ERRORS)
                if not isinstance(next_step, float):
                    return next_step
                await self._sleep(next_step)
                # A signed URL ends long before the video does.
                if stale:
                    urls = await refresh() or urls

    async def _recover(
        self, error: Exception, part: StagedFile, clip: Clip, retry: RetryState
    ) -> DownloadResult | float:
        """Decide what an error means: the result, or the seconds to wait before the next try."""
        if isinstance(error, media.UnplayableVideo):
            digest = await part.digest()
            try:
                enough = retry.record_full_fetch(digest)
                if enough and (clip.final or isinstance(error, DamagedVideo)):
                    return await self._settle(part, clip, error)
                await self._set_aside(part, clip, plays=isinstance(error, DamagedVideo))
                if enough:  # of one server, within seconds: a later round may be sent other bytes
                    return Deferred(str(error))
            except TransientStoreError as trouble:  # what is staged is examined again: no other fetch
                retry.forget_full_fetch(digest, part.staged_bytes)
                error = trouble
        # Neither another version's bytes nor what the store has lost can be gone on with.
        elif isinstance(error, FileChanged | TransientStoreError):
            await part.discard()
        retry.record_error(error)
        wait_s = retry.next_delay_s(part.staged_bytes, anyio.current_time())
        if wait_s is not None:
            return wait_s
        if isinstance(error, TransientStoreError):
            raise error
        if clip.final and (not part.staged_bytes or may_play(await part.aside_tag(), clip)):
            return await self._restore(part, clip) or Deferred(str(error))
        return Deferred(str(error))

    async def _set_aside(self, part: StagedFile, clip: Clip, *, plays: bool) -> None:
        """Keep a damaged copy, unless an earlier round or run kept one that plays and this does not."""
        if plays or not may_play(await part.aside_tag(), clip):
            await part.set_aside(examined_tag(part, clip, plays=plays))
        else:
            await part.discard()

    async def _restore(self, part: StagedFile, clip: Clip) -> Saved | None:
        """Keep a copy that was set aside, if it plays: no better one can be had in this run."""
        if not await part.restore():
            return None
        if staged_validators(part, clip) is None:
            await part.discard()
            return None
        try:
            found = await part.inspect(self._examiner(part))
        except media.UnplayableVideo:
            await part.set_aside(examined_tag(part, clip, plays=False))
            return None
        return await self._publish(part, clip, found)

    def _examiner(self, part: StagedFile) -> Callable[[Path | BinaryIO], media.Examination]:
        return partial(media.examine, size_bytes=part.staged_bytes, decode=self.decodes)

    async def _settle(self, part: StagedFile, clip: Clip, error: media.UnplayableVideo) -> DownloadResult:
        """Keep what no further fetch will mend: as the video if it plays, else under another name."""
        if isinstance(error, DamagedVideo):
            return await self._publish(part, clip, error.found)
        if may_play(await part.aside_tag(), clip):
            return await self._restore(part, clip) or Deferred(str(error))
        ending = "incomplete.mp4" if isinstance(error, media.IncompleteVideo) else "unplayable.bin"
        kept = await part.publish(f"videos/{clip.stem}.{ending}", replaces=False)
        message = f"what was delivered is no whole video: {error}; the bytes are kept as {kept.path}"
        return InvalidVideo(Failure("not_a_video", message))

    async def _transfer(self, part: StagedFile, clip: Clip, url: str) -> None:
        """Bring the part to its full length; returns at once when it has it already."""
        staged = staged_validators(part, clip)
        offset = part.staged_bytes if staged is not None and staged.resumable else 0
        # It may have been whole when the last run was killed; then nothing is asked of the network.
        if staged is not None and offset and staged.total_bytes == offset:
            return
        if not url:
            raise UrlExpired("the vendor has given no URL for this video yet")
        async with open_body(self._session, url, staged, offset, self._limits.response_timeout_s) as response:
            if isinstance(response, OpenBody):
                await self._receive(response, part, clip)

    async def _receive(self, body: OpenBody, part: StagedFile, clip: Clip) -> None:
        limits = self._limits
        if (body.validators.total_bytes or 0) > limits.max_bytes:
            raise too_large(limits)
        # Before `restart`: an error page sent with 200 must not cost what is staged already.
        head = await read_head(body, limits)
        if body.start == 0:
            origin = replace(body.validators, generation=clip.record.generation_id)
            await part.restart(origin.to_text())
        await BodyWriter(body, part, limits).run(head)
        if body.length is not None and part.staged_bytes > body.start + body.length:
            raise FileChanged("the server sent more than the part of the file that was asked for")
        total = body.validators.total_bytes
        if total is not None and part.staged_bytes < total:  # a 206 may be shorter than what was asked for
            raise DownloadError(f"the response ended after {part.staged_bytes} of {total} bytes")

    async def _verify_and_publish(self, part: StagedFile, clip: Clip, retry: RetryState) -> Saved:
        """Examine the whole file, then publish it. Raises `UnplayableVideo`.

        A file that plays but is damaged in places is fetched once more: if the same bytes come again,
        that is what the vendor made, and it is kept with a warning.
        """
        media_info = await part.inspect(self._examiner(part))
        if media_info.defects and not retry.fetch_counts[await part.digest()]:
            raise DamagedVideo(media_info)
        return await self._publish(part, clip, media_info)

    async def _publish(self, part: StagedFile, clip: Clip, found: media.Examination) -> Saved:
        known = clip.known
        path = f"videos/{clip.stem}.{found.extension}"
        ours = known is not None and known.path.endswith(f".{found.extension}")
        # Only what an earlier run wrote may be replaced; a file of the user's keeps its name.
        published = await part.publish(known.path if known and ours else path, replaces=ours)
        poster_path, note = await self._write_poster(clip, found.poster)
        artifact = new_artifact(published, clip, found, poster_path)
        return Saved(artifact, "; ".join(filter(None, (published.note, note))))

    async def _write_poster(self, clip: Clip, poster: bytes) -> tuple[str, str]:
        """Return the poster's path, or "" and why it has none: the clip is published and stays so."""
        if not poster or not clip.is_main:
            return "", ""
        path = f"posters/{clip.stem}.jpg"
        ours = clip.known is not None and clip.known.poster_path == path
        try:
            return await self.store.write_new(path, poster, replaces=ours), ""
        except StoreError as error:
            return "", f"its poster could not be saved: {error}"
