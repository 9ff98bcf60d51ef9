"""One create: the id it is known by, what each verdict makes of its row, and what stopping leaves behind."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.client import (
    Accepted,
    AccountBlocked,
    Api,
    ApiKey,
    CreateResult,
    GenerationStatus,
    OutcomeUnknown,
    Phase,
    RateLimited,
    Rejected,
    RetryableRejection,
)
from pipeline.errors import Conflict, StopReason, StoreError
from pipeline.ledger import Ledger
from pipeline.model import Failure, Record, State
from pipeline.submit import create
from pipeline.submit.create import (
    Nonces,
    Submitter,
    apply_create_result,
    correlation_id,
    mark_generating,
    row_correlation_prefix,
    sending_process,
)
from tests.unit.samples import job, record

if TYPE_CHECKING:
    from pathlib import Path

IDENTITY = "a1b2c3d4e5"
SUBMITTING = record(State.SUBMITTING, reserved_usd=1.2, attempts=2, usd_spent=0.5)
STATUS = GenerationStatus(Phase.RUNNING, "queued", "g")

CREATE_RESULTS: list[tuple[CreateResult, State, int, float | None]] = [
    (Accepted("g", STATUS), State.GENERATING, 3, 1.2),
    (Rejected(Failure("refused", "no")), State.FAILED, 3, None),
    (RetryableRejection("busy", reached=True), State.PENDING, 3, None),
    (RetryableRejection("no route", reached=False), State.PENDING, 3, None),
    (RateLimited("slow down", None), State.PENDING, 2, None),
    (AccountBlocked(StopReason.CREDITS, "empty"), State.PENDING, 2, None),
    (AccountBlocked(StopReason.KEY, "wrong"), State.PENDING, 2, None),
    (OutcomeUnknown("reset"), State.IN_DOUBT, 3, 1.2),
]


@pytest.mark.parametrize(("verdict", "state", "attempts", "reserved"), CREATE_RESULTS)
def test_apply_create_result(
    verdict: CreateResult, state: State, attempts: int, reserved: float | None
) -> None:
    after = apply_create_result(SUBMITTING, verdict, 50.0)
    assert (after.state, after.attempts, after.reserved_usd) == (state, attempts, reserved)
    assert (after.version, after.correlation_id) == (SUBMITTING.version + 1, SUBMITTING.correlation_id)
    assert after.usd_spent == SUBMITTING.usd_spent


def test_an_accepted_row_begins_anew_with_its_generation() -> None:
    old = replace(
        SUBMITTING, failure=Failure("x", "y"), video_url="http://old", finished_at=1.0, not_yet_at=2.0
    )
    after = apply_create_result(old, Accepted("-weird/id:a", STATUS), 50.0)
    assert (after.generation_id, after.accepted_at) == ("-weird/id:a", 50.0)
    assert (after.failure, after.video_url, after.finished_at, after.not_yet_at) == (None, "", None, None)


def test_a_refused_row_says_why_and_when() -> None:
    after = apply_create_result(SUBMITTING, Rejected(Failure("refused", "the vendor's words")), 50.0)
    assert (after.failure, after.finished_at) == (Failure("refused", "the vendor's words"), 50.0)


def test_in_doubt_row_records_time_and_reason() -> None:
    after = apply_create_result(SUBMITTING, OutcomeUnknown("reset by peer"), 50.0)
    assert (after.doubted_at, after.failure) == (50.0, Failure("in_doubt", "reset by peer"))


def test_row_found_in_log_was_counted_when_marked_in_doubt() -> None:
    assert mark_generating(record(State.IN_DOUBT, attempts=1), "g", 5.0).attempts == 1
    assert mark_generating(record(State.SUBMITTING, attempts=1), "g", 5.0).attempts == 2


NAMES = st.text(max_size=200) | st.sampled_from(
    ["", "-", "..", "ü" * 300, "../../x", "a b\n", "\ud800", "a" * 300]
)


@given(NAMES, st.text(max_size=30), st.integers(1, 10**6))
def test_correlation_id_is_accepted_by_vendor(name: str, content: str, intent: int) -> None:
    row = replace(record(name="row"), id=name, key=f"{name}@{content}")
    made = correlation_id(IDENTITY, row, intent, Nonces()())
    assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", made)
    assert made.startswith(row_correlation_prefix(IDENTITY, row))


@given(st.lists(st.tuples(NAMES, st.integers(1, 3)), unique=True, min_size=2, max_size=20))
def test_each_create_has_a_correlation_id_of_its_own(creates: list[tuple[str, int]]) -> None:
    made = {
        correlation_id(IDENTITY, replace(record(), id=name, key=f"{name}@f"), intent, "n")
        for name, intent in creates
    }
    assert len(made) == len(creates)


def test_a_ledger_put_back_from_a_backup_uses_no_id_twice() -> None:
    made = {correlation_id(IDENTITY, record(), 1, Nonces()()) for _ in range(100)}
    assert len(made) == 100


def test_ids_tell_which_were_sent_by_one_process() -> None:
    here, there = Nonces(), Nonces()
    made = [correlation_id(IDENTITY, record(), number, here()) for number in range(100)]
    assert len(set(made)) == 100
    [process] = {sending_process(one) for one in made}
    assert process
    assert sending_process(correlation_id(IDENTITY, record(), 1, there())) != process
    assert sending_process("vb.x.row.1.short") == sending_process("") == ""


def test_two_batches_never_share_a_correlation_id() -> None:
    assert correlation_id("a" * 10, record(), 1, "n") != correlation_id("b" * 10, record(), 1, "n")
    assert correlation_id(IDENTITY, record(name="take-two"), 1, "n").startswith(f"vb.{IDENTITY}.take-two.")


class FakeApi(Api):
    """An API whose create does what the test says; `seen` is what the ledger held when it was called."""

    def __init__(self, ledger: Ledger, verdict: CreateResult | None) -> None:
        super().__init__("http://127.0.0.1:9", ApiKey("secret", "VAR"))
        self.ledger, self.result = ledger, verdict
        self.records_seen: list[Record | None] = []
        self.create_called = anyio.Event()

    async def create(self, body: str, correlation_id: str) -> CreateResult:
        self.records_seen.append(await self.ledger.get(job().key))
        self.create_called.set()
        if self.result is None:
            await anyio.sleep_forever()
        assert self.result is not None
        return self.result


async def test_submission_is_durable_before_the_create_is_sent(tmp_path: Path) -> None:
    async with await Ledger.open(tmp_path / "l.sqlite3") as ledger:
        row = record()
        await ledger.add([row])
        vendor = FakeApi(ledger, Accepted("g", STATUS))
        submitter = Submitter(vendor, ledger, wall=lambda: 77.0, nonce=lambda: "n0nce")
        after, verdict = await submitter.submit(row, 1.5, row.body)
        [seen] = vendor.records_seen
        assert seen is not None
        assert (seen.state, seen.submission_no, seen.submitted_at, seen.reserved_usd) == (
            State.SUBMITTING,
            1,
            77.0,
            1.5,
        )
        assert seen.correlation_id == correlation_id(ledger.identity, row, 1, "n0nce")
        assert await ledger.get(row.key) == after
        assert (after.state, verdict) == (State.GENERATING, vendor.result)


async def test_generation_of_another_row_is_a_doubt_in_every_process(tmp_path: Path) -> None:
    """Two rows with one clip would both be done, and one of them wrongly."""
    first = record()
    second = replace(first, key="other@f", id="other")
    third = replace(first, key="third@f", id="third")
    async with await Ledger.open(tmp_path / "l.sqlite3") as ledger:
        await ledger.add([first, second, third])
        vendor = FakeApi(ledger, Accepted("g", STATUS))
        submitter = Submitter(vendor, ledger, wall=lambda: 77.0)
        one, _ = await submitter.submit(first, 1.5, first.body)
        other, verdict = await submitter.submit(second, 1.5, second.body)
        again = Submitter(vendor, ledger, wall=lambda: 77.0)
        later, _ = await again.submit(third, 1.5, third.body)
    assert (one.state, other.state, later.state) == (State.GENERATING, State.IN_DOUBT, State.IN_DOUBT)
    assert isinstance(verdict, OutcomeUnknown)
    assert "another create's generation, g" in verdict.message
    assert (other.generation_id, submitter.unresolved) == ("", {})


@pytest.mark.parametrize("intended_at", [1000.0, 7600.0], ids=["slow", "slow while the clock is set back"])
async def test_submission_delayed_by_ledger_is_redated_before_create(
    intended_at: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Absence from the vendor's log is reckoned from that date: it must not lie before the create."""
    moments = iter([intended_at, 4000.0, 4000.0, 4001.0])
    async with await Ledger.open(tmp_path / "l.sqlite3") as ledger:
        row = record()
        await ledger.add([row])
        vendor = FakeApi(ledger, Accepted("g", STATUS))
        by_vendor = iter([100.0, 3100.0])
        monkeypatch.setattr(vendor, "vendor_now", lambda: next(by_vendor))
        after, _ = await Submitter(vendor, ledger, wall=lambda: next(moments, 4002.0)).submit(
            row, None, row.body
        )
        [seen] = vendor.records_seen
        assert seen is not None
        assert (seen.state, seen.submission_no, seen.submitted_at) == (State.SUBMITTING, 1, 4000.0)
        assert seen.vendor_sent_at == 3100.0
        assert await ledger.get(row.key) == after


