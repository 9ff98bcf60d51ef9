"""The savers: videos that are ready are fetched, and saved ones are checked to be still there."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio

from pipeline import backoff
from pipeline.client import GenerationStatus, Phase
from pipeline.download.downloader import NotAVideo, NotNow, Saved
from pipeline.errors import Conflict, StopReason, StoreTrouble
from pipeline.events import Level, Topic
from pipeline.model import State
from pipeline.net.retry_after import parse_retry_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from pipeline.model import Record
    from pipeline.run_context import Run

ROUNDS = 5
"""How often a video that cannot be fetched is taken up again in one run, further and further apart."""


class Saves:
    """Rows that are ready wait here, in a stream with a place for every row: handing on never blocks."""

    def __init__(self, run: Run, ready: MemoryObjectSendStream[str]) -> None:
        self._run = run
        self._stream = ready
        self._rounds: dict[str, int] = {}
        self._policy = backoff.policy_for_interval(run.settings.poll_interval * 5)
        self._store_failed = False
        self.spawn: Callable[..., object]

    def push(self, record: Record) -> None:
        """Queue a ready record for saving."""
        self._run.board.saving += 1
        self._stream.send_nowait(record.key)

    async def take_up(self, checkers: int) -> None:
        """Queue what an earlier run left ready, and check what it saved, `checkers` files at a time."""
        records = list(self._run.board.records.values())
        done = [record for record in records if record.state is State.DONE]
        self._run.board.checking += len(done)
        for record in records:
            if record.state is State.READY:
                self.push(record)
        shared = iter(done)
        for _ in range(min(checkers, len(done))):
            self.spawn(self._check_some, shared)

    async def _check_some(self, shared: Iterator[Record]) -> None:
        for record in shared:
            try:
                await self._check(record)
            except Conflict:
                self._run.board.left[record.key] = "another process has it"
            except StoreTrouble as trouble:
                self._unwritable(record, trouble)
            finally:
                self._run.board.checking -= 1
                self._run.ring()

    async def _check(self, record: Record) -> None:
        """A saved file that is missing or altered is fetched again, not generated again."""
        run = self._run
        if record.artifact is not None and await run.tools.downloader.intact(record.artifact):
            return
        path = record.artifact.path if record.artifact else "its video"
        run.say(
            Topic.NOTE, f"{record.id}: {path} is missing or altered: fetching it again", Level.WARNING, record
        )
        self.push(await run.commit(record, record.evolve(State.READY, artifact=None, downloaded_at=None)))

    async def work(self, ready: MemoryObjectReceiveStream[str]) -> None:
        """Save whatever is ready as long as the run lasts."""
        async with ready:
            async for key in ready:
                try:
                    await self._save(self._run.board.records[key])
                except Conflict:
                    self._run.board.left[key] = "another process has it"
                finally:
                    self._run.board.saving -= 1
                    self._run.ring()

    async def _save(self, record: Record) -> None:
        run = self._run
        if self._store_failed:
            run.board.left[record.key] = "not saved: the output cannot be written"
            return
        try:
            if self._rounds.get(record.key):
                await self._fresh_url(record.key)
                record = run.board.records[record.key]
            result = await run.tools.downloader.download(record, partial(self._fresh_url, record.key))
        except StoreTrouble as trouble:
            self._unwritable(record, trouble)
            return
        record = run.board.records[record.key]
        run.board.left.pop(record.key, None)
        match result:
            case Saved(artifact=artifact, note=note):
                if note:
                    run.say(Topic.NOTE, f"{record.id}: {note}", Level.WARNING, record)
                now = run.tools.wall()
                await run.commit(
                    record, record.evolve(State.DONE, artifact=artifact, downloaded_at=now, failure=None)
                )
            case NotAVideo(failure=failure):
                await run.commit(record, record.evolve(State.FAILED, failure=failure))
            case NotNow(reason=reason, again=again):
                self._later(record, reason, ROUNDS if again else 0)

    def _unwritable(self, record: Record, trouble: StoreTrouble) -> None:
        """The place itself will not take or give bytes: what is ready stays so, for the next run."""
        self._store_failed = True
        self._run.board.left[record.key] = str(trouble)
        self._run.halt(StopReason.DISK, str(trouble))

    def _later(self, record: Record, reason: str, rounds: int) -> None:
        """Take the row up again after a pause, a few times; then leave it to the next run."""
        run = self._run
        tried = self._rounds[record.key] = self._rounds.get(record.key, 0) + 1
        run.board.left[record.key] = reason
        if tried >= rounds or run.board.stop is StopReason.DISK:
            run.say(Topic.NOTE, f"{record.id}: {reason}; the next run fetches it", Level.WARNING, record)
            return
        wait = backoff.backoff_s(self._policy, tried)
        run.say(Topic.DOWNLOAD_RETRIED, f"{record.id}: {reason}; again in {wait:.0f} s", Level.INFO, record)
        run.board.saving += 1
        self.spawn(self._push_after, record, wait)

    async def _push_after(self, record: Record, wait_s: float) -> None:
        await anyio.sleep(wait_s)
        self._run.board.saving -= 1
        self.push(record)

    async def _fresh_url(self, key: str) -> str | None:
        """Ask the vendor again where the video is; a dead link does not mean that the video is lost."""
        run = self._run
        record = run.board.records[key]
        answer = await run.tools.api.get_status(record.generation_id)
        run.board.polls[key] += 1
        if not isinstance(answer, GenerationStatus):
            if answer.http_status == 429:
                delay = parse_retry_after(answer.retry_after, now_utc=run.tools.wall())
                run.tools.pace.on_rate_limited(run.tools.clock(), delay)
            return None
        if answer.phase is not Phase.COMPLETED:
            return None
        after = record.evolve(video_url=answer.video_url, polls=record.polls + run.board.polls.pop(key, 0))
        await run.commit(record, after)
        return answer.video_url
