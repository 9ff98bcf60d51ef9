"""The lookers: one due-time heap, a fixed pool of workers, and what each answer sets in motion."""

from __future__ import annotations

import heapq
import json
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any

import anyio

from pipeline import backoff
from pipeline.client import GenerationStatus, Phase
from pipeline.client.responses import StatusError
from pipeline.errors import Conflict, StopReason
from pipeline.events import Level, Topic
from pipeline.model import State
from pipeline.net.retry_after import parse_retry_after
from pipeline.poll.apply_status import mark_failed, mark_ready
from pipeline.poll.duration_key import duration_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from pipeline.model import Record
    from pipeline.run_context import RunContext

KEY_REFUSALS = 3
"""How many looks in a row may be answered with 401 before looking makes no more sense."""


class PollerPool:
    """Tracks generations until they are finished, failed, or left for the next run."""

    def __init__(self, run: RunContext, ready: Callable[[Record], None]) -> None:
        self._run = run
        self._ready = ready
        self._key_refusals = 0
        self._unknown_statuses: set[str] = set()
        self._last_errors: dict[str, str] = {}
        self._deadlines: dict[str, float] = {}
        self._by_deadline: list[tuple[float, str]] = []
        self._polling: set[str] = set()
        self._final_polls: set[str] = set()
        self._deadline_added = anyio.Event()
        self._due_earlier = anyio.Event()
        self._sleeping_until = 0.0

    def backlog(self) -> int:
        """Return how many generations an earlier run left to look at."""
        return sum(record.state is State.GENERATING for record in self._run.state.records.values())

    def resume(self) -> None:
        """Track what an earlier run submitted; one look at the deadline's far side is always granted."""
        for record in list(self._run.state.records.values()):
            if record.state is State.GENERATING:
                self.track(record)

    def track(self, record: Record) -> None:
        """Count a generation as in flight and plan its looks."""
        run = self._run
        run.state.generating += 1
        since = record.accepted_at or record.submitted_at or run.deps.wall()
        self._schedule(record, max(0.0, run.deps.wall() - since))

    async def track_accepted(self, record: Record, status: GenerationStatus) -> None:
        """Follow a generation that was just accepted (and counted); its answer may say all already."""
        if status.phase in (Phase.COMPLETED, Phase.FAILED):
            self._run.state.generating -= 1
            await self._finish(record, status)
        else:
            self._schedule(record, 0.0)

    def _schedule(self, record: Record, age_s: float) -> None:
        run, now = self._run, self._run.deps.clock()
        run.deps.schedule.add(
            record.key, duration_key(record.model, json.loads(record.body)), now=now, age_s=age_s
        )
        deadline = self._deadlines[record.key] = max(run.started_at, now - age_s) + run.settings.timeout
        heapq.heappush(self._by_deadline, (deadline, record.key))
        self._deadline_added.set()
        run.state.tracked += 1
        self._wake_dispatcher()

    def _wake_dispatcher(self) -> None:
        """Wake the dispatcher when a look has become due before it meant to wake."""
        when = self._run.deps.schedule.next_due()
        if when is not None and when < self._sleeping_until:
            self._due_earlier.set()

    async def _sleep(self, now: float, wait_s: float) -> None:
        """Sleep until the next look is due, or an earlier one is planned."""
        self._due_earlier, self._sleeping_until = anyio.Event(), now + wait_s
        with anyio.move_on_after(None if wait_s == inf else wait_s):
            await self._due_earlier.wait()
        self._sleeping_until = 0.0

    async def dispatch(self, due: MemoryObjectSendStream[str]) -> None:
        """Hand out the generations whose look is due, as fast as the account takes looks."""
        run, polling, pace = self._run, self._run.deps.schedule, self._run.deps.rate_limit
        async with due:
            while True:
                now = run.deps.clock()
                when = polling.next_due()
                if when is None or when > now:
                    await self._sleep(now, inf if when is None else when - now)
                elif (wait := pace.acquire_delay_s(now)) > 0:
                    # The account may have lent another pace long before a long gap is over.
                    await anyio.sleep(min(wait, run.settings.poll_interval))
                elif (key := polling.pop_due(now)) is not None:
                    self._polling.add(key)
                    await due.send(key)

    async def expire_deadlines(self, due: MemoryObjectSendStream[str]) -> None:
        """Give each generation whose deadline comes one last look, whenever its next one was planned."""
        clock = self._run.deps.clock
        async with due:
            while True:
                self._deadline_added = anyio.Event()
                when = self._by_deadline[0][0] if self._by_deadline else inf
                if when > (now := clock()):
                    with anyio.move_on_after(None if when == inf else when - now):
                        await self._deadline_added.wait()
                    continue
                deadline, key = heapq.heappop(self._by_deadline)
                if self._deadlines.get(key) == deadline and key not in self._polling:
                    self._run.deps.schedule.drop(key, now=now)
                    self._final_polls.add(key)
                    self._polling.add(key)
                    await due.send(key)

    async def work(self, due: MemoryObjectReceiveStream[str]) -> None:
        """Look at whatever is due as long as the run lasts."""
        async with due:
            async for key in due:
                following: str | None = key
                while following is not None:
                    await self._poll(following)
                    waiting = due.statistics().current_buffer_used
                    following = None if waiting else self._next_due()

    def _next_due(self) -> str | None:
        """Take the next generation at once if one is due, without the way over the dispatcher."""
        run, now = self._run, self._run.deps.clock()
        when = run.deps.schedule.next_due()
        if when is None or when > now or run.deps.rate_limit.acquire_delay_s(now) > 0:
            return None
        key = run.deps.schedule.pop_due(now)
        if key is not None:
            self._polling.add(key)
        return key

    async def _poll(self, key: str) -> None:
        run, board = self._run, self._run.state
        record = board.records[key]
        status = await run.deps.api.get_status(record.generation_id)
        self._polling.discard(key)
        board.poll_counts[key] += 1
        if isinstance(status, StatusError):
            self._poll_failed(record, status)
            return
        run.deps.rate_limit.on_success(run.deps.clock())
        self._last_errors.pop(key, None)
        self._key_refusals = 0
        if status.phase in (Phase.COMPLETED, Phase.FAILED):
            self._untrack(record, finished=status.phase is Phase.COMPLETED)
            board.generating -= 1
            run.notify()
            await self._finish(record, status)
            return
        if status.phase is Phase.UNKNOWN:
            self._warn_unknown_status(record, status.status)
        self._still_running(record)

    def _still_running(self, record: Record) -> None:
        run, now = self._run, self._run.deps.clock()
        run.state.not_yet_at[record.key] = run.deps.wall()
        if not self._leave_if_overdue(record, now):
            run.deps.schedule.not_yet(record.key, now=now)
            self._wake_dispatcher()

    def _poll_failed(self, record: Record, error: StatusError) -> None:
        """A look that failed is not a look: it comes again soon, paced, until the deadline."""
        run, now = self._run, self._run.deps.clock()
        retry_after_s = parse_retry_after(error.retry_after, now_utc=run.deps.wall())
        run.report_event(Topic.LOOK_FAILED, f"{record.id}: {error.message}", Level.DEBUG, record)
        self._last_errors[record.key] = error.message
        if error.http_status == 429:
            run.deps.rate_limit.on_rate_limited(now, retry_after_s)
        if error.http_status == 401:
            self._key_refused(error)
        else:
            self._key_refusals = 0
        if not self._leave_if_overdue(record, now):
            run.deps.schedule.poll_failed(record.key, now=now, retry_after_s=retry_after_s)
            self._wake_dispatcher()

    def _key_refused(self, error: StatusError) -> None:
        run = self._run
        self._key_refusals += 1
        if self._key_refusals < KEY_REFUSALS:
            return
        source = run.deps.api.key.source
        run.stop_submitting(StopReason.KEY, f"the key read from {source} was refused: {error.message}")
        self._by_deadline = [(0.0, key) for key in self._deadlines]
        self._deadlines = dict.fromkeys(self._deadlines, 0.0)
        self._deadline_added.set()

    def _leave_if_overdue(self, record: Record, now: float) -> bool:
        """Leave a generation past its deadline for the next run: *not yet* is never *failed*."""
        run = self._run
        if now < self._deadlines[record.key]:
            return False
        self._untrack(record, finished=False)
        run.state.generating -= 1
        refused = run.state.stop_reason is StopReason.KEY
        status = "the key was refused" if refused else "not finished by its deadline"
        if (trouble := self._last_errors.pop(record.key, "")) and not refused:
            status += f"; the last look at it failed: {trouble}"
        run.state.overdue.add(record.key)
        run.state.unfinished[record.key] = f"{status}; the next run goes on with it"
        run.notify()
        return True

    def _untrack(self, record: Record, *, finished: bool) -> None:
        run, now = self._run, self._run.deps.clock()
        if record.key in self._final_polls:
            self._final_polls.discard(record.key)
        elif finished:
            run.deps.schedule.finished(record.key, now=now)
        else:
            run.deps.schedule.drop(record.key, now=now)
        del self._deadlines[record.key]
        run.state.tracked -= 1

    def _warn_unknown_status(self, record: Record, status: str) -> None:
        """Say once that a status is unknown; it is not final."""
        if status not in self._unknown_statuses and len(self._unknown_statuses) < 20:
            self._unknown_statuses.add(status)
            words = f"unknown status {status[:80]!r}: taken for 'not finished yet'"
            self._run.report_event(Topic.UNKNOWN_STATUS, words, Level.WARNING, record)

    async def _finish(self, record: Record, status: GenerationStatus) -> None:
        """The generation is final: write it down and hand it on."""
        run, board = self._run, self._run.state
        learned = board.take_poll_stats(record)
        board.settling += 1
        try:
            if status.phase is Phase.COMPLETED:
                after = replace(mark_ready(record, status, run.deps.wall()), **learned)
                self._ready(await run.commit(record, after))
            else:
                await self._fail_or_retry(record, status, learned)
        except Conflict:
            board.unfinished[record.key] = "another process has it"
        finally:
            board.settling -= 1
            run.notify()

    async def _fail_or_retry(
        self, record: Record, status: GenerationStatus, learned: Mapping[str, Any]
    ) -> None:
        """A failed generation is not charged: a provider's fault is worth another one, a refusal is not."""
        run = self._run
        failed = replace(mark_failed(record, status, run.deps.wall()), **learned)
        failure = failed.failure
        # Completed once is charged: a later answer that says otherwise buys no other generation.
        retryable = failure is not None and failure.retryable and failed.completed_at is None
        allowed = run.settings.generation_retries
        words = f"{record.id}: {failure.message if failure else ''}"
        if backoff.should_regenerate(
            retryable=retryable, faults=failed.faults - 1, generation_retries=allowed
        ):
            then = (
                "generating it again" if run.state.stop_reason is None else "the next run generates it again"
            )
            run.report_event(Topic.NOTE, f"{words}; {then}", Level.WARNING, record)
            again = failed.evolve(State.PENDING, failure=None, generation_id="", finished_at=None)
            await run.commit_both(record, failed, again)
            run.state.queue(again)
        else:
            await run.commit(record, failed)
