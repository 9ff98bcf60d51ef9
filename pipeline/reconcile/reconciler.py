"""Asks the vendor's log, and where that shows too little the account's charges, about rows in doubt.

One pass serves all rows. Nothing is settled on disk here: the pool and the command commit the verdicts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, assert_never

from anyio import to_thread

from pipeline.client.responses import StatusError
from pipeline.reconcile.absence_proof import is_first_absence
from pipeline.reconcile.charges import Charges, fetch_charges
from pipeline.reconcile.evidence import Evidence, Premise, Witness, clock_error_s
from pipeline.reconcile.in_doubt import (
    AbsenceTimer,
    FailedAtVendor,
    Found,
    NeverAccepted,
    StillInDoubt,
    Verdict,
    judge,
    lacks_status,
    mark_found,
    mark_never_accepted,
    mark_never_ran,
    submission_of,
    witness_of,
)
from pipeline.reconcile.log_windows import MAX_WINDOW_S, plan_windows
from pipeline.reconcile.request_log import LogPass, fetch_log
from pipeline.submit.create import own_correlation_prefix

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from pipeline.client import Api
    from pipeline.model import Record
    from pipeline.poll.unknown_generations import UnknownIds
    from pipeline.reconcile.evidence import SubmissionInDoubt


@dataclass(frozen=True, slots=True)
class View:
    """What is known at one moment: `clock` monotonic, `now` the vendor's time or None.

    `order` counts the submissions of this process by correlation id; `generations` are the ids of all that
    the batch knows to be its own; `clock_error_s` is how wrong the times may be.
    """

    log: LogPass
    clock: float
    now: float | None
    order: Mapping[str, int]
    witnesses: Sequence[Witness] = ()
    generations: frozenset[str] = frozenset()
    charges: Charges | None = None
    clock_error_s: float = 0.0


@dataclass(slots=True)
class Reconciler:
    """Asks about the rows of one ledger, with one key.

    `load_records` reads the whole batch, for rows whose absence is otherwise about to be proven. `wait_s` is
    how long a row has to be absent; `clock` is monotonic, `wall` this machine's epoch time, `gap_s` is left
    between two requests. `key_id` says whose log it is that `key_prefix`, if any, selects. `unknown_ids`
    counts, by generation, how often what the log lists as failed was answered with 404.
    """

    api: Api
    identity: str
    wait_s: float
    clock: Callable[[], float]
    wall: Callable[[], float]
    gap_s: float
    key_id: str
    load_records: Callable[[], Awaitable[Sequence[Record]]]
    unknown_ids: UnknownIds
    key_prefix: str = ""
    timer: AbsenceTimer = field(default_factory=AbsenceTimer)
    clock_error_s: float = 0.0
    """How wrong the times were in the last pass: by that much the next one reads more of the log."""

    async def ask(
        self, in_doubt: Sequence[Record], known: Iterable[Record], order: Mapping[str, int]
    ) -> tuple[LogPass, dict[str, Verdict]]:
        """Return what one pass saw, and its verdict on each row of `in_doubt`, by the row's key.

        `known` are those records of the batch that are at hand. The network never raises.
        """
        if self.api.vendor_now() is None:
            # Any answer tells the vendor's time, by which the windows are planned.
            await self.api.log_page({"period": "24h"}, limit=1, offset=0, key_prefix=self.key_prefix)
        clock, now = self.clock(), self.api.vendor_now()
        known = list(known)
        log = await self._read_log(in_doubt, clock, now)
        if self.key_prefix:
            log = replace(log, key_id=_owner_of(log, known))
        view = await self._with_records(View(log, clock, now, order), known)
        # First from the records at hand; all records and the charges only for what is nearly proven.
        verdicts = self._judge_all(in_doubt, view)
        nearly = [record for record in in_doubt if _is_nearly_proven(verdicts[record.key])]
        if nearly:
            # Rows that have left the manifest are witnesses, too, and own their generations.
            view = await self._with_records(view, await self.load_records())
            verdicts |= self._judge_all(nearly, view)
            nearly = [record for record in nearly if isinstance(verdicts[record.key], StillInDoubt)]
        if nearly:
            spans = self._spans(map(submission_of, nearly), view.clock_error_s)
            earliest = min((start for start, _ in spans), default=0.0)
            charges = await fetch_charges(self.api, earliest, gap_s=self.gap_s)
            verdicts |= self._judge_all(nearly, replace(view, charges=charges))
        self.clock_error_s = min(view.clock_error_s, MAX_WINDOW_S)
        return log, verdicts

    async def _read_log(self, in_doubt: Sequence[Record], clock: float, now: float | None) -> LogPass:
        submissions = [submission_of(record) for record in in_doubt]
        for submission in submissions:
            self.timer.see(submission, clock)
        spans = self._spans(submissions, self.clock_error_s)
        return await fetch_log(
            self.api,
            plan_windows(spans, self.wall() if now is None else now),
            {submission.correlation_id for submission in submissions},
            own_prefix=own_correlation_prefix(self.identity),
            gap_s=self.gap_s,
            key_id=self.key_id,
            key_prefix=self.key_prefix,
        )

    async def ask_failed(
        self, in_doubt: Sequence[Record], verdicts: Mapping[str, Verdict]
    ) -> dict[str, Verdict]:
        """Return `verdicts`, after those that the log lists as failed were asked for their status.

        Whatever that says, the row goes on with that generation, whose polls confirm how it ended. Only when
        404 was all it said for as long as makes any generation unknown did it never run: until then, a
        replica that is behind may have answered.
        """
        asked = dict(verdicts)
        for record in in_doubt:
            verdict = verdicts[record.key]
            if isinstance(verdict, FailedAtVendor) and verdict.generation_id:
                asked[record.key] = await self._ask_status(record, verdict)
        return asked

    async def _ask_status(self, record: Record, failed: FailedAtVendor) -> Verdict:
        generation_id, ids = failed.generation_id, self.unknown_ids
        # A kept-alive connection leads to the same replica again.
        status = await self.api.get_status(generation_id, new_connection=True)
        if not isinstance(status, StatusError):
            ids.forget(generation_id)
            return Found(generation_id)
        now = self.clock()
        if ids.on_error(generation_id, status.http_status, now):
            ids.forget(generation_id)
            return failed
        remaining_s = ids.remaining_s(generation_id, now)
        return StillInDoubt(record, (lacks_status(generation_id, status, remaining_s),))

    def settle(self, record: Record, verdict: Verdict, *, generation_retries: int) -> Record:
        """Return what a verdict makes of its row: `record` itself when nothing changes."""
        match verdict:
            case Found(generation_id=generation_id, completed=completed):
                return mark_found(record, generation_id, completed_at=self.wall() if completed else None)
            case NeverAccepted():
                return mark_never_accepted(record)
            case StillInDoubt(record=after):
                return after
            case FailedAtVendor():
                return mark_never_ran(record, now=self.wall(), generation_retries=generation_retries)
            case unreachable:
                assert_never(unreachable)

    def _spans(self, submissions: Iterable[SubmissionInDoubt], error_s: float) -> list[tuple[float, float]]:
        """Return what log and charges have to cover, for each submission that anything dates."""
        spans = (submission.span(self.wait_s, error_s) for submission in submissions)
        return [span for span in spans if span is not None]

    async def _with_records(self, view: View, records: Sequence[Record]) -> View:
        """Add the records as witnesses, in a thread: there may be a hundred thousand."""
        make_witness = partial(witness_of, now=view.now, wall=self.wall(), wait_s=self.wait_s)

        def gather() -> View:
            found = (make_witness(record, order=view.order.get(record.correlation_id)) for record in records)
            witnesses = [witness for witness in found if witness is not None]
            generations = frozenset(record.generation_id for record in records if record.generation_id)
            error_s = clock_error_s(view.log, witnesses)
            return replace(view, witnesses=witnesses, generations=generations, clock_error_s=error_s)

        return await to_thread.run_sync(gather)

    def _judge_all(self, records: Sequence[Record], view: View) -> dict[str, Verdict]:
        return {record.key: self._judge(record, view) for record in records}

    def _judge(self, record: Record, view: View) -> Verdict:
        submission = submission_of(record, view.order.get(record.correlation_id))
        error_s = view.clock_error_s
        evidence = Evidence(
            view.log,
            self.wait_s,
            self.timer.elapsed_s(submission, view.clock, view.now, error_s=error_s),
            self.timer.apart_s(submission, view.clock, view.now, error_s=error_s),
            view.now,
            view.witnesses,
            view.charges,
            view.generations,
            error_s,
        )
        if is_first_absence(submission, evidence):
            self.timer.saw_absent(submission, view.clock)
        return judge(record, submission, evidence)


def _is_nearly_proven(verdict: Verdict) -> bool:
    """Return whether at most a second source is missing."""
    if isinstance(verdict, StillInDoubt):
        return all(missing.premise is Premise.LOG_ADVANCED for missing in verdict.missing)
    return isinstance(verdict, NeverAccepted)


def _owner_of(log: LogPass, records: Iterable[Record]) -> str:
    """Return the id of the key that sent what a log shows of ours; empty when that is nobody's or several's.

    A ledger keeps no part of a key, its prefix neither, so that the log itself has to say whose it is.
    """
    owners = {record.key_id for record in records if record.correlation_id in log.rows and record.key_id}
    return owners.pop() if len(owners) == 1 else ""
