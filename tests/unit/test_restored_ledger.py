"""A ledger that has forgotten submissions: when it may have, and how the log gives them back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest

from pipeline.client import LogRow
from pipeline.client.responses import StatusError
from pipeline.errors import Conflict, LedgerError, StopRun
from pipeline.model import Record, State
from pipeline.reconcile.history_gap import LastUse
from pipeline.reconcile.noted_submissions import doubt_forgotten
from pipeline.reconcile.restored_ledger import (
    HistoryUnknown,
    find_forgotten,
    match_forgotten,
    recall_forgotten,
)
from pipeline.reconcile.uncertain_history import OpenQuestion
from pipeline.submit import submission_journal
from pipeline.submit.create import correlation_id
from pipeline.submit.submission_journal import JournalEntry, SubmissionJournal
from tests.unit.samples import record
from tests.unit.vendor_history import iso

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.client import Api
    from pipeline.ledger import Ledger
    from pipeline.ledger.spending import Submission
    from pipeline.model import Transition

IDENTITY = "cafe"
SENT_AT = 1_800_000_000.0
WAIT_S = 2700.0
PENDING = record(State.PENDING, "row", 0)
SUBMITTED = record(State.DONE, "done", 1, submission_no=3)


def noted(of: Record, number: int, nonce: str = "n") -> JournalEntry:
    return JournalEntry(correlation_id(IDENTITY, of, number, nonce), "k1", "api", 5.0, SENT_AT, 1.2)


def by_row(*notes: JournalEntry) -> dict[str, JournalEntry]:
    return {note.correlation_id.split(".")[3]: note for note in notes}


@pytest.mark.parametrize(
    ("row", "number", "is_forgotten"),
    [
        (PENDING, 1, True),
        (replace(PENDING, submission_no=1), 1, False),
        (replace(PENDING, submission_no=1), 2, True),
        (record(State.GENERATING, "row", submission_no=1), 2, True),
        (record(State.IN_DOUBT, "row", submission_no=1), 1, False),
        (record(State.FAILED, "row", submission_no=1), 2, True),
        (record(State.DONE, "row", submission_no=1), 2, False),
        (record(State.READY, "row", submission_no=1), 2, False),
    ],
)
def test_a_row_has_forgotten_a_submission_that_is_later_than_its_own(
    row: Record, number: int, *, is_forgotten: bool
) -> None:
    note = noted(PENDING, number)
    assert find_forgotten([SUBMITTED, row], by_row(note)) == ([(row, note)] if is_forgotten else [])


def logged(of: Record, number: int, *, succeeded: bool = True, at: float = SENT_AT) -> dict[str, LogRow]:
    name = correlation_id(IDENTITY, of, number, "n")
    return {name: LogRow(name, f"g-{number}", "r", succeeded, "m", iso(at), 1.2 * succeeded)}


def test_pending_row_gets_its_forgotten_generation() -> None:
    [step] = match_forgotten([PENDING, SUBMITTED], logged(PENDING, 2), (), IDENTITY)
    after = step.after
    assert (after.key, after.state, after.generation_id) == (PENDING.key, State.GENERATING, "g-2")
    assert (after.submission_no, after.vendor_sent_at, after.submitted_at) == (2, SENT_AT, SENT_AT)
    assert after.correlation_id == correlation_id(IDENTITY, PENDING, 2, "n")


def test_newest_of_several_generations_is_taken() -> None:
    rows = logged(PENDING, 2, at=SENT_AT + 5) | logged(PENDING, 1)
    assert match_forgotten([PENDING], rows, (), IDENTITY)[0].after.generation_id == "g-2"


@pytest.mark.parametrize("state", [State.GENERATING, State.IN_DOUBT])
def test_row_under_way_or_in_doubt_gets_what_was_submitted_since(state: State) -> None:
    """Since the copy was made its submission may have failed, or been proven absent, and been made again."""
    [step] = match_forgotten([record(state, "row")], logged(PENDING, 2), (), IDENTITY)
    assert (step.after.state, step.after.generation_id) == (State.GENERATING, "g-2")


@pytest.mark.parametrize("state", [State.DONE, State.READY])
def test_rows_that_have_their_clip_are_left(state: State) -> None:
    assert match_forgotten([record(state, "row")], logged(PENDING, 2), (), IDENTITY) == []


def test_what_is_known_or_failed_or_another_ledgers_is_left() -> None:
    rows = logged(PENDING, 1)
    assert match_forgotten([PENDING], rows, rows, IDENTITY) == []
    assert match_forgotten([PENDING], logged(PENDING, 1, succeeded=False), (), IDENTITY) == []
    assert match_forgotten([record(State.PENDING, "another")], rows, (), IDENTITY) == []


def test_what_the_log_charges_for_is_completed() -> None:
    """A status that calls it failed from now on buys no other."""
    [step] = match_forgotten([PENDING], logged(PENDING, 1), (), IDENTITY)
    assert step.after.completed_at == SENT_AT
    name, row = logged(PENDING, 1).popitem()
    [step] = match_forgotten([PENDING], {name: replace(row, usd=0.0)}, (), IDENTITY)
    assert step.after.completed_at is None


class CommittingLedger:
    """Takes each step that is legal, and has some rows that are somebody else's."""

    def __init__(self, *taken: str) -> None:
        self.steps: list[tuple[State, State]] = []
        self._taken = taken

    async def commit_many(self, transitions: Sequence[Transition]) -> list[Record | Conflict]:
        self.steps += [(one.before.state, one.after.state) for one in transitions]
        return [Conflict(one.after.key) if one.after.key in self._taken else one.after for one in transitions]


