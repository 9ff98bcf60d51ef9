"""Rows in doubt against the log: windows, overlapping pages, what a pass says of a row, how long to wait."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from math import inf
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.client import GenerationStatus, LogPage, LogRow, Phase, StatusError
from pipeline.model import Failure, Record, State
from pipeline.plan import GENERATION_UNKNOWN, RetrySelection, make_plan
from pipeline.poll.unknown_generations import UnknownIds
from pipeline.reconcile.end_of_run import EndOfRunWait
from pipeline.reconcile.evidence import Evidence, Missing, Premise
from pipeline.reconcile.in_doubt import (
    AbsenceTimer,
    FailedAtVendor,
    Found,
    NeverAccepted,
    StillInDoubt,
    Verdict,
    describe,
    describe_unknown_generation,
    judge,
    judge_unknown_generation,
    mark_explained,
    mark_found,
    mark_never_accepted,
    mark_never_ran,
    submission_of,
    witness_of,
)
from pipeline.reconcile.log_windows import DAY_S, MAX_WINDOW_S, plan_windows
from pipeline.reconcile.origin import origin_notes
from pipeline.reconcile.reconciler import Reconciler
from pipeline.reconcile.request_log import OVERLAP_ROWS, AnonymousRow, LogPass, fetch_log, fetch_whole_log
from tests.unit.samples import job, record
from tests.unit.vendor_history import iso

NOW = 1_800_000_000.0
WAIT_S = 2700.0
URL = "https://api.example.com"


def in_doubt_record(name: str = "row", **facts: Any) -> Record:
    usual = {
        "correlation_id": f"vb.x.{name}",
        "submitted_at": NOW - 5000,
        "doubted_at": NOW - 4990,
        "reserved_usd": 1.0,
        "attempts": 1,
        "key_id": "key",
        "api_url": URL,
        "vendor_sent_at": NOW - 5000,
        "failure": Failure("in_doubt", "the answer never came"),
    }
    return record(State.IN_DOUBT, name, **{**usual, **facts})


def log_with(*rows: LogRow, **facts: Any) -> LogPass:
    usual: dict[str, Any] = {
        "complete": True,
        "key_id": "key",
        "api_url": URL,
        "windows": ((NOW - DAY_S, inf),),
    }
    return LogPass({row.client_request_id: row for row in rows}, **{**usual, **facts})


def judge_by(log: LogPass, row: Record | None = None, **facts: Any) -> Verdict:
    row = row or in_doubt_record()
    evidence = Evidence(log, WAIT_S, 5000.0, 4000.0, NOW, **facts)
    return judge(row, submission_of(row), evidence)


# Windows.


@given(ages=st.lists(st.floats(0, 400 * DAY_S), min_size=1, max_size=6))
def test_windows_cover_every_submission_and_none_is_longer_than_the_vendor_allows(ages: list[float]) -> None:
    spans = [(NOW - age - 3600, NOW - age + 6300) for age in ages]
    windows = plan_windows(spans, NOW)
    for window in windows:
        if "period" in window.query:
            assert window.query.keys() == {"period"}
            assert window.end == inf
        else:
            start, end = (datetime.fromisoformat(window.query[name]).timestamp() for name in ("start", "end"))
            assert end - start <= MAX_WINDOW_S
            assert (start, end) == pytest.approx((window.start, window.end), abs=1)
    for start, end in spans:
        assert any(window.start <= start and end <= window.end for window in windows)


def test_doubts_far_apart_are_read_in_windows_of_their_own() -> None:
    spans = [(NOW - age * DAY_S, NOW - age * DAY_S + 9000) for age in (0.1, 40.0, 41.0, 300.0)]
    windows = plan_windows(spans, NOW)
    assert [dict(window.query).get("period") for window in windows] == ["24h", None, None]
    assert sum(window.end - window.start for window in windows[1:]) < 6 * DAY_S


# Pages.


class ScriptedLog:
    """A log of rows, newest first, from replicas that may be some rows behind on later pages."""

    name = URL

    def __init__(self, rows: list[LogRow]) -> None:
        self.rows = rows
        self.max_page_rows = 100
        self.rows_behind = 0
        self.errors: dict[int, StatusError] = {}
        self.requests: list[dict[str, str]] = []

    async def log_page(
        self, window: dict[str, str], *, limit: int, offset: int, key_prefix: str = ""
    ) -> LogPage | StatusError:
        self.requests.append({**window, "offset": str(offset)})
        if (error := self.errors.get(len(self.requests))) is not None:
            return error
        rows = self.rows[self.rows_behind :] if offset else self.rows
        page = rows[offset : offset + min(limit, self.max_page_rows)]
        return LogPage(tuple(page), len(page), offset + len(page) < len(rows))


def row(name: str, inference_id: str | None = None, *, succeeded: bool = True, at: float = NOW) -> LogRow:
    usd = 1.2 * succeeded
    return LogRow(f"vb.x.{name}", inference_id or f"g-{name}", f"r-{name}", succeeded, "m", iso(at), usd)


def others(count: int, first: int = 0) -> list[LogRow]:
    return [
        replace(row(f"o{number}", at=NOW - number), client_request_id=f"other-{number}")
        for number in range(first, first + count)
    ]


async def fetch_pass(log: ScriptedLog, *names: str) -> LogPass:
    windows = plan_windows([(NOW - 9000, NOW)], NOW)
    wanted = {f"vb.x.{name}" for name in names}
    return await fetch_log(cast("Any", log), windows, wanted, own_prefix="vb.x.", gap_s=0.0)


async def test_one_pass_serves_all_rows_and_goes_to_the_end_for_one_that_is_missing() -> None:
    log = ScriptedLog([*others(120), row("a"), *others(100, 120), row("b")])
    seen = await fetch_pass(log, "a", "b", "missing")
    assert seen.complete
    assert {name: found.inference_id for name, found in seen.rows.items()} == {
        "vb.x.a": "g-a",
        "vb.x.b": "g-b",
    }
    assert [int(asked["offset"]) for asked in log.requests] == [
        0,
        100 - OVERLAP_ROWS,
        2 * (100 - OVERLAP_ROWS),
    ]


async def test_a_pass_ends_when_every_row_is_found() -> None:
    log = ScriptedLog([row("a"), *others(300)])
    seen = await fetch_pass(log, "a")
    assert len(log.requests) == 1
    assert not seen.complete


@pytest.mark.parametrize("behind", range(1, 30))
async def test_page_from_a_replica_that_is_behind_hides_nothing_or_breaks_the_pass(behind: int) -> None:
    log = ScriptedLog([*others(100), row("a"), *others(200, 100)])
    log.rows_behind = behind
    seen = await fetch_pass(log, "a", "missing")
    assert "vb.x.a" in seen.rows or not seen.complete
    assert seen.complete is (behind < OVERLAP_ROWS)


@pytest.mark.parametrize("most", [2, 7, 100])
async def test_shorter_pages_overlap_too(most: int) -> None:
    log = ScriptedLog([*others(30), row("a")])
    log.max_page_rows = most
    seen = await fetch_pass(log, "a", "missing")
    assert "vb.x.a" in seen.rows
    assert seen.complete


async def test_pages_of_one_row_cannot_overlap() -> None:
    log = ScriptedLog([row("b"), row("a")])
    log.max_page_rows = 1
    assert not (await fetch_pass(log, "missing")).complete


async def test_log_that_grows_while_it_is_read_is_read_whole() -> None:
    log = ScriptedLog([*others(150), row("a")])

    class Growing(ScriptedLog):
        async def log_page(self, window: dict[str, str], **options: Any) -> LogPage | StatusError:
            page = await super().log_page(window, **options)
            self.rows = [*others(3, 500 + 3 * len(self.requests)), *self.rows]
            return page

    seen = await fetch_pass(Growing(log.rows), "a", "missing")
    assert "vb.x.a" in seen.rows
    assert seen.complete


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("status", [0, 200, 403, 429, 500])
async def test_a_log_that_cannot_be_read_to_its_end_is_not_complete(status: int, number: int) -> None:
    log = ScriptedLog([row("a"), *others(200)])
    log.errors[number] = StatusError(status, "no")
    seen = await fetch_pass(log, "a", "missing")
    assert (seen.complete, seen.error, seen.refused) == (False, "no", status == 403)
    assert ("vb.x.a" in seen.rows) is (number == 2)


@pytest.mark.parametrize("order", [1, -1])
async def test_of_several_rows_the_one_with_a_generation_that_worked_counts(order: int) -> None:
    rows = [
        replace(row("a", succeeded=False), inference_id=""),
        row("a", "g-lost", succeeded=False),
        row("a", "g-good"),
    ]
    seen = await fetch_pass(ScriptedLog([*rows[::order], *others(1)]), "a", "missing")
    assert seen.rows["vb.x.a"].inference_id == "g-good"


async def test_pass_keeps_what_a_proof_asks_for() -> None:
    anonymous = replace(row("n"), client_request_id="")
    log = ScriptedLog([*others(2), anonymous, row("a", at=NOW - 500)])
    seen = await fetch_pass(log, "missing")
    assert [found.inference_id for found in seen.anonymous] == ["g-n"]
    assert seen.other_generations == {"g-o0", "g-o1"}
    assert (seen.oldest, seen.newest) == (NOW - 500, NOW)


async def test_time_outside_of_the_window_that_was_asked_for_tells_nothing() -> None:
    log = ScriptedLog([row("a", at=NOW - 300 * DAY_S), row("b", at=NOW - 50)])
    seen = await fetch_pass(log, "missing")
    assert seen.times == {"vb.x.b": NOW - 50}
    assert (seen.oldest, seen.newest) == (NOW - 50, NOW - 50)


async def test_old_window_is_read_with_the_newest_page() -> None:
    """Whether the log goes on at all is seen in its newest rows only."""
    log = ScriptedLog([row("a")])
    windows = plan_windows([(NOW - 50 * DAY_S, NOW - 49 * DAY_S)], NOW)
    await fetch_log(cast("Any", log), windows, {"vb.x.missing"}, own_prefix="vb.x.", gap_s=0.0)
    assert [sorted(asked) for asked in log.requests] == [["offset", "period"], ["end", "offset", "start"]]


async def test_whole_log_has_each_row_once() -> None:
    log = ScriptedLog(others(250))
    whole = await fetch_whole_log(cast("Any", log), NOW - 100, NOW, gap_s=0.0)
    assert (whole.rows, whole.error) == (tuple(log.rows), "")
    log.errors[len(log.requests) + 2] = StatusError(500, "no")
    assert (await fetch_whole_log(cast("Any", log), NOW - 100, NOW, gap_s=0.0)).error == "no"


# What a pass says of a row.


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("key", ["key", "rotated"])
def test_row_found_proves_acceptance_whatever_else_holds(complete: bool, key: str) -> None:
    log = log_with(row("row", "g"), complete=complete, key_id=key)
    assert judge_by(log) == Found("g", completed=True)
    found = mark_found(in_doubt_record(), "g")
    assert (found.state, found.generation_id, found.accepted_at) == (State.GENERATING, "g", NOW - 5000)
    assert (found.failure, found.reserved_usd, found.attempts) == (None, 1.0, 1)


@pytest.mark.parametrize(
    ("cost", "completed"),
    [
        ({"usd": 1.2}, True),
        ({"usd": 0.0, "credits": 9.0}, True),
        # Some logs show a create when it is accepted: what it costs is settled by its end.
        ({"usd": 0.0, "credits": 0.0}, False),
        ({"usd": None, "credits": None}, False),
        ({"succeeded": None}, False),
    ],
)
def test_what_the_log_charges_for_is_completed(cost: dict[str, Any], completed: bool) -> None:
    assert judge_by(log_with(replace(row("row", "g"), **cost))) == Found("g", completed=completed)
    assert mark_found(in_doubt_record(), "g", completed_at=NOW).completed_at == NOW


def test_failed_row_is_asked_for_by_its_id() -> None:
    assert judge_by(log_with(row("row", "g", succeeded=False))) == FailedAtVendor("g")


def test_generation_of_another_row_is_not_taken() -> None:
    verdict = judge_by(log_with(row("row", "g")), known_generations=frozenset({"g"}))
    assert isinstance(verdict, StillInDoubt)
    assert [missing.premise for missing in verdict.missing] == [Premise.GENERATION]


def test_first_pass_is_remembered_by_the_vendors_clock() -> None:
    row_in_doubt = in_doubt_record()
    verdict = judge_by(log_with(), row_in_doubt)
    assert isinstance(verdict, StillInDoubt)
    assert verdict.record.absent_since == NOW
    again = judge_by(log_with(), verdict.record)
    assert isinstance(again, StillInDoubt)
    assert again.record is verdict.record


def test_pass_with_another_key_is_no_first_pass() -> None:
    verdict = judge_by(log_with(key_id="rotated"))
    assert isinstance(verdict, StillInDoubt)
    assert verdict.record.absent_since is None


def test_row_never_accepted_waits_for_its_turn_again() -> None:
    pending = mark_never_accepted(in_doubt_record(absent_since=NOW))
    assert (pending.state, pending.failure, pending.reserved_usd) == (State.PENDING, None, None)
    assert (pending.doubted_at, pending.absent_since) == (None, None)


def test_request_that_never_ran_follows_the_rules_of_a_failed_generation() -> None:
    again = mark_never_ran(in_doubt_record(), now=NOW, generation_retries=1)
    assert (again.state, again.faults) == (State.PENDING, 1)
    failed = mark_never_ran(in_doubt_record(faults=1), now=NOW, generation_retries=1)
    assert (failed.state, failed.faults, failed.reserved_usd) == (State.FAILED, 2, None)
    assert failed.failure is not None
    assert failed.failure.code == "not_accepted"
    assert (again.version, failed.version) == (in_doubt_record().version + 1,) * 2


class ScriptedStatus:
    """An API that answers one status call after another, `gap_s` apart, with what is given."""

    def __init__(self, *answers: StatusError | GenerationStatus, gap_s: float = 90.0) -> None:
        self._answers = list(answers)
        self._gap_s = gap_s
        self.now = -gap_s

    async def get_status(self, _: str, *, new_connection: bool = False) -> StatusError | GenerationStatus:
        assert new_connection
        self.now += self._gap_s
        return self._answers.pop(0)

    def reconciler(self) -> Reconciler:
        api: Any = self
        no_records: Any = None
        ids = UnknownIds(10.0, {}, set())
        return Reconciler(
            api, "x", WAIT_S, lambda: self.now, lambda: NOW, 0.0, "key", no_records, unknown_ids=ids
        )


NOT_KNOWN, AWAY = StatusError(404, "HTTP 404"), StatusError(503, "HTTP 503")
RUNS = GenerationStatus(Phase.RUNNING, "generating")
FAILED = FailedAtVendor("g")


async def verdicts_of(*answers: StatusError | GenerationStatus, gap_s: float = 90.0) -> list[Verdict]:
    """Return what the answers make, one after the other, of a row in doubt that the log lists as failed."""
    asking, row = ScriptedStatus(*answers, gap_s=gap_s).reconciler(), in_doubt_record()
    return [(await asking.ask_failed([row], {row.key: FAILED}))[row.key] for _ in answers]


async def test_what_is_listed_as_failed_never_ran_once_404_is_all_that_is_answered() -> None:
    first, second, third = await verdicts_of(NOT_KNOWN, NOT_KNOWN, NOT_KNOWN)
    for verdict, wait_s in ((first, 180.0), (second, 90.0)):
        assert isinstance(verdict, StillInDoubt)
        [lack] = verdict.missing
        assert (lack.premise, lack.wait_s) == (Premise.STATUS, wait_s)
        assert f"let a run ask for {wait_s:.0f} s more" in describe(verdict.missing)
    assert third == FAILED


@pytest.mark.parametrize(
    ("answers", "gap_s"),
    [
        ((NOT_KNOWN,), 90.0),
        ((NOT_KNOWN, NOT_KNOWN), 500.0),
        ((NOT_KNOWN, NOT_KNOWN, NOT_KNOWN), 80.0),
        ((NOT_KNOWN, NOT_KNOWN, AWAY, NOT_KNOWN), 90.0),
        ((NOT_KNOWN, NOT_KNOWN, AWAY), 90.0),
    ],
)
async def test_what_is_listed_as_failed_stays_in_doubt(
    answers: tuple[StatusError, ...], gap_s: float
) -> None:
    last = (await verdicts_of(*answers, gap_s=gap_s))[-1]
    assert isinstance(last, StillInDoubt)
    assert [lack.premise for lack in last.missing] == [Premise.STATUS]
    assert last.missing[0].wait_s is not None


async def test_any_status_of_what_is_listed_as_failed_goes_on_with_it() -> None:
    assert (await verdicts_of(NOT_KNOWN, NOT_KNOWN, RUNS))[-1] == Found("g")


async def test_a_status_is_asked_for_of_nothing_else() -> None:
    """Not of what the log shows as accepted, nor of a failed row that names no generation."""
    row = in_doubt_record()
    asking = ScriptedStatus().reconciler()
    for verdict in (Found("g"), NeverAccepted(), FailedAtVendor(""), LACKS_KEY):
        assert await asking.ask_failed([row], {row.key: verdict}) == {row.key: verdict}


LACKS_KEY = StillInDoubt(in_doubt_record(), (Missing(Premise.KEY, "another key", "that key"),))
LACKS_TIME = StillInDoubt(in_doubt_record(), (Missing(Premise.TIME, "too soon", "later", 9.0),))


LISTED_AS_FAILED = log_with(row("row", "g", succeeded=False))
UNKNOWN = record(State.GENERATING, "row", generation_id="g", correlation_id="vb.x.row", reserved_usd=1.0)


@pytest.mark.parametrize(
    ("log", "verdict"), [(log_with(), NeverAccepted()), (LISTED_AS_FAILED, FailedAtVendor("g"))]
)
def test_a_generation_that_the_vendor_does_not_know_is_over_by_proof(log: LogPass, verdict: Verdict) -> None:
    after = judge_unknown_generation(UNKNOWN, log, verdict, NOW, is_missing=False)
    assert after is not None
    assert after.failure is not None
    assert (after.state, after.failure.code, after.failure.retryable, after.reserved_usd) == (
        State.FAILED,
        GENERATION_UNKNOWN,
        True,
        None,
    )
    [(_, retried)] = make_plan(
        [job()], [replace(after, key=job().key)], retry=RetrySelection(enabled=True)
    ).requeues
    assert retried.state is State.PENDING


@pytest.mark.parametrize(
    ("log", "verdict", "says"),
    [
        (log_with(row("row", "g", succeeded=True)), Found("g", completed=True), "the log shows it;"),
        (log_with(replace(row("row", "g"), succeeded=None)), Found("g"), "the log shows it;"),
        (log_with(complete=False, error="HTTP 500"), LACKS_TIME, "cannot be read (HTTP 500);"),
        (log_with(complete=False), LACKS_TIME, "cannot be read (cut short);"),
        (log_with(), LACKS_KEY, "is another key's"),
        # Unfinished generations show late, or not at all.
        (log_with(), LACKS_TIME, "does not show it;"),
        # The log knows it by its generation alone: a proxy dropped the header, or it was adopted.
        (log_with(anonymous=(AnonymousRow("g", "m", NOW),)), NeverAccepted(), "the log shows it;"),
        (log_with(other_generations=frozenset({"g"})), NeverAccepted(), "the log shows it;"),
    ],
)
def test_a_generation_that_nothing_proves_to_be_over_stays(log: LogPass, verdict: Verdict, says: str) -> None:
    assert judge_unknown_generation(UNKNOWN, log, verdict, NOW, is_missing=False) is None
    told = describe_unknown_generation(UNKNOWN, log, verdict)
    assert says in told
    assert "generation g (404)" in told
    assert "adopt" in told


@pytest.mark.parametrize(
    ("log", "verdict"), [(log_with(), NeverAccepted()), (LISTED_AS_FAILED, FailedAtVendor("g"))]
)
def test_what_was_completed_once_is_never_over_unpaid(log: LogPass, verdict: Verdict) -> None:
    completed = replace(UNKNOWN, completed_at=NOW)
    assert judge_unknown_generation(completed, log, verdict, NOW, is_missing=True) is None


@pytest.mark.parametrize(
    ("log", "verdict", "is_over"),
    [
        (log_with(), LACKS_TIME, True),
        (log_with(complete=False), LACKS_TIME, False),
        (log_with(), LACKS_KEY, False),
        (log_with(row("row", "g", succeeded=True)), Found("g", completed=True), False),
        (log_with(replace(row("row", "g"), succeeded=None)), Found("g"), False),
        (log_with(anonymous=(AnonymousRow("g", "m", NOW),)), LACKS_TIME, False),
    ],
)
def test_a_generation_that_neither_status_nor_log_knows_while_others_are_known_is_over_and_may_be_paid(
    log: LogPass, verdict: Verdict, *, is_over: bool
) -> None:
    after = judge_unknown_generation(UNKNOWN, log, verdict, NOW, is_missing=True)
    if not is_over:
        assert after is None
        return
    assert after is not None
    assert after.failure is not None
    assert (after.state, after.failure.retryable, after.generation_id, after.reserved_usd) == (
        State.FAILED,
        False,
        "g",
        1.0,
    )
    assert "adopt" in after.failure.message


def test_what_an_earlier_version_failed_without_proof_is_asked_about_again() -> None:
    failure = Failure(GENERATION_UNKNOWN, "404", retryable=False)
    failed = replace(UNKNOWN, key=job().key, state=State.FAILED, failure=failure)
    [(_, retried)] = make_plan([job()], [failed], retry=RetrySelection(enabled=True)).requeues
    assert (retried.state, retried.generation_id) == (State.GENERATING, "g")


# Witnesses, time, words, how long it is worth waiting.


@pytest.mark.parametrize(
    ("facts", "due"),
    [
        ({"finished_at": NOW - 1000, "vendor_sent_at": NOW - 1500}, True),
        ({"finished_at": NOW - 100, "vendor_sent_at": NOW - 1500}, False),
        ({"finished_at": NOW + 7200, "vendor_sent_at": NOW - 2700}, True),
        ({"finished_at": None, "vendor_sent_at": NOW - 9000}, False),
    ],
)
def test_witness_is_due_once_it_is_long_finished(facts: dict[str, Any], due: bool) -> None:
    done = record(State.DONE, "w", key_id="key", api_url=URL, **facts)
    witness = witness_of(done, now=NOW, wall=NOW, wait_s=WAIT_S)
    assert witness is not None
    assert witness.due is due


def test_what_failed_since_the_log_does_not_show_it_is_not_due() -> None:
    """The log was right, and is not behind because of it."""
    facts: dict[str, Any] = {"generation_id": "g", "correlation_id": "w", "key_id": "key", "api_url": URL}
    facts |= {"finished_at": NOW - 1000, "vendor_sent_at": NOW - 5000}
    for code, due in (("generation_error", True), (GENERATION_UNKNOWN, False)):
        lost = record(State.FAILED, "w", failure=Failure(code, "404"), **facts)
        witness = witness_of(lost, now=NOW, wall=NOW, wait_s=WAIT_S)
        assert witness is not None
        assert witness.due is due


@pytest.mark.parametrize("facts", [{"key_id": ""}, {"generation_id": ""}, {"correlation_id": ""}])
def test_row_of_unknown_origin_is_no_witness(facts: dict[str, Any]) -> None:
    done = record(State.DONE, "w", **{"key_id": "key", "api_url": URL, **facts})
    assert witness_of(done, now=NOW, wall=NOW, wait_s=WAIT_S) is None


def test_time_within_a_process_is_monotonic_and_across_processes_the_vendors() -> None:
    timer, submission = AbsenceTimer(), submission_of(in_doubt_record(absent_since=NOW - 600))
    timer.see(submission, 100.0)
    assert timer.elapsed_s(submission, 110.0, NOW, error_s=0.0) == 5000.0 - 2.0
    assert timer.apart_s(submission, 110.0, NOW, error_s=0.0) == 600.0 - 2.0
    assert timer.elapsed_s(submission, 110.0, None, error_s=0.0) == 10.0
    assert timer.apart_s(submission, 110.0, None, error_s=0.0) is None
    timer.saw_absent(submission, 104.0)
    assert timer.apart_s(submission, 110.0, None, error_s=0.0) == 6.0
    timer.sent[submission.correlation_id] = 103.0
    assert timer.elapsed_s(submission, 110.0, NOW, error_s=0.0) == 7.0
    assert timer.apart_s(submission, 110.0, NOW, error_s=0.0) == 6.0


def test_what_the_vendors_times_may_be_wrong_by_is_no_time_that_has_passed() -> None:
    timer, submission = AbsenceTimer(), submission_of(in_doubt_record(absent_since=NOW - 600))
    timer.see(submission, 100.0)
    assert timer.elapsed_s(submission, 110.0, NOW, error_s=400.0) == 5000.0 - 402.0
    assert timer.apart_s(submission, 110.0, NOW, error_s=400.0) == 600.0 - 402.0
    # What this process has measured by itself stands.
    assert timer.elapsed_s(submission, 110.0, NOW, error_s=9000.0) == 10.0
    timer.saw_absent(submission, 104.0)
    assert timer.apart_s(submission, 110.0, NOW, error_s=9000.0) == 6.0


def test_explanation_is_written_once() -> None:
    explained = mark_explained(in_doubt_record(), describe(LACKS_KEY.missing))
    assert explained is not None
    assert explained.failure is not None
    assert explained.failure.message == (
        "the answer never came | still in doubt: another key. To settle it: that key"
    )
    assert mark_explained(explained, describe(LACKS_KEY.missing)) is None
    other = mark_explained(explained, "something else")
    assert other is not None
    assert other.failure is not None
    assert other.failure.message == "the answer never came | still in doubt: something else"


def test_what_lasts_is_said_before_what_time_supplies() -> None:
    assert describe((*LACKS_TIME.missing, *LACKS_KEY.missing)).startswith("another key")
    assert describe(LACKS_TIME.missing) == "too soon. To settle it: later"


def wait_after(
    *missing: Missing, limit_s: float | None = None, passes: int = 1, refused: bool = False
) -> EndOfRunWait:
    wait = EndOfRunWait(WAIT_S, limit_s, 30.0)
    for _ in range(passes):
        verdict = StillInDoubt(in_doubt_record(), missing)
        wait.on_pass(log_with(complete=False, refused=refused), {"k": verdict}, 0.0)
    return wait


TOO_SOON = Missing(Premise.TIME, "too soon", "later", 2000.0)
LAGGING = Missing(Premise.WITNESSES, "behind", "later", 0.0)
REFUSED = Missing(Premise.PAGES, "HTTP 403", "another key")
ROTATED = Missing(Premise.KEY, "another key", "that key")


@pytest.mark.parametrize(
    ("wait", "at", "remaining_s"),
    [
        (wait_after(TOO_SOON), 0.0, 2000.0 + WAIT_S / 2),
        (wait_after(LAGGING), 0.0, WAIT_S / 2),
        (wait_after(LAGGING), 2000.0, WAIT_S / 2 - 2000.0),
        (wait_after(TOO_SOON, limit_s=60.0), 10.0, 50.0),
        (wait_after(TOO_SOON, limit_s=9000.0), 10.0, 8990.0),
        (wait_after(TOO_SOON, ROTATED), 0.0, 0.0),
        (wait_after(TOO_SOON, ROTATED, limit_s=9000.0), 0.0, 0.0),
        (wait_after(TOO_SOON, REFUSED, refused=True), 0.0, 2000.0 + WAIT_S / 2),
        (wait_after(TOO_SOON, REFUSED, refused=True, passes=3), 0.0, 0.0),
    ],
)
def test_run_stays_as_long_as_waiting_can_supply_what_is_missing(
    wait: EndOfRunWait, at: float, remaining_s: float
) -> None:
    assert wait.remaining_s(["k"], 0.0, at) == remaining_s


def test_row_that_was_not_asked_about_is_asked_first() -> None:
    assert wait_after(ROTATED, limit_s=0.0).remaining_s(["k", "new"], 0.0, 0.0) == inf


def test_next_pass_comes_when_the_proof_may_be_complete() -> None:
    assert wait_after(TOO_SOON).next_pass_s(30.0) == 30.0
    soon = wait_after(replace(TOO_SOON, wait_s=4.0))
    assert soon.next_pass_s(30.0) == pytest.approx(4.01)
    assert [wait_after(LAGGING).next_pass_s(gap) for gap, _ in pairwise((3.0, 30.0, 0.0))] == [3.0, 30.0]


def test_rows_from_another_key_or_address_are_reported() -> None:
    rows = [in_doubt_record("a"), in_doubt_record("b"), in_doubt_record("old", key_id="", api_url="")]
    assert origin_notes(rows, "key", URL) == ()
    [note] = origin_notes(rows, "rotated", URL)
    assert note.startswith("2 row(s)")
    [note] = origin_notes(rows, "key", "https://elsewhere.example.com")
    assert f"--base-url {URL}" in note
    done = [record(State.DONE, "d", key_id="key", api_url=URL)]
    assert origin_notes(done, "rotated", "https://elsewhere.example.com") == ()
