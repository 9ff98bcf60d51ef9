"""A ledger put back from a backup may have forgotten submissions: they are looked for before the next create.

The vendor's log names them, since a correlation id holds the ledger's identity and a digest of its row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.model import State, Transition
from pipeline.reconcile.in_doubt import mark_found
from pipeline.reconcile.log_windows import HOUR_S, plan_windows
from pipeline.reconcile.request_log import fetch_log, parse_time
from pipeline.submit.create import own_correlation_prefix, row_digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pipeline.client import Api, LogRow
    from pipeline.ledger import Ledger
    from pipeline.model import Record

LOCAL_CLOCK_ERROR_S = 48 * HOUR_S
"""How wrong the local clock may have been that dated the batch."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What this machine remembers of a ledger: its runs, its submissions, and when it saw the last one.

    `at` is by the vendor's clock, epoch seconds, 0.0 where that was not known; `key_ids` are the keys used.
    """

    runs: int
    submissions: int
    at: float = 0.0
    key_ids: frozenset[str] = frozenset()


def may_have_forgotten(
    records: Iterable[Record], runs: int, memory: Memory | None, *, uncertain: bool = False
) -> bool:
    """Return whether a past that the ledger does not know may have submitted rows that it calls pending.

    `runs` is how many earlier runs the ledger knows of; `uncertain` says that the folder speaks against it:
    it came from another machine, or is a copy. A batch that begins has no past; one that this machine does
    not remember, or remembers as further than the ledger is, may have one.
    """
    submissions = sum(record.submission_no for record in records)
    if memory is None:
        return uncertain or runs > 0 or submissions > 0
    return uncertain or runs < memory.runs or submissions < memory.submissions


def match_forgotten(
    records: Iterable[Record], rows: Mapping[str, LogRow], known: Iterable[str], identity: str
) -> list[Transition]:
    """Return the transitions that give open and failed rows the generations that the log shows of them.

    Rows in doubt or under way count too: since then they may have been settled and submitted again.
    `known` are the correlation ids that the ledger has; what failed at the vendor is not charged, and left.
    Of several generations of one row the newest is taken; `costs` lists the others.
    """
    prefix, known_ids = own_correlation_prefix(identity), frozenset(known)
    found: dict[str, LogRow] = {}
    for name, row in rows.items():
        digest = name.removeprefix(prefix).split(".")[1:2]
        if name in known_ids or row.succeeded is False or not row.inference_id or not digest:
            continue
        if digest[0] not in found or found[digest[0]].created < row.created:
            found[digest[0]] = row
    transitions = []
    for record in records:
        forgotten = found.get(row_digest(record))
        if record.state not in (State.READY, State.DONE) and forgotten is not None:
            transitions.append(Transition(record, _with_submission(record, forgotten)))
    return transitions


def submission_number(correlation_id: str) -> int:
    """Return which submission of its row a correlation id names, 0 when it does not say."""
    number = correlation_id.split(".")[4:5]
    return int(number[0]) if number and number[0].isdecimal() else 0


def _with_submission(record: Record, row: LogRow) -> Record:
    """Return a row with a submission that its ledger had forgotten, and the generation of it."""
    sent_at = parse_time(row.created)
    intent = submission_number(row.client_request_id) or record.submission_no + 1
    return replace(
        mark_found(record, row.inference_id),
        correlation_id=row.client_request_id,
        submission_no=max(record.submission_no, intent),
        attempts=record.attempts + 1,
        submitted_at=sent_at,
        accepted_at=sent_at,
        vendor_sent_at=sent_at,
        # A completion that was seen is forgotten as well, and the log says what was charged.
        completed_at=(sent_at or 0.0) if row.is_charged else None,
        earlier_usd=record.usd_spent or 0.0,
    )


async def recover_forgotten(
    api: Api, ledger: Ledger, records: Sequence[Record], begun_at: float, *, now: float, key_id: str
) -> tuple[Mapping[str, Record], str]:
    """Give rows the submissions that their ledger has forgotten; return those by their keys, and why it
    failed if so.

    `begun_at` is when the batch was begun, by this machine's clock; `now` is the vendor's where it is known.
    """
    known = [entry.id for entry in await ledger.submissions()] + [r.correlation_id for r in records]
    windows = plan_windows([(begun_at - LOCAL_CLOCK_ERROR_S, now + HOUR_S)], now)
    log = await fetch_log(api, windows, (), own_prefix=own_correlation_prefix(ledger.identity), key_id=key_id)
    if not log.complete:
        return {}, log.error or "the log could not be read to its end"
    transitions = match_forgotten(records, log.rows, known, ledger.identity)
    transitions = [
        Transition(one.before, replace(one.after, key_id=key_id, api_url=api.name)) for one in transitions
    ]
    await ledger.commit_many(transitions)
    return {one.after.key: one.after for one in transitions}, ""
