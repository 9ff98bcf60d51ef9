"""A ledger put back from a backup may have forgotten submissions: they are looked for before the next create.

The vendor's log names them, since a correlation id holds the ledger's identity and a digest of its row.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from pipeline import clocks
from pipeline.errors import StopReason, StopRun
from pipeline.model import State, Transition
from pipeline.reconcile.history_gap import find_gap, last_use, witnesses_of
from pipeline.reconcile.in_doubt import mark_found
from pipeline.reconcile.log_windows import HOUR_S, plan_windows
from pipeline.reconcile.noted_submissions import doubt_forgotten
from pipeline.reconcile.request_log import fetch_log, parse_time
from pipeline.reconcile.uncertain_history import OpenQuestion, note_question, note_uncertain, settle_question
from pipeline.reconcile.unknown_rows import entries_of_unknown_rows
from pipeline.submit.create import own_correlation_prefix, row_digest
from pipeline.submit.submission_journal import NOTED_META, last_by_row, submission_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pipeline.client import Api, LogRow
    from pipeline.ledger import Ledger
    from pipeline.ledger.spending import Submission
    from pipeline.model import Record
    from pipeline.reconcile.history_gap import HistoryGap
    from pipeline.reconcile.request_log import LogPass
    from pipeline.submit.submission_journal import JournalEntry, SubmissionJournal

LOCAL_CLOCK_ERROR_S: Final = 48 * HOUR_S
"""How wrong the local clock may have been that dated the batch."""

UNKNOWN_BEGIN_S: Final = 90 * 24 * HOUR_S
"""How far back the log is read for a batch whose beginning was not noted."""


class HistoryUnknown(StopRun):
    """Nothing may be submitted, since open rows may be paid for; what is paid may be fetched.

    `recalled` are the rows that have changed, by their keys, and `note` says how. `consent` is what to say
    when the user has rows submitted all the same, "" where running again will tell.
    """

    def __init__(self, gap: HistoryGap, recalled: Mapping[str, Record], note: str) -> None:
        reason = (
            "the ledger may be an older copy, and its open rows may be paid for already. "
            f"The vendor's log {gap.message}"
        )
        super().__init__(StopReason.IN_DOUBT, f"{reason}. Nothing more is submitted: {gap.remedy}")
        self.recalled, self.note = recalled, note
        self.consent = (
            f"{reason}. Open rows are submitted, as --resubmit-in-doubt asks" if gap.may_last else ""
        )


async def recall_forgotten(
    api: Api,
    ledger: Ledger,
    records: Sequence[Record],
    journal: SubmissionJournal,
    *,
    uncertain: OpenQuestion | None,
    key_id: str,
    wait_s: float,
) -> tuple[Mapping[str, Record], str]:
    """Give rows back what their ledger may have forgotten; return those by their keys, and what to say of it.

    What the vendor's log shows goes on, what only the journal shows is in doubt. Raises `HistoryUnknown` when
    there may be more, as `uncertain` may say, and the log does not show all that it had `wait_s` to show.
    """
    noted = await _read_unknown(ledger, records, journal)
    completed = await _recall_completions(ledger, records, noted)
    records = [completed.get(record.key, record) for record in records] if completed else records
    forgotten = find_forgotten(records, noted)
    begun_at, is_begun = await _begun_at(ledger, records)
    may_know_less = _knows_less(journal, records, uncertain, is_begun=is_begun)
    is_open = any(r.position >= 0 and r.state not in (State.READY, State.DONE) for r in records)
    # A forgotten row counts though it left the manifest: it may come back.
    if not forgotten and not (is_open and may_know_less):
        await _leave(ledger, uncertain, may_know_less=may_know_less)
        return completed, ""
    now, entries = await _now(api), await ledger.submissions()
    log, recovered = await recover_forgotten(api, ledger, records, entries, begun_at, now=now, key_id=key_id)
    current = [recovered.get(record.key, record) for record in records]
    doubted = await doubt_forgotten(ledger, find_forgotten(current, noted), now=clocks.wall())
    recalled, note = {**completed, **recovered, **doubted}, _describe(len(recovered), len(doubted))
    question = uncertain or OpenQuestion(last_use(entries))
    witnesses = witnesses_of(records, now=now, wall=clocks.wall(), wait_s=wait_s) if may_know_less else ()
    if may_know_less and (gap := find_gap(log, entries, witnesses, last=question.last, now=now)) is not None:
        journal.of_unknown_rows = True  # the next run needs what this one could not settle
        await note_question(ledger, question)
        raise HistoryUnknown(gap, recalled, note)
    if uncertain is not None:
        await settle_question(ledger)
    return recalled, note


async def _leave(ledger: Ledger, uncertain: OpenQuestion | None, *, may_know_less: bool) -> None:
    """Leave the question to a run that may submit: a journal that is begun now says nothing of it."""
    if may_know_less:
        await note_uncertain(ledger)
    elif uncertain is not None:
        await settle_question(ledger)


async def _now(api: Api) -> float:
    """Return the vendor's time, or this machine's where no answer tells that."""
    if api.vendor_now() is None:
        await api.log_page({"period": "24h"}, limit=1, offset=0)
    return api.vendor_now() or clocks.wall()


def _knows_less(
    journal: SubmissionJournal, records: Sequence[Record], uncertain: OpenQuestion | None, *, is_begun: bool
) -> bool:
    """Return whether the ledger has a past that this machine's journal does not have, or more of it."""
    has_past = is_begun or any(record.submission_no for record in records)
    is_asked = uncertain is not None and uncertain.alone
    return is_asked or journal.began_after(records) or (not journal.name and has_past)


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
    api: Api,
    ledger: Ledger,
    records: Sequence[Record],
    entries: Iterable[Submission],
    begun_at: float,
    *,
    now: float,
    key_id: str,
) -> tuple[LogPass, Mapping[str, Record]]:
    """Give rows the submissions that their ledger has forgotten; return the log, and those by their keys.

    `entries` are all that the ledger knows. `begun_at` is when the batch was begun, by this machine's clock;
    `now` is the vendor's where it is known.
    """
    known = [entry.id for entry in entries] + [r.correlation_id for r in records]
    windows = plan_windows([(begun_at - LOCAL_CLOCK_ERROR_S, now + HOUR_S)], now)
    log = await fetch_log(api, windows, (), own_prefix=own_correlation_prefix(ledger.identity), key_id=key_id)
    if not log.complete:
        return log, {}
    transitions = match_forgotten(records, log.rows, known, ledger.identity)
    transitions = [
        Transition(one.before, replace(one.after, key_id=key_id, api_url=api.name)) for one in transitions
    ]
    await ledger.commit_many(transitions)
    return log, {one.after.key: one.after for one in transitions}