@pytest.mark.parametrize("state", [State.PENDING, State.GENERATING, State.FAILED, State.IN_DOUBT])
async def test_what_is_only_noted_is_in_doubt(state: State) -> None:
    row = record(state, "row", submission_no=1, correlation_id="first")
    ledger: Any = CommittingLedger()
    [after] = (await doubt_forgotten(ledger, [(row, noted(PENDING, 2))], now=9.0)).values()
    assert (after.state, after.submission_no, after.key_id, after.api_url) == (State.IN_DOUBT, 2, "k1", "api")
    assert (after.vendor_sent_at, after.reserved_usd) == (SENT_AT, 1.2)
    assert after.correlation_id == correlation_id(IDENTITY, PENDING, 2, "n")
    assert ledger.steps[-2:] == [(State.PENDING, State.SUBMITTING), (State.SUBMITTING, State.IN_DOUBT)]


async def test_a_row_that_somebody_else_has_is_left_to_them() -> None:
    ledger: Any = CommittingLedger(PENDING.key)
    assert await doubt_forgotten(ledger, [(PENDING, noted(PENDING, 1))], now=9.0) == {}


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SubmissionJournal:
    monkeypatch.setattr(submission_journal, "MARK_BYTES", 1)
    monkeypatch.setattr(submission_journal, "journal_path", lambda identity: tmp_path / "state" / identity)
    return SubmissionJournal(IDENTITY)


async def unknown(mark: str | None) -> list[JournalEntry]:
    """Return what a ledger with this mark may not know."""
    journal = SubmissionJournal(IDENTITY)
    return await journal.read(journal.unknown_from(mark))


class MetaLedger(CommittingLedger):
    identity = IDENTITY

    def __init__(self) -> None:
        super().__init__()
        self.meta: dict[str, str] = {}

    async def submissions(self) -> list[Submission]:
        return []

    async def meta_get(self, name: str) -> str | None:
        return self.meta.get(name)

    async def meta_set(self, name: str, value: str) -> None:
        self.meta[name] = value

    @property
    def mark(self) -> str | None:
        return self.meta.get("noted")


def sent(number: int) -> Record:
    name = correlation_id(IDENTITY, PENDING, number, "n")
    row = replace(PENDING, correlation_id=name, submission_no=number, reserved_usd=1.2)
    return replace(row, key_id="k1", api_url="api", submitted_at=5.0, vendor_sent_at=SENT_AT)


async def test_a_ledger_meets_the_notes_that_it_does_not_know(journal: SubmissionJournal) -> None:
    """Each is written at once: a run may be killed while its create is on its way."""
    ledger: Any = MetaLedger()
    assert await unknown(None) == []
    await journal.take_over(ledger, [PENDING])
    older = ledger.mark
    journal.append(sent(1))
    assert await unknown(older) == [noted(PENDING, 1)]
    await journal.mark(ledger)
    journal.append(sent(2))
    assert await unknown(ledger.mark) == [noted(PENDING, 2)]
    assert await unknown(older) == [noted(PENDING, 1), noted(PENDING, 2)]


async def test_notes_that_begin_late_know_how_much_was_submitted_before(journal: SubmissionJournal) -> None:
    """A ledger that came here from elsewhere may be put back to a copy from before it came."""
    ledger: Any = MetaLedger()
    await journal.take_over(ledger, [PENDING, sent(3)])
    later = SubmissionJournal(IDENTITY)
    assert await later.read(later.unknown_from("another 77")) == []
    assert later.began_after([PENDING, sent(2)])
    assert not later.began_after([PENDING, sent(3)])
    assert not SubmissionJournal("of another ledger").began_after([])


