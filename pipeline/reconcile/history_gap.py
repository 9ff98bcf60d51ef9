"""What keeps the log from showing all that an older copy of a ledger has forgotten. Pure.

It shows the requests of one key at one address, may stand still, and may not reach back far enough: what the
ledger does know, and the log ought to show, says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from pipeline.ledger.spending import ADOPTED, SubmissionState
from pipeline.reconcile.absence_proof import hidden_witnesses
from pipeline.reconcile.evidence import RETENTION_SAFE_S
from pipeline.reconcile.in_doubt import witness_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from pipeline.ledger.spending import Submission
    from pipeline.model import Record
    from pipeline.reconcile.evidence import Witness
    from pipeline.reconcile.request_log import LogPass

Origin = tuple[str, str]
"""The id of a key, and an address."""

CONSENT: Final = "add --resubmit-in-doubt to submit open rows all the same, which may pay for them twice"


@dataclass(frozen=True, slots=True)
class HistoryGap:
    """Why the log may not show what was forgotten, and what would help; `may_last`: asking again may not."""

    message: str
    remedy: str
    may_last: bool = True


class LastUse(NamedTuple):
    """Where a ledger sent its last submission, None for several in turn, and the vendor's time of that."""

    origin: Origin | None = None
    sent_at: float | None = None


def last_use(entries: Iterable[Submission]) -> LastUse:
    """Return what was used last by submissions that may be paid."""
    sent = sorted(filter(_may_be_paid, entries), key=lambda entry: entry.submitted_at or 0.0)
    origins = [_origin_of(entry) for entry in sent]
    if not origins:
        return LastUse()
    last = origins[-1]
    is_alone = set(origins[origins.index(last) :]) == {last}
    return LastUse(last if is_alone else None, max(_sent_times(sent), default=None))


def find_gap(
    log: LogPass,
    entries: Iterable[Submission],
    witnesses: Iterable[Witness],
    *,
    last: LastUse,
    now: float,
) -> HistoryGap | None:
    """Return what keeps the log from showing every submission of a batch; None when nothing speaks for that.

    `entries` and `witnesses` are all that the ledger knows, `last` is its `last_use` as it came here, before
    anything was recovered or submitted, and `now` the vendor's time.
    """
    if not log.complete:
        message = f"cannot be read: {log.error or 'it could not be read to its end'}"
        if log.refused:
            return HistoryGap(message, f"run again with a key that may read it; if there is none, {CONSENT}")
        return HistoryGap(message, "run again when it can", may_last=False)
    shown = {row.inference_id for row in log.anonymous} | log.generations_beside("")
    sent = list(filter(_may_be_paid, entries))
    # A management key's log, or that of one account by two addresses, shows several.
    origins = {(log.key_id, log.api_url)} | {_origin_of(entry) for entry in sent if entry.id in log.rows}
    others = [e for e in sent if _origin_of(e) not in origins and e.generation_id not in shown]
    # What was in use before the copy was made, and no more then, has sent nothing since.
    if others and last.origin not in origins:
        return _gap_of_others(others, log)
    due = (one for one in witnesses if (one.key_id, one.api_url) in origins and _is_kept(one, log, now))
    hidden = [one for one in hidden_witnesses(due, log) if one.generation_id not in shown]
    if hidden:
        message = f"does not show {len(hidden)} generation(s) of ours that are long finished, so it is behind"
        return HistoryGap(message, f"run again later; if it never shows them, {CONSENT}")
    return None if _reaches_back(log, sent, shown, last, now) else _gap_of_retention()


def witnesses_of(records: Iterable[Record], *, now: float, wall: float, wait_s: float) -> Sequence[Witness]:
    """Return the rows whose submission is known to be accepted; `wall` is this machine's time."""
    witnesses = (witness_of(record, now=now, wall=wall, wait_s=wait_s) for record in records)
    return [witness for witness in witnesses if witness is not None]


def _may_be_paid(entry: Submission) -> bool:
    """Return whether an entry is a submission that may be paid, and of a known key: old ledgers note none."""
    is_adopted = entry.id.startswith(ADOPTED)
    return bool(entry.key_id) and not is_adopted and entry.state is not SubmissionState.RELEASED


def _origin_of(entry: Submission) -> Origin:
    return entry.key_id, entry.api_url


def _gap_of_others(others: Sequence[Submission], log: LogPass) -> HistoryGap:
    """Name what sent them: the address where that alone differs."""
    of_another_key = [entry for entry in others if entry.api_url == log.api_url]
    if of_another_key:
        return HistoryGap(
            f"does not show {len(of_another_key)} submission(s) that were sent with another key",
            f"run again with that key; if it is gone, or there were several, {CONSENT}",
        )
    address = others[-1].api_url
    return HistoryGap(
        f"does not show {len(others)} submission(s) that were sent to another address, {address} the last",
        f"run again with --base-url {address}; if it is gone, or there were several, {CONSENT}",
    )


def _is_kept(witness: Witness, log: LogPass, now: float) -> bool:
    """Return whether the log has to show the witness, since it is not older than what is kept."""
    if witness.sent_at is None:
        return False
    is_recent = now - witness.sent_at < RETENTION_SAFE_S
    return is_recent or (log.oldest is not None and log.oldest <= witness.sent_at)


def _reaches_back(
    log: LogPass, sent: Iterable[Submission], shown: AbstractSet[str], last: LastUse, now: float
) -> bool:
    """Return whether the log goes back to what the ledger used last: what it has forgotten came later.

    Each log is kept for `RETENTION_SAFE_S`.
    """
    if last.sent_at is None or now - last.sent_at < RETENTION_SAFE_S:
        return True
    if log.oldest is not None and log.oldest <= last.sent_at:
        return True
    of_then = (entry for entry in sent if entry.vendor_sent_at == last.sent_at)
    return any(entry.id in log.rows or entry.generation_id in shown for entry in of_then)


def _sent_times(entries: Iterable[Submission]) -> Iterator[float]:
    return (entry.vendor_sent_at for entry in entries if entry.vendor_sent_at is not None)


def _gap_of_retention() -> HistoryGap:
    return HistoryGap(
        "does not go back to the last submission that the ledger knows",
        f"if this is the latest copy, {CONSENT}; else put the latest one back",
    )
