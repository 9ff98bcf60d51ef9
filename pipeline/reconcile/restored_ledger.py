"""A ledger put back from a backup may have forgotten submissions: they are looked for before the next create.

The vendor's log names them, since a correlation id holds the ledger's identity and a digest of its row.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pipeline import clocks
from pipeline.errors import Conflict, StopReason, StopRun
from pipeline.model import Failure, State, Transition
from pipeline.plan import GENERATION_UNKNOWN, mark_resubmitted
from pipeline.reconcile.in_doubt import mark_found
from pipeline.reconcile.log_windows import HOUR_S, plan_windows
from pipeline.reconcile.request_log import fetch_log, parse_time
from pipeline.reconcile.unknown_rows import entries_of_unknown_rows
from pipeline.submit.create import own_correlation_prefix, row_digest
from pipeline.submit.submission_journal import NOTED_META, last_by_row, submission_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pipeline.client import Api, LogRow
    from pipeline.ledger import Ledger
    from pipeline.model import Record
    from pipeline.submit.submission_journal import JournalEntry, SubmissionJournal

LOCAL_CLOCK_ERROR_S: Final = 48 * HOUR_S
"""How wrong the local clock may have been that dated the batch."""

UNKNOWN_BEGIN_S: Final = 90 * 24 * HOUR_S
"""How far back the log is read for a batch whose beginning was not noted."""


class HistoryUnknown(StopRun):
    """Nothing may be submitted, since open rows may be paid for; what is paid may be fetched.

    `recalled` are the rows that have changed, by their keys.
    """

    def __init__(self, message: str, recalled: Mapping[str, Record]) -> None:
        super().__init__(StopReason.IN_DOUBT, message)
        self.recalled = recalled


async def recall_forgotten(
    api: Api,
    ledger: Ledger,
    records: Sequence[Record],
    journal: SubmissionJournal,
    *,
    uncertain: bool,
    key_id: str,
) -> tuple[Mapping[str, Record], str]:
    """Give rows back what their ledger may have forgotten; return those by their keys, and what to say of it.

    `uncertain` says that the folder speaks against the ledger: it came from another machine, or is a copy.
    What the vendor's log shows goes on. What only the journal shows is in doubt. Raises
    `HistoryUnknown` when the log cannot be read and no journal says which rows are concerned.
    """
    noted = await _read_unknown(ledger, records, journal)
    completed = await _recall_completions(ledger, records, noted)
    records = [completed.get(record.key, record) for record in records] if completed else records
    forgotten = find_forgotten(records, noted)
    begun_at, is_begun = await _begun_at(ledger, records)
    has_past = is_begun or any(record.submission_no for record in records)
    may_know_less = uncertain or journal.began_after(records) or (not journal.name and has_past)
    is_open = any(r.position >= 0 and r.state not in (State.READY, State.DONE) for r in records)
    # A forgotten row counts though it left the manifest: it may come back.
    if not forgotten and not (is_open and may_know_less):
        return completed, ""
    if api.vendor_now() is None:  # any answer tells the vendor's time
        await api.log_page({"period": "24h"}, limit=1, offset=0)
    now = api.vendor_now() or clocks.wall()
    recovered, error = await recover_forgotten(api, ledger, records, begun_at, now=now, key_id=key_id)
    if error and may_know_less:
        journal.of_unknown_rows = True  # the next run needs what this one could not settle
        raise HistoryUnknown(
            "the ledger may be an older copy, whose open rows may be paid for, and the vendor's "
            f"log cannot be read: {error}. Nothing more is submitted: run again when it can",
            completed,
        )
    current = [recovered.get(record.key, record) for record in records]
    doubted = await doubt_forgotten(ledger, find_forgotten(current, noted), now=clocks.wall())
    return {**completed, **recovered, **doubted}, _describe(len(recovered), len(doubted))


async def _read_unknown(
    ledger: Ledger, records: Iterable[Record], journal: SubmissionJournal
) -> Mapping[str, JournalEntry]:
    """Return each row's last submission that the ledger may not know, by the row's digest."""
    noted = await journal.read(journal.unknown_from(await ledger.meta_get(NOTED_META)))
    # Nearly all say what their rows say, too.
    known = {r.correlation_id: r.completed_at is not None for r in records} if noted else {}
    last = last_by_row(
        note
        for note in noted
        if (completed := known.get(note.correlation_id)) is None or (note.completed_at and not completed)
    )
    digests = frozenset(map(row_digest, records)) if last else frozenset()
    journal.of_unknown_rows = bool(last.keys() - digests)
    if journal.of_unknown_rows:
        known_ids = frozenset(entry.id for entry in await ledger.submissions())
        await ledger.put_submissions(entries_of_unknown_rows(noted, digests, known_ids))
    return last


async def _recall_completions(
    ledger: Ledger, records: Iterable[Record], noted: Mapping[str, JournalEntry]
) -> Mapping[str, Record]:
    """Give rows back that their generation was completed, which no status to the contrary changes."""
    notes = {note.correlation_id: note.completed_at for note in noted.values() if note.completed_at}
    made = [
        Transition(record, record.evolve(completed_at=notes[record.correlation_id]))
        for record in (records if notes else ())
        if record.state in (State.GENERATING, State.FAILED)
        and record.completed_at is None
        and record.correlation_id in notes
    ]
    if made:
        await ledger.commit_many(made)
    return {one.after.key: one.after for one in made}


def _describe(recovered: int, doubted: int) -> str:
    found = f"{recovered} row(s) were submitted by a run that this ledger does not know: they go on"
    noted = (
        f"{doubted} row(s) may have been submitted by a run that this ledger does not know: they are in doubt"
    )
    return "; ".join([found] * bool(recovered) + [noted] * bool(doubted))


async def _begun_at(ledger: Ledger, records: Sequence[Record]) -> tuple[float, bool]:
    """Return when the batch was begun, by this machine's clock, and whether that was before this run.

    It is noted in a ledger that does not say.
    """
    begun_at = await ledger.meta_get("begun_at")
    if begun_at is not None:
        return float(begun_at), True
    now, runs = clocks.wall(), int(await ledger.meta_get("runs") or 1) - 1
    known = [record.submitted_at for record in records if record.submitted_at is not None]
    first = min(known, default=now if not runs else now - UNKNOWN_BEGIN_S)
    await ledger.meta_set("begun_at", str(first))
    return first, runs > 0


def find_forgotten(
    records: Iterable[Record], last_notes: Mapping[str, JournalEntry]
) -> list[tuple[Record, JournalEntry]]:
    """Return the rows that may still be bought, and of which a later submission is noted than they know of.

    `last_notes` has each row's last one, by the row's digest.
    """
    if not last_notes:
        return []
    rows = ((record, last_notes.get(row_digest(record))) for record in records)
    return [
        (record, note)
        for record, note in rows
        if note is not None
        and note.number > record.submission_no
        and record.state not in (State.READY, State.DONE)
    ]


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


async def doubt_forgotten(
    ledger: Ledger, forgotten: Sequence[tuple[Record, JournalEntry]], *, now: float
) -> dict[str, Record]:
    """Give rows the submissions that are noted of them, in doubt; return those by their keys.

    Each step is one that the forgotten run made too. What a kill leaves of them is gone on with, or in doubt.
    """
    rows = {record.key: (record, note) for record, note in forgotten}
    for step in (_end_earlier, _queue_again, _submit, _doubt):
        made = [Transition(record, step(record, note, now)) for record, note in rows.values()]
        outcomes = await ledger.commit_many([one for one in made if one.after is not one.before])
        # Somebody else has a row that conflicts.
        taken = {outcome.key for outcome in outcomes if isinstance(outcome, Conflict)}
        rows = {r.key: (r, rows[r.key][1]) for one in made if (r := one.after).key not in taken}
    return {key: record for key, (record, _) in rows.items()}


def _end_earlier(record: Record, _: JournalEntry, now: float) -> Record:
    """Return a row whose earlier generation is over, and maybe paid: a later one leaves only then."""
    if record.state is not State.GENERATING:
        return record
    failure = Failure(GENERATION_UNKNOWN, "submitted again by a run that this ledger does not know")
    return record.evolve(State.FAILED, failure=failure, finished_at=now)


def _queue_again(record: Record, _note: JournalEntry, _now: float) -> Record:
    match record.state:
        case State.FAILED:
            forgets = {"generation_id": "", "video_url": "", "video_urls": "", "finished_at": None}
            return record.evolve(State.PENDING, failure=None, **forgets)
        case State.IN_DOUBT:
            return mark_resubmitted(record)
        case _:
            return record


def _submit(record: Record, note: JournalEntry, _: float) -> Record:
    return record.evolve(
        State.SUBMITTING,
        submission_no=submission_number(note.correlation_id),
        correlation_id=note.correlation_id,
        submitted_at=note.submitted_at,
        key_id=note.key_id,
        api_url=note.api_url,
        vendor_sent_at=note.vendor_sent_at,
        reserved_usd=note.reserved_usd,
        earlier_usd=record.usd_spent or 0.0,
        absent_since=None,
        completed_at=None,
        failure=None,
    )


def _doubt(record: Record, _: JournalEntry, now: float) -> Record:
    failure = Failure("in_doubt", "submitted by a run that this ledger does not know")
    return record.evolve(
        State.IN_DOUBT,
        failure=failure,
        doubted_at=min(now, record.submitted_at or now),
        attempts=record.attempts + 1,
    )
