"""The pool of downloads: videos that are ready are fetched, and saved ones are checked."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio

from pipeline import backoff
from pipeline.circuit_breaker import CircuitBreaker
from pipeline.client import GenerationStatus, Phase
from pipeline.client.responses import url_fields
from pipeline.download.download_result import Deferred, DownloadResult, InvalidVideo, Saved
from pipeline.download.verify import check_saved, describe_findings, transitions_for, unreadable_rows
from pipeline.errors import Conflict, StopReason, StoreError
from pipeline.events import Level, Topic
from pipeline.media import preload_decoders
from pipeline.model import State
from pipeline.net.retry_after import parse_retry_after
from pipeline.plan import clip_urls
from pipeline.storage import TransientStoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from pipeline.model import Record, Transition
    from pipeline.run_context import RunContext

PRELOAD_AFTER_S = 1.0

MAX_ROUNDS = 5
"""How often a video that cannot be fetched is tried again in one run, further and further apart."""


class DownloaderPool:
    """Ready rows queue in a stream with room for every row, so that queuing never blocks."""

    def __init__(self, run: RunContext, ready: MemoryObjectSendStream[str]) -> None:
        self._run = run
        self._stream = ready
        self._rounds: dict[str, int] = {}
        self._policy = backoff.policy_for_interval(run.settings.poll_interval * 5)
        self._store_failed = False
        self._breaker, self._store_breaker = CircuitBreaker(), CircuitBreaker()
        self.spawn: Callable[..., object]

    def push(self, record: Record) -> None:
        """Queue a ready record for saving."""
        self._run.state.downloading += 1
        self._stream.send_nowait(record.key)

    async def resume(self) -> None:
        """Queue what an earlier run left ready, and check what it saved."""
        records = list(self._run.state.records.values())
        done = [record for record in records if record.state is State.DONE]
        self._run.state.checking_artifacts += bool(done)
        for record in records:
            if record.state is State.READY:
                self.push(record)
        if done:
            self.spawn(self._check_artifacts, [record.key for record in done])
        if self._run.deps.downloader.decodes and len(done) < len(records):
            self.spawn(self._preload_decoders)

    async def _preload_decoders(self) -> None:
        """Load what examines videos once creates are on their way: it holds the GIL for 100 ms."""
        await anyio.sleep(PRELOAD_AFTER_S)
        await anyio.to_thread.run_sync(preload_decoders)

    async def _check_artifacts(self, keys: Sequence[str]) -> None:
        """Check what earlier runs saved, while the run goes on. See `verify`."""
        run = self._run
        try:
            await self._check_in_rounds(keys)
        except StoreError as error:
            self._on_store_error(run.state.records[keys[0]], error)
        finally:
            run.state.checking_artifacts -= 1
            run.notify()

    async def _check_in_rounds(self, keys: Sequence[str]) -> None:
        """Check saved files, again after a pause if the store does not answer; then they stay as they are."""
        run = self._run
        for attempt in range(1, MAX_ROUNDS + 1):
            try:
                await run.guard_each(keys, self._breaker, self._check_saved)
            except TransientStoreError as error:
                if attempt < MAX_ROUNDS and run.state.stop_reason is None:
                    await anyio.sleep(backoff.backoff_s(self._policy, attempt))
                    continue
                reason = f"the saved video could not be checked: {error}"
                run.state.unfinished |= dict.fromkeys(keys, reason)
                message = f"{len(keys)} saved video(s) could not be checked: {error}"
                run.report_event(Topic.NOTE, message, Level.WARNING)
            return

    async def _check_saved(self, keys: Sequence[str]) -> None:
        run = self._run
        done = [record for key in keys if (record := run.state.records[key]).state is State.DONE]
        found = await check_saved(run.deps.downloader.store, done, read_all=run.settings.verify)
        for message in describe_findings(found, fetch_missing=run.settings.fetch_missing):
            run.report_event(Topic.NOTE, message, Level.WARNING)
        run.state.unfinished |= unreadable_rows(found)
        transitions = transitions_for(found, fetch_missing=run.settings.fetch_missing)
        # The ledger writes them also for a caller that is cancelled: then the table would be behind it.
        with anyio.CancelScope(shield=True):
            outcomes = await run.deps.ledger.commit_many(transitions)
        for transition, outcome in zip(transitions, outcomes, strict=True):
            self._apply_check(transition, outcome)

    def _apply_check(self, transition: Transition, outcome: Record | Conflict) -> None:
        if isinstance(outcome, Conflict):
            self._run.leave_to_other_process(transition.before.key)
            return
        self._run.on_transition(transition.before, outcome)
        if outcome.state is State.READY:
            self.push(outcome)

    async def work(self, ready: MemoryObjectReceiveStream[str]) -> None:
        """Save whatever is ready as long as the run lasts."""
        async with ready:
            async for key in ready:
                try:
                    await self._run.guard(key, self._breaker, self._download(self._run.state.records[key]))
                finally:
                    self._run.state.downloading -= 1
                    self._run.notify()

    async def _download(self, record: Record) -> None:
        run = self._run
        if self._store_failed:
            run.state.unfinished[record.key] = "not saved: the output cannot be written"
            return
        try:
            # In a later round the signed URL of the first one may have ended.
            if self._rounds.get(record.key):
                await self._fresh_urls(record.key)
                record = run.state.records[record.key]
            # In the last round a damaged copy that plays is kept: this run will get no better one.
            final = self._rounds.get(record.key, 0) + 1 >= MAX_ROUNDS
            refresh = partial(self._fresh_urls, record.key)
            result = await run.deps.downloader.download(record, refresh, final=final)
        except TransientStoreError as error:
            await self._on_transient_store_error(run.state.records[record.key], error)
            return
        except StoreError as error:
            self._on_store_error(record, error)
            return
        await self._apply_result(run.state.records[record.key], result)

    async def _apply_result(self, record: Record, result: DownloadResult) -> None:
        run = self._run
        run.state.unfinished.pop(record.key, None)
        match result:
            case Saved(artifact=artifact, note=note, is_complete=is_complete):
                self._store_breaker.on_success()
                if note:
                    run.report_event(Topic.NOTE, f"{record.id}: {note}", Level.WARNING, record)
                now = run.deps.wall()
                await run.commit(
                    record, record.evolve(State.DONE, artifact=artifact, downloaded_at=now, failure=None)
                )
                if not is_complete:
                    run.state.unfinished[record.key] = note
            # The earlier file is the better one: it stays, and the row stays done.
            case InvalidVideo(failure=failure) if record.artifact is not None:
                await self._keep_earlier(record, failure.message)
            case InvalidVideo(failure=failure):
                await run.commit(record, record.evolve(State.FAILED, failure=failure))
            case Deferred(reason=reason, retryable=again):
                await self._retry_later(record, reason, MAX_ROUNDS if again else 0)

    async def _keep_earlier(self, record: Record, reason: str) -> None:
        """A clip that was saved before and cannot be fetched again is done as it was."""
        run = self._run
        run.state.unfinished[record.key] = f"it could not be fetched again: {reason}"
        run.report_event(
            Topic.NOTE, f"{record.id}: it could not be fetched again: {reason}", Level.WARNING, record
        )
        await run.commit(record, record.evolve(State.DONE))

    def _on_store_error(self, record: Record, error: StoreError) -> None:
        """The output cannot be written or read: what is ready stays so for the next run."""
        self._store_failed = True
        self._run.state.unfinished[record.key] = str(error)
        self._run.stop_submitting(StopReason.DISK, str(error))

    async def _on_transient_store_error(self, record: Record, error: TransientStoreError) -> None:
        """Try the row again later. When one row after the other has no round left, the trouble lasts."""
        again = await self._retry_later(record, str(error), MAX_ROUNDS)
        if not again and self._store_breaker.on_crash(record.key):
            self._on_store_error(record, error)

    async def _retry_later(self, record: Record, reason: str, max_rounds: int) -> bool:
        """Try the row again after a pause, a few times; then leave it to the next run, and return False."""
        run = self._run
        attempts = self._rounds[record.key] = self._rounds.get(record.key, 0) + 1
        run.state.unfinished[record.key] = reason
        last = attempts >= max_rounds or run.state.stop_reason is StopReason.DISK
        if last and record.artifact is not None:
            await self._keep_earlier(record, reason)
            return False
        if last:
            run.report_event(
                Topic.NOTE, f"{record.id}: {reason}; the next run fetches it", Level.WARNING, record
            )
            return False
        delay_s = backoff.backoff_s(self._policy, attempts)
        run.report_event(
            Topic.DOWNLOAD_RETRIED, f"{record.id}: {reason}; again in {delay_s:.0f} s", Level.INFO, record
        )
        run.state.downloading += 1
        # Counted while it pauses: else a run with nothing else left would end without it.
        self.spawn(self._push_after, record, delay_s)
        return True

    async def _push_after(self, record: Record, wait_s: float) -> None:
        await anyio.sleep(wait_s)
        self._run.state.downloading -= 1
        self.push(record)

    async def _fresh_urls(self, key: str) -> list[str]:
        """Ask the vendor where the video is now; a dead link does not mean that the video is lost."""
        run = self._run
        record = run.state.records[key]
        status = await run.deps.api.get_status(record.generation_id)
        run.state.poll_counts[key] += 1
        if not isinstance(status, GenerationStatus):
            if status.http_status == 429:
                delay = parse_retry_after(status.retry_after, now_utc=run.deps.wall())
                run.deps.rate_limit.on_rate_limited(run.deps.clock(), delay)
            return []
        if status.phase is not Phase.COMPLETED:
            return []
        polls = record.polls + run.state.poll_counts.pop(key, 0)
        after = record.evolve(**url_fields(record, status), polls=polls)
        return clip_urls(await run.commit(record, after))
