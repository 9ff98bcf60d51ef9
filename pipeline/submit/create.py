"""One create: the intent on disk, the POST, its outcome on disk. No pools, no polling.

The order protects the money: `submitting` with its correlation id is durable before a byte leaves, the
outcome right after. Intent and POST lie under a shield whose deadline `set_shutdown_deadline` sets, the
outcome under one without: its commit stands even where nobody waits for it.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, assert_never

import anyio

from pipeline import clocks
from pipeline.client.account import key_id
from pipeline.client.create_result import (
    Accepted,
    AccountBlocked,
    OutcomeUnknown,
    RateLimited,
    Rejected,
    RetryableRejection,
)
from pipeline.errors import GenerationTaken, StopReason
from pipeline.model import Failure, Record, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.client import Api, CreateResult
    from pipeline.ledger import Ledger

SHUTDOWN_GRACE_S: Final = 3.0
"""How long a create in flight may still wait for its answer once the user wants out."""

MAX_INTENT_AGE_S: Final = 10.0
"""How far the clock may have gone, or been set back, between an intent and its create."""

NONCE_DIGITS: Final = 16
PROCESS_DIGITS: Final = 8

_INVALID_ID_CHARS: Final = re.compile(r"[^A-Za-z0-9_-]+")


def own_correlation_prefix(ledger_identity: str) -> str:
    """Return what every correlation id of this ledger begins with."""
    return f"vb.{ledger_identity}."


def row_digest(record: Record) -> str:
    """Return the part of a correlation id that stands for the row's key."""
    return hashlib.sha256(record.key.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def correlation_id(ledger_identity: str, record: Record, submission_no: int, nonce: str) -> str:
    """Return the id by which the vendor's log will know this submission.

    1 to 128 characters of `A-Z a-z 0-9 . _ : -`: any other character makes the vendor drop it silently.
    `nonce` keeps a ledger that was put back from a backup from using an id for a second time.
    """
    return f"{row_correlation_prefix(ledger_identity, record)}{submission_no}.{nonce}"


def row_correlation_prefix(ledger_identity: str, record: Record) -> str:
    """Return what every correlation id of a row begins with.

    The row's id is there for the reader; the hash of its key makes it unique.
    """
    readable = _INVALID_ID_CHARS.sub("-", record.id)[:48].strip("-") or "row"
    return f"{own_correlation_prefix(ledger_identity)}{readable}.{row_digest(record)}."


class Nonces:
    """Makes 64 random bits for each submission, in hexadecimal; the first half is that of the process."""

    def __init__(self) -> None:
        self._of_process = ""

    def __call__(self) -> str:
        made = clocks.token_hex(NONCE_DIGITS // 2)
        self._of_process = self._of_process or made[:PROCESS_DIGITS]
        return self._of_process + made[PROCESS_DIGITS:]


def sending_process(correlation_id: str) -> str:
    """Return what the submissions of one process have in common; "" where an id does not say.

    Ids of earlier versions are random there: no two of theirs have it in common.
    """
    nonce = correlation_id.rpartition(".")[2]
    return nonce[:PROCESS_DIGITS] if len(nonce) == NONCE_DIGITS else ""


class Submitter:
    """Submits one record at a time, any number of them concurrently."""

    def __init__(
        self,
        api: Api,
        ledger: Ledger,
        *,
        wall: Callable[[], float],
        nonce: Callable[[], str] | None = None,
        note: Callable[[Record], None] = lambda _: None,
    ) -> None:
        """`note` is told of each submission before it leaves."""
        self._api = api
        self._ledger = ledger
        self._wall = wall
        self._nonce, self._note = nonce or Nonces(), note
        self._key_id = key_id(api.key.secret, ledger.identity)
        self._shielded_scopes: set[anyio.CancelScope] = set()
        self._shutting_down = False
        self.unresolved: dict[str, Record] = {}
        """Creates whose intent is on disk and whose outcome is not, by the row's key."""

    async def submit(self, record: Record, price_usd: float | None, body: str) -> tuple[Record, CreateResult]:
        """Send `record`, pending, to the vendor; return the record as committed and the result.

        `body` is what is sent: the record's own, but with links or contents where that names files.

        Raises `Conflict` when someone else has the row, and a `StopRun` when the ledger fails: then the
        row is `submitting` on disk, and in doubt for the next run.
        """
        submitting = self._intent(record, price_usd)
        result: CreateResult = OutcomeUnknown("stopped before the answer came")
        with self._shielded():
            # On disk before the first byte leaves: after any kill, the next run asks the log.
            submitting = await self._commit_intent(record, submitting)
            # And noted outside of the ledger, which a backup may put back to before that.
            self._note(submitting)
            answered = await self._api.create(body, submitting.correlation_id)
            result = await self._check_model(submitting, answered)
        # A new shield: a create that used up the deadline of the first must still reach the disk.
        with anyio.CancelScope(shield=True):
            try:
                after = await self._commit_result(submitting, result)
            except GenerationTaken as error:
                # A cache in front of the vendor may answer with the response to another create.
                message = f"the vendor answered with another create's generation, {error.generation_id}"
                result = OutcomeUnknown(message)
                after = await self._commit_result(submitting, result)
        self.unresolved.pop(record.key, None)
        return after, result

    async def _commit_result(self, submitting: Record, result: CreateResult) -> Record:
        return await self._ledger.commit(submitting, apply_create_result(submitting, result, self._wall()))

    def _intent(self, record: Record, price_usd: float | None) -> Record:
        # Each submission gets a correlation id of its own: the log must tell a second one from the first.
        submission_no = record.submission_no + 1
        return record.evolve(
            State.SUBMITTING,
            submission_no=submission_no,
            correlation_id=correlation_id(self._ledger.identity, record, submission_no, self._nonce()),
            submitted_at=self._wall(),
            key_id=self._key_id,
            api_url=self._api.name,
            # By the vendor's clock, as its log is; this machine's may be wrong.
            vendor_sent_at=self._api.vendor_now(),
            reserved_usd=price_usd,
            earlier_usd=record.usd_spent or 0.0,
            absent_since=None,
            completed_at=None,
            failure=None,
        )

    async def _check_model(self, sent: Record, result: CreateResult) -> CreateResult:
        """Take a 404 for the model's, which stops the run and fails no row, when the vendor confirms that."""
        if not isinstance(result, Rejected) or result.failure.code != "not_found":
            return result
        message = await self._api.explain_missing_model(sent.model)
        return AccountBlocked(StopReason.MODEL, message) if message else result

    async def _commit_intent(self, record: Record, submitting: Record) -> Record:
        """Make the intent durable. One that had to wait for the ledger is dated anew before anything leaves.

        The absence of a create from the vendor's log is a proof some time after `vendor_sent_at`.
        """
        submitting = self.unresolved[record.key] = await self._ledger.commit(record, submitting)
        # A submission that seems older than it is would be proven absent too soon.
        while abs(self._wall() - (submitting.submitted_at or 0.0)) > MAX_INTENT_AGE_S:
            dated = submitting.evolve(submitted_at=self._wall(), vendor_sent_at=self._api.vendor_now())
            submitting = self.unresolved[record.key] = await self._ledger.commit(submitting, dated)
        return submitting

    @contextmanager
    def _shielded(self) -> Iterator[None]:
        """Keep cancellation out; `set_shutdown_deadline` bounds for how long."""
        with anyio.CancelScope(shield=True) as scope:
            self._shielded_scopes.add(scope)
            if self._shutting_down:
                scope.deadline = anyio.current_time() + SHUTDOWN_GRACE_S
            try:
                yield
            finally:
                self._shielded_scopes.discard(scope)

    def set_shutdown_deadline(self) -> None:
        """Bound the wait of every create in flight: the user wants out."""
        self._shutting_down = True
        for scope in self._shielded_scopes:
            scope.deadline = min(scope.deadline, anyio.current_time() + SHUTDOWN_GRACE_S)


def apply_create_result(submitted: Record, result: CreateResult, now: float) -> Record:
    """Return what a submitted record becomes by the result on its create."""
    match result:
        case Accepted(generation_id=generation_id):
            return mark_generating(submitted, generation_id, now)
        case Rejected(failure=failure, request_id=request_id):
            return submitted.evolve(
                State.FAILED,
                failure=failure,
                request_id=request_id,
                reserved_usd=None,
                finished_at=now,
                attempts=submitted.attempts + 1,
            )
        case RetryableRejection():
            # Provably not accepted: only that may give the reservation back and let the row be sent again.
            return submitted.evolve(State.PENDING, reserved_usd=None, attempts=submitted.attempts + 1)
        case RateLimited() | AccountBlocked():
            return submitted.evolve(State.PENDING, reserved_usd=None)
        case OutcomeUnknown(message=message, request_id=request_id):
            # The reservation stays, since in doubt may be paid; only the log or the user settles it.
            return submitted.evolve(
                State.IN_DOUBT,
                failure=Failure("in_doubt", message),
                request_id=request_id,
                doubted_at=now,
                attempts=submitted.attempts + 1,
            )
        case unreachable:
            assert_never(unreachable)


def mark_generating(record: Record, generation_id: str, now: float) -> Record:
    """Return a submitted or doubtful record once its generation is known."""
    attempts = record.attempts + (record.state is State.SUBMITTING)
    return record.evolve(
        State.GENERATING,
        generation_id=generation_id,
        accepted_at=now,
        failure=None,
        attempts=attempts,
        not_yet_at=None,
        finished_at=None,
        video_url="",
        video_urls="",
    )
