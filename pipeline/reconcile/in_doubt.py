"""What one pass over the log makes of a row in doubt: found, never accepted, or still in doubt. Pure.

A row found proves acceptance, whichever key the log is of. A row that is missing proves nothing before
`absence_proof` holds. A row that failed at the vendor has an id too, whose status says whether it ever ran.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from pipeline.backoff import should_regenerate
from pipeline.model import Failure, Record, State
from pipeline.plan import GENERATION_UNKNOWN
from pipeline.poll.unknown_generations import NOT_FOUND
from pipeline.reconcile.absence_proof import is_first_absence, prove_absence
from pipeline.reconcile.evidence import (
    BY_HAND,
    DATE_HEADER_ERROR_S,
    LAG_SHARE,
    Missing,
    Premise,
    SubmissionInDoubt,
    Witness,
)
from pipeline.submit.create import mark_generating

if TYPE_CHECKING:
    from pipeline.client import StatusError
    from pipeline.reconcile.evidence import Evidence
    from pipeline.reconcile.request_log import LogPass

EXPLAINED: Final = " | still in doubt: "
"""Separates, in a failure's message, what the create's answer said from what is missing to settle it."""


@dataclass(frozen=True, slots=True)
class Found:
    """The vendor accepted it as `generation_id`. `completed`: the log says that it is charged."""

    generation_id: str
    completed: bool = False


@dataclass(frozen=True, slots=True)
class FailedAtVendor:
    """The log lists it as failed. The status of `generation_id` says why, or in the end that it never ran."""

    generation_id: str


@dataclass(frozen=True, slots=True)
class NeverAccepted:
    """Proven never to have been accepted."""


@dataclass(frozen=True, slots=True)
class StillInDoubt:
    """Not settled; `record` keeps what this pass has added to the proof."""

    record: Record
    missing: tuple[Missing, ...]


Verdict = Found | FailedAtVendor | NeverAccepted | StillInDoubt


def judge(record: Record, submission: SubmissionInDoubt, evidence: Evidence) -> Verdict:
    """Return what the pass says of a row in doubt."""
    row = evidence.log.rows.get(record.correlation_id)
    # First of all: a failed row has an inference id too, which must not be taken for a generation that runs.
    if row is not None and row.succeeded is False:
        return FailedAtVendor(row.inference_id)
    if row is not None and row.inference_id:
        # Two rows must not share one clip; which of them was billed, only a person can find out.
        if row.inference_id in evidence.known_generations - {record.generation_id}:
            message = f"the log names a generation that another row has: {row.inference_id}"
            return StillInDoubt(record, (Missing(Premise.GENERATION, message, BY_HAND),))
        return Found(row.inference_id, completed=row.is_charged)
    missing = prove_absence(submission, evidence)
    # Only a proof whose every premise holds sends the row again: a wrong one pays twice.
    if row is None and not missing:
        return NeverAccepted()
    if record.absent_since is None and evidence.now is not None and is_first_absence(submission, evidence):
        return StillInDoubt(record.evolve(absent_since=evidence.now), missing)
    return StillInDoubt(record, missing)


def lacks_status(generation_id: str, error: StatusError, remaining_s: float) -> Missing:
    """Return what is missing to settle a row that the log lists as failed: its status, or more of 404."""
    if error.http_status != NOT_FOUND:
        message = (
            f"the log lists it as failed, and the status of {generation_id} cannot be read: {error.message}"
        )
        return Missing(Premise.STATUS, message, "ask again later", 0.0)
    message = (
        f"the log lists it as failed, and its id {generation_id} has not been answered with 404 for long"
    )
    return Missing(Premise.STATUS, message, f"let a run ask for {remaining_s:.0f} s more", remaining_s)


def describe(missing: tuple[Missing, ...]) -> str:
    """Return in one line what is missing to settle a row, and what would supply it."""
    lasting = [m for m in missing if m.premise not in (Premise.TIME, Premise.PASSES)] or list(missing)
    remedies = dict.fromkeys(m.remedy for m in lasting)
    return f"{'; '.join(m.message for m in lasting)}. To settle it: {', and '.join(remedies)}"


def settled_message(before: Record, after: Record) -> str:
    """Return what became of a row in doubt, as a person reads it."""
    match after.state:
        case State.GENERATING:
            return "found in the vendor's log"
        case State.PENDING if after.faults > before.faults:
            return "the log lists it as failed, and nothing is charged; submitting it again"
        case State.PENDING:
            return "never accepted; submitting it again"
        case _:
            return after.failure.message if after.failure is not None else str(after.state)


def mark_explained(record: Record, reason: str) -> Record | None:
    """Return a row in doubt whose failure says what is missing to settle it; None when it already does."""
    before = record.failure.message.partition(EXPLAINED)[0] if record.failure is not None else ""
    message = f"{before}{EXPLAINED}{reason}"
    if record.failure is not None and record.failure.message == message:
        return None
    return record.evolve(failure=Failure("in_doubt", message))


def mark_found(record: Record, generation_id: str, *, completed_at: float | None = None) -> Record:
    """Return a record whose submission is known to be accepted as `generation_id`.

    `completed_at` is when the log was read, if it charged for that: a status that calls it failed
    contradicts what was charged, and buys no other.
    """
    accepted_at = record.submitted_at or record.doubted_at or 0.0
    return replace(mark_generating(record, generation_id, accepted_at), completed_at=completed_at)


def mark_never_accepted(record: Record) -> Record:
    """Return a record whose create is proven never to have been accepted."""
    return record.evolve(State.PENDING, failure=None, reserved_usd=None, doubted_at=None, absent_since=None)


def mark_never_ran(record: Record, *, now: float, generation_retries: int) -> Record:
    """Return a record whose submission the vendor lists as failed, with no generation behind it.

    It is not charged, so the rules of a failed generation hold: tried again as often as those are.
    """
    faults = record.faults + 1
    if should_regenerate(retryable=True, faults=faults - 1, generation_retries=generation_retries):
        return replace(mark_never_accepted(record), faults=faults)
    message = "the vendor's log lists the request as failed, and knows no generation of it"
    return record.evolve(
        State.FAILED,
        failure=Failure("not_accepted", message, retryable=True),
        finished_at=now,
        faults=faults,
        reserved_usd=None,
        absent_since=None,
    )


def judge_unknown_generation(
    record: Record, log: LogPass, verdict: Verdict, now: float, *, is_missing: bool
) -> Record | None:
    """Return what becomes of a generating row whose id the vendor has answered with 404 for minutes.

    None leaves it as it is. It is over when the log lists it as failed or provably never had it, which is not
    charged; and when it `is_missing` where the vendor knows others, and the whole log does not show it, which
    may be charged: then it keeps its generation. Else a status endpoint may know nothing for a while, and a
    log shows late what it shows.
    """
    row = log.rows.get(record.correlation_id)
    is_failed = row is not None and row.succeeded is False
    is_shown = log.shows(record.correlation_id, record.generation_id)
    not_charged = is_failed or (isinstance(verdict, NeverAccepted) and not is_shown)
    is_lost = is_missing and not is_shown and log.complete and not is_of_another_key(verdict)
    # Completed once is paid, whatever is known of it now.
    if record.completed_at is not None or not (not_charged or is_lost):
        return None
    says = "lists it as failed" if is_failed else "does not show it"
    advice = "" if not_charged else "; `veobatch adopt` replaces it by another"
    message = f"the vendor does not know the generation {record.generation_id} (404), and its log {says}"
    return record.evolve(
        State.FAILED,
        failure=Failure(GENERATION_UNKNOWN, f"{message}{advice}", retryable=not_charged),
        finished_at=now,
        generation_id="" if not_charged else record.generation_id,
        reserved_usd=None if not_charged else record.reserved_usd,
    )


def is_of_another_key(verdict: Verdict) -> bool:
    """Return whether the log that was read cannot show the row, whatever became of it."""
    return isinstance(verdict, StillInDoubt) and any(m.premise is Premise.KEY for m in verdict.missing)


def describe_unknown_generation(record: Record, log: LogPass, verdict: Verdict) -> str:
    """Return what is known of a generating row whose id the vendor has answered with 404 for minutes."""
    if log.shows(record.correlation_id, record.generation_id):
        says = "shows it"
    elif is_of_another_key(verdict):
        says = "is another key's: run again with the key that sent it"
    else:
        says = "does not show it" if log.complete else f"cannot be read ({log.error or 'cut short'})"
    return (
        f"the vendor does not know its generation {record.generation_id} (404), and the log {says}; "
        "the next run asks again, and `veobatch adopt --replace` puts another generation in its place"
    )


def submission_of(record: Record, order: int | None = None) -> SubmissionInDoubt:
    """Return a row's last submission as the proof sees it."""
    return SubmissionInDoubt(
        record.correlation_id,
        record.key_id,
        record.api_url,
        record.model,
        record.vendor_sent_at,
        record.submitted_at,
        record.absent_since,
        order,
    )


