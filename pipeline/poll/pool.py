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
from pipeline.poll.apply_status import completed, ended_badly
from pipeline.poll.duration_key import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from pipeline.model import Record
    from pipeline.run_context import Run

KEY_REFUSALS = 3
"""How many looks in a row may be answered with 401 before looking makes no more sense."""


class Looks:
    """Tracks generations until they are finished, failed, or left for the next run."""

    def __init__(self, run: Run, ready: Callable[[Record], None]) -> None:
        self._run = run
        self._ready = ready
        self._key_refusals = 0
        self._strange: set[str] = set()
        self._unanswered: dict[str, str] = {}
        self._deadlines: dict[str, float] = {}
        self._by_deadline: list[tuple[float, str]] = []
        self._looking: set[str] = set()
        self._last_looks: set[str] = set()
        self._sooner = anyio.Event()
        self._earlier = anyio.Event()
        self._asleep_until = 0.0

    def backlog(self) -> int:
        """Return how many generations an earlier run left to look at."""
        return sum(record.state is State.GENERATING for record in self._run.board.records.values())

    def take_up(self) -> None:
        """Track what an earlier run submitted; one look at the deadline's far side is always granted."""
        for record in list(self._run.board.records.values()):
            if record.state is State.GENERATING:
                self.track(record)

    def track(self, record: Record) -> None:
        """Count a generation as in flight and plan its looks."""
        run = self._run
        run.board.generating += 1
        since = record.accepted_at or record.submitted_at or run.tools.wall()
        self._follow(record, max(0.0, run.tools.wall() - since))

    async def begin(self, record: Record, look: GenerationStatus) -> None:
        """Follow a generation that was just accepted (and counted); its answer may say all already."""
        if look.phase in (Phase.COMPLETED, Phase.FAILED):
            self._run.board.generating -= 1
            await self._ended(record, look)
        else:
            self._follow(record, 0.0)

    def _follow(self, record: Record, age_s: float) -> None:
        run, now = self._run, self._run.tools.clock()
        run.tools.polling.add(
            record.key, kind_of(record.model, json.loads(record.body)), now=now, age_s=age_s
        )
        deadline = self._deadlines[record.key] = max(run.started_at, now - age_s) + run.settings.timeout
        heapq.heappush(self._by_deadline, (deadline, record.key))
        self._sooner.set()
        run.board.tracked += 1
        self._rouse()

    def _rouse(self) -> None:
        """Wake the dispatcher when a look has become due before it meant to wake."""
        when = self._run.tools.polling.next_due()
        if when is not None and when < self._asleep_until:
            self._earlier.set()

    async def _sleep(self, now: float, wait_s: float) -> None:
        """Sleep until the next look is due, or an earlier one is planned."""
        self._earlier, self._asleep_until = anyio.Event(), now + wait_s
        with anyio.move_on_after(None if wait_s == inf else wait_s):
            await self._earlier.wait()
        self._asleep_until = 0.0

    async def dispatch(self, due: MemoryObjectSendStream[str]) -> None:
        """Hand out the generations whose look is due, as fast as the account takes looks."""
        run, polling, pace = self._run, self._run.tools.polling, self._run.tools.pace
        async with due:
            while True:
                now = run.tools.clock()
                when = polling.next_due()
                if when is None or when > now:
                    await self._sleep(now, inf if when is None else when - now)
                elif (wait := pace.acquire_delay_s(now)) > 0:
                    # The account may have lent another pace long before a long gap is over.
                    await anyio.sleep(min(wait, run.settings.poll_interval))
                elif (key := polling.pop_due(now)) is not None:
                    self._looking.add(key)
                    await due.send(key)

    async def expire(self, due: MemoryObjectSendStream[str]) -> None:
        """Give each generation whose deadline comes one last look, whenever its next one was planned."""
        clock = self._run.tools.clock
        async with due:
            while True:
                self._sooner = anyio.Event()
                when = self._by_deadline[0][0] if self._by_deadline else inf
                if when > (now := clock()):
                    with anyio.move_on_after(None if when == inf else when - now):
                        await self._sooner.wait()
                    continue
                deadline, key = heapq.heappop(self._by_deadline)
                if self._deadlines.get(key) == deadline and key not in self._looking:
                    self._run.tools.polling.drop(key, now=now)
                    self._last_looks.add(key)
                    self._looking.add(key)
                    await due.send(key)

    async def work(self, due: MemoryObjectReceiveStream[str]) -> None:
        """Look at whatever is due as long as the run lasts."""
        async with due:
            async for key in due:
                following: str | None = key
                while following is not None:
                    await self._look(following)
                    waiting = due.statistics().current_buffer_used
                    following = None if waiting else self._next_due()

    def _next_due(self) -> str | None:
        """Take the next generation at once if one is due, without the way over the dispatcher."""
        run, now = self._run, self._run.tools.clock()
        when = run.tools.polling.next_due()
        if when is None or when > now or run.tools.pace.acquire_delay_s(now) > 0:
            return None
        key = run.tools.polling.pop_due(now)
        if key is not None:
            self._looking.add(key)
        return key

    async def _look(self, key: str) -> None:
        run, board = self._run, self._run.board
        record = board.records[key]
        answer = await run.tools.api.get_status(record.generation_id)
        self._looking.discard(key)
        board.polls[key] += 1
        if isinstance(answer, StatusError):
            self._nothing_seen(record, answer)
            return
        run.tools.pace.on_success(run.tools.clock())
        self._unanswered.pop(key, None)
        self._key_refusals = 0
        if answer.phase in (Phase.COMPLETED, Phase.FAILED):
            self._untrack(record, finished=answer.phase is Phase.COMPLETED)
            board.generating -= 1
            run.ring()
            await self._ended(record, answer)
            return
        if answer.phase is Phase.UNKNOWN:
            self._wonder(record, answer.status)
        self._still_running(record)

    def _still_running(self, record: Record) -> None:
        run, now = self._run, self._run.tools.clock()
        run.board.not_yet_at[record.key] = run.tools.wall()
        if not self._overdue(record, now):
            run.tools.polling.not_yet(record.key, now=now)
            self._rouse()

    def _nothing_seen(self, record: Record, trouble: StatusError) -> None:
        """A look that failed is not a look: it comes again soon, paced, until the deadline."""
        run, now = self._run, self._run.tools.clock()
        retry_after_s = parse_retry_after(trouble.retry_after, now_utc=run.tools.wall())
        run.say(Topic.LOOK_FAILED, f"{record.id}: {trouble.message}", Level.DEBUG, record)
        self._unanswered[record.key] = trouble.message
        if trouble.http_status == 429:
            run.tools.pace.on_rate_limited(now, retry_after_s)
        if trouble.http_status == 401:
            self._key_refused(trouble)
        else:
            self._key_refusals = 0
        if not self._overdue(record, now):
            run.tools.polling.look_failed(record.key, now=now, retry_after_s=retry_after_s)
            self._rouse()

    def _key_refused(self, trouble: StatusError) -> None:
        run = self._run
        self._key_refusals += 1
        if self._key_refusals < KEY_REFUSALS:
            return
        source = run.tools.api.key.source
        run.halt(StopReason.KEY, f"the key read from {source} was refused: {trouble.message}")
        self._by_deadline = [(0.0, key) for key in self._deadlines]
        self._deadlines = dict.fromkeys(self._deadlines, 0.0)
        self._sooner.set()

    def _overdue(self, record: Record, now: float) -> bool:
        """Leave a generation past its deadline for the next run: *not yet* is never *failed*."""
        run = self._run
        if now < self._deadlines[record.key]:
            return False
        self._untrack(record, finished=False)
        run.board.generating -= 1
        refused = run.board.stop is StopReason.KEY
        status = "the key was refused" if refused else "not finished by its deadline"
        if (trouble := self._unanswered.pop(record.key, "")) and not refused:
            status += f"; the last look at it failed: {trouble}"
        run.board.overdue.add(record.key)
        run.board.left[record.key] = f"{status}; the next run goes on with it"
        run.ring()
        return True

    def _untrack(self, record: Record, *, finished: bool) -> None:
        run, now = self._run, self._run.tools.clock()
        if record.key in self._last_looks:
            self._last_looks.discard(record.key)
        elif finished:
            run.tools.polling.finished(record.key, now=now)
        else:
            run.tools.polling.drop(record.key, now=now)
        del self._deadlines[record.key]
        run.board.tracked -= 1

    def _wonder(self, record: Record, status: str) -> None:
        """Say once that a status is unknown; it is not final."""
        if status not in self._strange and len(self._strange) < 20:
            self._strange.add(status)
            words = f"unknown status {status[:80]!r}: taken for 'not finished yet'"
            self._run.say(Topic.UNKNOWN_STATUS, words, Level.WARNING, record)

    async def _ended(self, record: Record, look: GenerationStatus) -> None:
        """The generation is final: write it down and hand it on."""
        run, board = self._run, self._run.board
        learned = board.looked(record)
        board.settling += 1
        try:
            if look.phase is Phase.COMPLETED:
                after = replace(completed(record, look, run.tools.wall()), **learned)
                self._ready(await run.commit(record, after))
            else:
                await self._failed(record, look, learned)
        except Conflict:
            board.left[record.key] = "another process has it"
        finally:
            board.settling -= 1
            run.ring()

    async def _failed(self, record: Record, look: GenerationStatus, learned: Mapping[str, Any]) -> None:
        """A failed generation is not charged: a provider's fault is worth another one, a refusal is not."""
        run = self._run
        failed = replace(ended_badly(record, look, run.tools.wall()), **learned)
        failure = failed.failure
        retryable = failure is not None and failure.retryable
        allowed = run.settings.generation_retries
        words = f"{record.id}: {failure.message if failure else ''}"
        if backoff.should_regenerate(
            retryable=retryable, faults=failed.faults - 1, generation_retries=allowed
        ):
            then = "generating it again" if run.board.stop is None else "the next run generates it again"
            run.say(Topic.NOTE, f"{words}; {then}", Level.WARNING, record)
            again = failed.evolve(State.PENDING, failure=None, generation_id="", finished_at=None)
            await run.commit_both(record, failed, again)
            run.board.queue(again)
        else:
            await run.commit(record, failed)
