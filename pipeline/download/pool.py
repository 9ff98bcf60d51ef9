"""The savers: videos that are ready are fetched, and saved ones are checked to be still there."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio

from pipeline import backoff
from pipeline.client import GenerationStatus, Phase
from pipeline.download.downloader import Deferred, InvalidVideo, Saved
from pipeline.errors import Conflict, StopReason, StoreError
from pipeline.events import Level, Topic
from pipeline.model import State
from pipeline.net.retry_after import parse_retry_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from pipeline.model import Record
    from pipeline.run_context import RunContext

MAX_ROUNDS = 5
"""How often a video that cannot be fetched is taken up again in one run, further and further apart."""


class DownloaderPool:
    """Rows that are ready wait here, in a stream with a place for every row: handing on never blocks."""

    def __init__(self, run: RunContext, ready: MemoryObjectSendStream[str]) -> None:
        self._run = run
        self._stream = ready
        self._rounds: dict[str, int] = {}
        self._policy = backoff.policy_for_interval(run.settings.poll_interval * 5)
        self._store_failed = False
        self.spawn: Callable[..., object]

    def push(self, record: Record) -> None:
        """Queue a ready record for saving."""
        self._run.state.downloading += 1
        self._stream.send_nowait(record.key)

    async def resume(self, checkers: int) -> None:
        """Queue what an earlier run left ready, and check what it saved, `checkers` files at a time."""
        records = list(self._run.state.records.values())
        done = [record for record in records if record.state is State.DONE]
        self._run.state.checking += len(done)
        for record in records:
            if record.state is State.READY:
                self.push(record)
        shared = iter(done)
        for _ in range(min(checkers, len(done))):
            self.spawn(self._check_artifacts, shared)

    async def _check_artifacts(self, shared: Iterator[Record]) -> None:
        for record in shared:
            try:
                await self._check_artifact(record)
            except Conflict:
                self._run.state.unfinished[record.key] = "another process has it"
            except StoreError as trouble:
                self._on_store_error(record, trouble)
            finally:
                self._run.state.checking -= 1
                self._run.notify()

    async def _check_artifact(self, record: Record) -> None:
        """A saved file that is missing or altered is fetched again, not generated again."""
        run = self._run
        if record.artifact is not None and await run.deps.downloader.intact(record.artifact):
            return
        path = record.artifact.path if record.artifact else "its video"
        run.report_event(
            Topic.NOTE, f"{record.id}: {path} is missing or altered: fetching it again", Level.WARNING, record
        )
        self.push(await run.commit(record, record.evolve(State.READY, artifact=None, downloaded_at=None)))

    async def work(self, ready: MemoryObjectReceiveStream[str]) -> None:
        """Save whatever is ready as long as the run lasts."""
        async with ready:
            async for key in ready:
                try:
                    await self._download(self._run.state.records[key])
                except Conflict:
                    self._run.state.unfinished[key] = "another process has it"
                finally:
                    self._run.state.downloading -= 1
                    self._run.notify()

    async def _download(self, record: Record) -> None:
        run = self._run
        if self._store_failed:
            run.state.unfinished[record.key] = "not saved: the output cannot be written"
            return
        try:
            if self._rounds.get(record.key):
                await self._fresh_url(record.key)
                record = run.state.records[record.key]
            result = await run.deps.downloader.download(record, partial(self._fresh_url, record.key))
        except StoreError as trouble:
            self._on_store_error(record, trouble)
            return
        record = run.state.records[record.key]
        run.state.unfinished.pop(record.key, None)
        match result:
            case Saved(artifact=artifact, note=note):
                if note:
                    run.report_event(Topic.NOTE, f"{record.id}: {note}", Level.WARNING, record)
                now = run.deps.wall()
                await run.commit(
                    record, record.evolve(State.DONE, artifact=artifact, downloaded_at=now, failure=None)
                )
            case InvalidVideo(failure=failure):
                await run.commit(record, record.evolve(State.FAILED, failure=failure))
            case Deferred(reason=reason, again=again):
                self._retry_later(record, reason, MAX_ROUNDS if again else 0)

    def _on_store_error(self, record: Record, error: StoreError) -> None:
        """The place itself will not take or give bytes: what is ready stays so, for the next run."""
        self._store_failed = True
        self._run.state.unfinished[record.key] = str(error)
        self._run.stop_submitting(StopReason.DISK, str(error))

    def _retry_later(self, record: Record, reason: str, rounds: int) -> None:
        """Take the row up again after a pause, a few times; then leave it to the next run."""
        run = self._run
        tried = self._rounds[record.key] = self._rounds.get(record.key, 0) + 1
        run.state.unfinished[record.key] = reason
        if tried >= rounds or run.state.stop_reason is StopReason.DISK:
            run.report_event(
                Topic.NOTE, f"{record.id}: {reason}; the next run fetches it", Level.WARNING, record
            )
            return
        wait = backoff.backoff_s(self._policy, tried)
        run.report_event(
            Topic.DOWNLOAD_RETRIED, f"{record.id}: {reason}; again in {wait:.0f} s", Level.INFO, record
        )
        run.state.downloading += 1
        self.spawn(self._push_after, record, wait)

    async def _push_after(self, record: Record, wait_s: float) -> None:
        await anyio.sleep(wait_s)
        self._run.state.downloading -= 1
        self.push(record)

    async def _fresh_url(self, key: str) -> str | None:
        """Ask the vendor again where the video is; a dead link does not mean that the video is lost."""
        run = self._run
        record = run.state.records[key]
        answer = await run.deps.api.get_status(record.generation_id)
        run.state.poll_counts[key] += 1
        if not isinstance(answer, GenerationStatus):
            if answer.http_status == 429:
                delay = parse_retry_after(answer.retry_after, now_utc=run.deps.wall())
                run.deps.rate_limit.on_rate_limited(run.deps.clock(), delay)
            return None
        if answer.phase is not Phase.COMPLETED:
            return None
        after = record.evolve(
            video_url=answer.video_url, polls=record.polls + run.state.poll_counts.pop(key, 0)
        )
        await run.commit(record, after)
        return answer.video_url