def witness_of(
    record: Record, *, now: float | None, wall: float, wait_s: float, order: int | None = None
) -> Witness | None:
    """Return a row as a witness; None when its submission is not known to be accepted.

    The log has to show it once it has been finished for longer than the log lags, by either clock: this
    machine's may have been set meanwhile. One that failed since neither statuses nor the log show it may not
    be shown ever.
    """
    if not (record.generation_id and record.correlation_id and record.key_id):
        return None
    is_lost = record.failure is not None and record.failure.code == GENERATION_UNKNOWN
    ended = record.state in (State.READY, State.DONE, State.FAILED) and not is_lost
    finished = ended and record.finished_at is not None
    finished_s = wall - (record.finished_at or wall)
    sent_s = 0.0 if now is None else now - (record.vendor_sent_at or now)
    return Witness(
        record.correlation_id,
        record.generation_id,
        record.key_id,
        record.api_url,
        record.vendor_sent_at,
        due=finished and (finished_s >= wait_s * LAG_SHARE or sent_s >= wait_s),
        charged=bool(record.usd_spent),
        order=order,
    )


@dataclass(slots=True)
class AbsenceTimer:
    """How long submissions have been absent: by the monotonic clock within a process, where it has seen
    enough of it, and by the vendor's clock across processes. Keyed by correlation id.

    `sent` holds the submissions of this process, for which the monotonic clock alone decides.
    """

    sent: dict[str, float] = field(default_factory=dict)
    first_seen: dict[str, float] = field(default_factory=dict)
    first_absent: dict[str, float] = field(default_factory=dict)

    def see(self, submission: SubmissionInDoubt, clock: float) -> None:
        """Record that the submission is in doubt at `clock`, monotonic seconds."""
        self.first_seen.setdefault(submission.correlation_id, clock)

    def saw_absent(self, submission: SubmissionInDoubt, clock: float) -> None:
        """Record that a pass that counts did not show it."""
        self.first_absent.setdefault(submission.correlation_id, clock)

    def elapsed_s(
        self, submission: SubmissionInDoubt, clock: float, now: float | None, *, error_s: float
    ) -> float | None:
        """Return for how long the log has had the time to show it; None when nothing measures that.

        `error_s` is how wrong the vendor's times may be (`clock_error_s`).
        """
        name = submission.correlation_id
        if name in self.sent:
            return clock - self.sent[name]
        here_s = clock - self.first_seen.get(name, clock)
        since = submission.latest_sent_at
        if now is None or since is None:
            return here_s
        return max(here_s, now - since - DATE_HEADER_ERROR_S - error_s)

    def apart_s(
        self, submission: SubmissionInDoubt, clock: float, now: float | None, *, error_s: float
    ) -> float | None:
        """Return how long ago a pass first did not show it; None when none has."""
        name, since = submission.correlation_id, submission.absent_since
        here_s = clock - self.first_absent[name] if name in self.first_absent else None
        if name in self.sent or now is None or since is None:
            return here_s
        return max(here_s or 0.0, now - since - DATE_HEADER_ERROR_S - error_s)
