"""The record of spending: what each transition adds to it, and that nothing leaves it without a proof."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger.spending import Submission, SubmissionState, spending_change, submission_id
from pipeline.ledger.totals import Spending, totals_of
from pipeline.model import Failure, Record, State
from pipeline.plan import mark_interrupted, mark_resubmitted, mark_retried
from pipeline.reconcile.in_doubt import mark_never_accepted
from pipeline.submit.create import mark_generating
from tests.integration.ledger_servers import make_record

SENT = make_record("a").evolve(
    State.SUBMITTING,
    submission_no=1,
    correlation_id="vb.l.a.1",
    submitted_at=5.0,
    reserved_usd=1.2,
    key_id="k",
)
IN_DOUBT = SENT.evolve(State.IN_DOUBT)
GENERATING = mark_generating(SENT, "g1", 6.0)
READY = GENERATING.evolve(State.READY, finished_at=9.0, completed_at=9.0, usd_spent=1.2, reserved_usd=None)
REFUSED = SENT.evolve(State.FAILED, failure=Failure("refused", "no"), reserved_usd=None)


def failed(code: str, **changes: object) -> Record:
    return GENERATING.evolve(State.FAILED, failure=Failure(code, "no"), **changes)


@pytest.mark.parametrize(
    ("before", "after", "state"),
    [
        (make_record("a"), SENT, "reserved"),
        (SENT, IN_DOUBT, "maybe_spent"),
        (SENT, mark_interrupted(SENT), "maybe_spent"),
        (SENT, SENT.evolve(State.PENDING, reserved_usd=None), "released"),
        (SENT, REFUSED, "released"),
        (SENT, SENT.evolve(submitted_at=7.0), "reserved"),
        (IN_DOUBT, mark_never_accepted(IN_DOUBT), "released"),
        (IN_DOUBT, mark_resubmitted(IN_DOUBT), "maybe_spent"),
        (SENT, mark_resubmitted(SENT), "maybe_spent"),
        (IN_DOUBT, mark_generating(IN_DOUBT, "g1", 6.0), "reserved"),
        (GENERATING, READY, "spent"),
        (GENERATING, failed("generation_error"), "released"),
        (GENERATING, failed("no_video"), "spent"),
        (GENERATING, failed("generation_error", completed_at=8.0), "spent"),
        (GENERATING, failed("generation_error", usd_spent=1.2), "spent"),
        (GENERATING, failed("some_code_of_tomorrow"), "maybe_spent"),
    ],
)
def test_what_a_step_makes_of_an_entry(before: Record, after: Record, state: str) -> None:
    entry = spending_change(before, after)
    assert entry is not None
    assert (entry.id, entry.job_key, entry.state) == ("vb.l.a.1", "a@f00d", state)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (SENT, GENERATING),
        (GENERATING, GENERATING.evolve(polls=3)),
        (READY, READY.evolve(State.DONE)),
        (READY.evolve(State.DONE), READY.evolve(State.DONE).evolve(State.READY)),
        (REFUSED, mark_retried(REFUSED)),
        (failed("generation_error"), mark_retried(failed("generation_error"))),
        (make_record("a"), make_record("a").evolve(State.FAILED, failure=Failure("not_accepted", "no"))),
    ],
)
def test_a_step_that_moves_no_money_writes_no_entry(before: Record, after: Record) -> None:
    assert spending_change(before, after) is None


def test_an_adopted_generation_is_an_entry_of_its_own() -> None:
    paid = failed("no_video", usd_spent=1.2)
    adopted = paid.evolve(
        State.GENERATING,
        correlation_id="",
        generation_id="g2",
        earlier_usd=1.2,
        failure=None,
        reserved_usd=0.8,
    )
    entry = spending_change(paid, adopted)
    assert entry is not None
    assert (entry.id, entry.state, entry.reserved_usd, entry.usd) == ("adopted:g2", "reserved", 0.8, None)
    ready = adopted.evolve(State.READY, finished_at=9.0, completed_at=9.0, usd_spent=2.0)
    entry = spending_change(adopted, ready)
    assert entry is not None
    assert (entry.id, entry.state, entry.usd) == (submission_id(adopted), SubmissionState.SPENT, 0.8)


def test_a_second_submission_counts_only_what_it_cost_itself() -> None:
    second = replace(SENT, usd_spent=1.2, earlier_usd=1.2, correlation_id="vb.l.a.2")
    unknown = mark_generating(second, "g2", 6.0).evolve(State.READY, completed_at=9.0)
    entry = spending_change(mark_generating(second, "g2", 6.0), unknown)
    assert entry is not None
    assert (entry.state, entry.usd, entry.reserved_usd) == (SubmissionState.SPENT, None, 1.2)


ENTRIES = st.builds(
    Submission,
    id=st.uuids().map(str),
    job_key=st.just("a"),
    submission_no=st.just(1),
    key_id=st.just(""),
    api_url=st.just(""),
    model=st.just(""),
    submitted_at=st.none(),
    vendor_sent_at=st.none(),
    reserved_usd=st.sampled_from([None, 0.0, 1.2, 0.1]),
    state=st.sampled_from(SubmissionState),
    usd=st.sampled_from([None, 1.2, 0.7]),
    credits=st.sampled_from([None, 0.0, 2_400_000.0]),
    generation_id=st.sampled_from(["", "", "g1", "g2"]),
)


@given(st.lists(ENTRIES, max_size=12))
def test_sums_of_what_is_alike_are_those_of_the_entries(entries: list[Submission]) -> None:
    alike = Counter((str(one.state), one.usd, one.credits, one.reserved_usd) for one in entries)
    names = Counter(one.generation_id for one in entries if one.generation_id)
    shared = [one for one in entries if names[one.generation_id] > 1]
    assert (
        totals_of([(*group, count) for group, count in alike.items()], shared) == Spending(entries).totals()
    )