async def test_an_intent_that_cannot_be_dated_anew_is_shown_as_it_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter([1000.0, 4000.0])
    async with await Ledger.open(tmp_path / "l.sqlite3") as ledger:
        row, commit = record(), ledger.commit

        async def commit_until_full(before: Record, after: Record) -> Record:
            if before.state is State.SUBMITTING:
                raise StoreError("the disk is full")
            return await commit(before, after)

        await ledger.add([row])
        monkeypatch.setattr(ledger, "commit", commit_until_full)
        submitter = Submitter(
            FakeApi(ledger, Accepted("g", STATUS)), ledger, wall=lambda: next(moments, 4002.0)
        )
        with pytest.raises(StoreError):
            await submitter.submit(row, None, row.body)
        assert submitter.unresolved == {row.key: await ledger.get(row.key)}


async def test_a_row_that_someone_else_took_is_not_sent(tmp_path: Path) -> None:
    async with await Ledger.open(tmp_path / "l.sqlite3") as ledger:
        row = record()
        await ledger.add([row])
        await ledger.commit(row, row.evolve(State.SUBMITTING))
        vendor = FakeApi(ledger, Accepted("g", STATUS))
        with pytest.raises(Conflict):
            await Submitter(vendor, ledger, wall=lambda: 77.0).submit(row, None, row.body)
        assert vendor.records_seen == []