async def test_a_mark_of_another_file_or_beyond_its_end_says_nothing(
    journal: SubmissionJournal, tmp_path: Path
) -> None:
    ledger: Any = MetaLedger()
    await journal.take_over(ledger, [])
    journal.append(sent(1))
    name = ledger.mark.split()[0]
    for mark in (None, "", "other 99", name, f"{name} x", f"{name} 99999"):
        assert await unknown(mark) == [noted(PENDING, 1)], mark


async def test_a_torn_note_costs_no_other(journal: SubmissionJournal, tmp_path: Path) -> None:
    ledger: Any = MetaLedger()
    await journal.take_over(ledger, [])
    path = tmp_path / "state" / IDENTITY
    for torn in (b'\n["vb.cafe', b"\n{}", b"\n12", b"\n[1]", b"\n\xff\x00"):
        path.write_bytes(path.read_bytes() + torn)
    journal.append(sent(1))
    assert await unknown(ledger.mark) == [noted(PENDING, 1)]


async def test_what_cannot_be_written_comes_with_the_next_note(
    journal: SubmissionJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger: Any = MetaLedger()
    await journal.take_over(ledger, [])
    with monkeypatch.context() as full:
        full.setattr(submission_journal, "append_to_journal", raise_full)
        journal.append(sent(1))
    journal.append(sent(2))
    assert await unknown(ledger.mark) == [noted(PENDING, 1), noted(PENDING, 2)]


def raise_full(path: Path, lines: Sequence[bytes]) -> int:
    raise OSError(28, "No space left on device")


async def test_a_note_of_a_row_that_the_ledger_lacks_is_read_again(journal: SubmissionJournal) -> None:
    """A row may have left the manifest meanwhile, and come back."""
    ledger: Any = MetaLedger()
    await journal.take_over(ledger, [])
    before = ledger.mark
    journal.append(sent(1))
    journal.of_unknown_rows = True
    await journal.mark(ledger)
    assert ledger.mark == before


@pytest.mark.parametrize("position", [0, -1])
async def test_a_noted_row_is_in_doubt_though_no_log_can_be_read_and_though_it_left_the_manifest(
    journal: SubmissionJournal, position: int
) -> None:
    ledger, row = MetaLedger(), replace(PENDING, position=position)
    await journal.take_over(cast("Ledger", ledger), [row])
    journal.append(sent(1))
    later = SubmissionJournal(IDENTITY)
    found, message = await recall_forgotten(
        cast("Api", SilentApi()),
        cast("Ledger", ledger),
        [row],
        later,
        uncertain=None,
        key_id="k1",
        wait_s=WAIT_S,
    )
    assert [(one.state, one.correlation_id) for one in found.values()] == [
        (State.IN_DOUBT, sent(1).correlation_id)
    ]
    assert "1 row(s) may have been submitted" in message
    await later.take_over(cast("Ledger", ledger), found.values())
    assert await unknown(ledger.mark) == []


class SilentApi:
    name = "api"

    def vendor_now(self) -> float | None:
        return SENT_AT

    async def log_page(self, *_: object, **__: object) -> StatusError:
        return StatusError(503, "away")


async def test_a_ledger_without_notes_waits_for_the_log(journal: SubmissionJournal) -> None:
    with pytest.raises(StopRun, match="cannot be read"):
        await recall_forgotten(
            cast("Api", SilentApi()),
            cast("Ledger", MetaLedger()),
            [replace(PENDING, submission_no=1)],
            journal,
            uncertain=None,
            key_id="k1",
            wait_s=WAIT_S,
        )


async def test_few_notes_are_read_again_rather_than_marked(
    journal: SubmissionJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission_journal, "MARK_BYTES", 1000)
    ledger: Any = MetaLedger()
    await journal.take_over(ledger, [])
    for number in range(1, 21):
        journal.append(sent(number))
        await journal.mark(ledger)
        assert number == 1 or (await unknown(ledger.mark))[-1:] in ([], [noted(PENDING, number)])
    assert 1 <= len(await unknown(ledger.mark)) < 20


@pytest.mark.parametrize("state", [State.GENERATING, State.FAILED])
async def test_a_completion_that_an_older_ledger_forgot_is_recalled(
    journal: SubmissionJournal, state: State
) -> None:
    """Statuses that call it failed from now on buy no other, and neither does another try."""
    ledger, row = MetaLedger(), replace(sent(1), state=state, generation_id="g")
    await journal.take_over(cast("Ledger", ledger), [row])
    journal.append(row)
    journal.on_transition(row, replace(row, state=State.READY, completed_at=7.0))
    found, message = await recall_forgotten(
        cast("Api", SilentApi()),
        cast("Ledger", ledger),
        [row],
        SubmissionJournal(IDENTITY),
        uncertain=None,
        key_id="k1",
        wait_s=WAIT_S,
    )
    assert [(one.state, one.completed_at) for one in found.values()] == [(state, 7.0)]
    assert message == ""


@pytest.mark.parametrize("on_cluster", [False, True])
async def test_a_submission_and_its_completion_are_noted_once_each(
    journal: SubmissionJournal, *, on_cluster: bool
) -> None:
    """On a cluster a worker on another machine notes it there, and the driver once it is told."""
    ledger: Any = MetaLedger()
    await journal.take_over(ledger, [])
    submitting = replace(sent(1), state=State.SUBMITTING)
    generating = replace(submitting, state=State.GENERATING)
    ready = replace(generating, state=State.READY, completed_at=7.0)
    observer = SubmissionJournal(IDENTITY, on_cluster=on_cluster)
    if not on_cluster:
        observer.append(submitting)
    for before, after in (
        (PENDING, generating),
        (generating, ready),
        (ready, replace(ready, state=State.DONE)),
    ):
        observer.on_transition(before, after)
    first = noted(PENDING, 1)
    assert await unknown(None) == [first, first._replace(completed_at=7.0)]


async def test_who_has_not_begun_the_notes_begins_none(journal: SubmissionJournal, tmp_path: Path) -> None:
    """A file without its name would be read anew at each start, on a machine that a batch only works on."""
    journal.append(sent(1))
    assert not (tmp_path / "state").exists()
    await SubmissionJournal(IDENTITY).take_over(cast("Ledger", MetaLedger()), [])
    journal.append(sent(2))
    assert await unknown(None) == [noted(PENDING, 2)]


async def test_notes_that_cannot_be_begun_hold_nothing(journal: SubmissionJournal, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    ledger: Any = MetaLedger()
    warning = await journal.take_over(ledger, [])
    assert (journal.name, ledger.mark) == ("", None)
    assert f"cannot be noted in {tmp_path / 'state'}" in warning
    assert "XDG_STATE_HOME" in warning


async def test_notes_that_cannot_be_written_any_more_are_said(
    journal: SubmissionJournal, tmp_path: Path
) -> None:
    ledger: Any = MetaLedger()
    assert await journal.take_over(ledger, []) == ""
    (tmp_path / "state" / IDENTITY).unlink()
    (tmp_path / "state" / IDENTITY).mkdir()
    assert "cannot be noted" in await journal.take_over(ledger, [])


async def test_notes_are_not_marked_as_known_by_a_run_that_may_not_submit(journal: SubmissionJournal) -> None:
    ledger, row = MetaLedger(), replace(PENDING, submission_no=1)
    await journal.take_over(cast("Ledger", ledger), [row])
    before = ledger.mark
    journal.append(sent(2))
    later = SubmissionJournal(IDENTITY)
    with pytest.raises(HistoryUnknown):
        await recall_forgotten(
            cast("Api", SilentApi()),
            cast("Ledger", ledger),
            [row],
            later,
            uncertain=OpenQuestion(LastUse(), alone=True),
            key_id="k1",
            wait_s=WAIT_S,
        )
    await later.mark(cast("Ledger", ledger))
    assert ledger.mark == before


async def test_notes_are_marked_while_a_run_goes_on(
    journal: SubmissionJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run after a kill reads little; a ledger that is gone for a while ends nothing."""
    monkeypatch.setattr(submission_journal, "MARK_INTERVAL_S", 0.0)
    ledger = RefusingLedger()
    await journal.take_over(cast("Ledger", ledger), [])
    ledger.refusals, ledger.taken = 2, anyio.Event()
    journal.append(sent(1))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(journal.keep_marked, cast("Ledger", ledger))
        await ledger.taken.wait()
        tasks.cancel_scope.cancel()
    assert ledger.refusals == 0
    assert await unknown(ledger.mark) == []


class RefusingLedger(MetaLedger):
    """Refuses so many times before it takes a fact."""

    refusals = 0

    def __init__(self) -> None:
        super().__init__()
        self.taken = anyio.Event()

    async def meta_set(self, name: str, value: str) -> None:
        if self.refusals:
            self.refusals -= 1
            raise LedgerError("away")
        await super().meta_set(name, value)
        self.taken.set()
