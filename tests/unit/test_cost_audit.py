"""The ledger's money against the vendor's log: every kind of difference, and none where there is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.client import LogRow
from pipeline.ledger.spending import Submission, SubmissionState
from pipeline.model import Record, State
from pipeline.results.cost_audit import audit_costs, learned_entries
from pipeline.submit.create import correlation_id

IDENTITY = "abcdefghij"


def done(name: str, *, usd: float | None = 0.4, reserved: float | None = None) -> Record:
    return Record(
        key=f"{name}@f0",
        id=name,
        fingerprint="f0",
        position=0,
        model="m",
        body="{}",
        manifest_image="",
        prompt="",
        state=State.DONE,
        submission_no=2,
        generation_id=f"gen-{name}",
        accepted_at=1.0,
        finished_at=2.0,
        usd_spent=usd,
        reserved_usd=reserved,
    )


def charge(
    record: Record, intent: int = 2, *, usd: float | None = 0.4, inference: str | None = None
) -> LogRow:
    return LogRow(
        client_request_id=correlation_id(IDENTITY, record, intent, "n"),
        inference_id=record.generation_id if inference is None else inference,
        request_id=f"req-{record.id}-{intent}",
        succeeded=True,
        usd=usd,
    )


def test_agreement_has_no_differences() -> None:
    rows = [done("a"), done("b")]
    found = audit_costs(rows, [charge(row) for row in rows], IDENTITY)
    assert found.differences == ()
    assert found.actual_usd == pytest.approx(0.8)
    assert (found.unknown_rows, found.other_requests) == (0, 0)


def test_a_row_that_the_log_shows_twice_by_paging_is_one_charge() -> None:
    row = done("a")
    assert audit_costs([row], [charge(row), charge(row)], IDENTITY).differences == ()


@pytest.mark.parametrize(
    ("log", "kind"),
    [
        ([(1, 0.4, "gen-a"), (2, 0.4, "gen-a")], "charged_twice"),
        ([(2, 0.6, "gen-a")], "amount"),
        ([(2, None, "gen-a")], "not_charged"),
        ([(1, 0.4, "gen-other")], "other_generation"),
    ],
)
def test_each_difference_is_named(log: list[tuple[int, float | None, str]], kind: str) -> None:
    row = done("a")
    charges = [charge(row, intent, usd=usd, inference=inference) for intent, usd, inference in log]
    assert kind in {item.kind for item in audit_costs([row], charges, IDENTITY).differences}


def test_a_charge_without_a_row_is_a_difference_and_other_peoples_are_not() -> None:
    gone = done("gone")
    stranger = LogRow(client_request_id="someone-else", inference_id="x", request_id="r", usd=9.0)
    found = audit_costs([done("a")], [charge(done("a")), charge(gone), stranger], IDENTITY)
    assert [item.kind for item in found.differences] == ["without_a_row"]
    assert (found.other_requests, found.other_usd) == (1, 9.0)


def test_a_cost_that_the_ledger_did_not_know_is_learned() -> None:
    row = done("a", usd=None, reserved=0.5)
    found = audit_costs([row], [charge(row)], IDENTITY)
    assert found.learned_costs[row.key].usd == 0.4
    assert found.actual_usd == pytest.approx(0.4)
    assert found.estimated_usd == 0.0


def test_what_nobody_has_said_is_estimated_or_unknown_and_never_nothing() -> None:
    found = audit_costs([done("a", usd=None, reserved=0.5), done("b", usd=None)], [], IDENTITY)
    assert (found.actual_usd, found.estimated_usd, found.unknown_rows) == (0.0, 0.5, 1)


def entry(name: str, state: SubmissionState, **facts: Any) -> Submission:
    return replace(Submission(name, "a@f0", 1, "", "", "m", 5.0, None, 0.5, state), **facts)


def test_the_log_settles_submissions_that_were_given_up_or_adopted() -> None:
    row = done("a")
    lost = entry(correlation_id(IDENTITY, row, 1, "n"), SubmissionState.MAYBE_SPENT)
    adopted = entry("adopted:gen-b", SubmissionState.SPENT, generation_id="gen-b")
    known = entry(correlation_id(IDENTITY, row, 2, "n"), SubmissionState.SPENT, usd=0.4)
    absent = entry("vb.absent", SubmissionState.MAYBE_SPENT)
    elsewhere = LogRow(client_request_id="x", inference_id="gen-b", request_id="r", succeeded=True, usd=0.7)
    log = [charge(row, 1, inference="gen-lost"), charge(row, 2), elsewhere]
    found = learned_entries([lost, adopted, known, absent], log)
    assert [(one.id, one.state, one.usd, one.generation_id) for one in found] == [
        (lost.id, SubmissionState.SPENT, 0.4, "gen-lost"),
        ("adopted:gen-b", SubmissionState.SPENT, 0.7, "gen-b"),
    ]