async def test_a_create_is_waited_for_when_the_run_is_cancelled(tmp_path: Path) -> None:
    """Its answer is worth more than a quick exit: without it the row is in doubt."""
    async with await Ledger.open(tmp_path / "l.sqlite3") as ledger:
        row = record()
        await ledger.add([row])
        vendor = FakeApi(ledger, Accepted("g", STATUS))
        with anyio.CancelScope() as scope:
            scope.cancel()
            await Submitter(vendor, ledger, wall=lambda: 77.0).submit(row, None, row.body)
        kept = await ledger.get(row.key)
        assert kept is not None
        assert (kept.state, kept.generation_id) == (State.GENERATING, "g")


async def test_unanswered_create_is_left_in_doubt_at_shutdown_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(create, "SHUTDOWN_GRACE_S", 0.05)
    async with await Ledger.open(tmp_path / "l.sqlite3") as ledger:
        row = record()
        await ledger.add([row])
        vendor = FakeApi(ledger, None)
        submitter = Submitter(vendor, ledger, wall=lambda: 77.0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(submitter.submit, row, None, row.body)
            await vendor.create_called.wait()
            submitter.set_shutdown_deadline()
            tasks.cancel_scope.cancel()
        kept = await ledger.get(row.key)
        assert kept is not None
        assert kept.state is State.IN_DOUBT
        assert kept.correlation_id
