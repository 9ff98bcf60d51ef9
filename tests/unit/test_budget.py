"""What is committed never exceeds the limit by a new reservation, whatever has become of the rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger.spending import Submission, SubmissionState
from pipeline.ledger.totals import Spending, Totals
from pipeline.model import State
from pipeline.submit.budget import Budget
from tests.unit.sample_rows import row

RESERVED, MAYBE = SubmissionState.RESERVED, SubmissionState.MAYBE_SPENT
SPENT, RELEASED = SubmissionState.SPENT, SubmissionState.RELEASED


def entry(
    entry_id: str = "e", state: SubmissionState = RESERVED, reserved: float | None = None, **facts: Any
) -> Submission:
    base = Submission(entry_id, f"{entry_id}@f", 1, "", "", "m", 5.0, None, reserved, state)
    return replace(base, **facts)


def test_eight_rows_of_1_20_fit_into_10() -> None:
    budget = Budget(10.0)
    assert [budget.reserve(str(n), 1.2) for n in range(10)] == [True] * 8 + [False] * 2
    assert budget.remaining_usd == 0.4


def test_many_small_sums_do_not_drift() -> None:
    budget = Budget(100.0)
    assert all(budget.reserve(str(n), 0.1) for n in range(1000))
    assert not budget.reserve("more", 0.000001)
    assert budget.reserve("free", 0.0)


def test_without_a_limit_all_fits() -> None:
    budget = Budget(None, [entry()])
    assert budget.reserve("a", 1e9)
    assert budget.remaining_usd is None
    assert budget.limit_usd is None


def test_a_higher_charge_stops_new_reservations() -> None:
    budget = Budget(10.0, [entry(state=SPENT, reserved=5.0, usd=12.0)])
    assert budget.remaining_usd == 0
    assert not budget.reserve("b", 0.01)


def test_reserving_again_replaces() -> None:
    budget = Budget(10.0)
    assert budget.reserve("a", 6.0)
    assert budget.reserve("a", 7.0)
    assert budget.committed_usd == 7.0
    assert not budget.reserve("a", 11.0)
    assert budget.committed_usd == 7.0
    budget.release("a")
    assert budget.committed_usd == 0.0


@pytest.mark.parametrize(
    ("state", "reserved", "facts", "counts"),
    [
        (RESERVED, 2.0, {}, 2.0),
        (MAYBE, 2.0, {}, 2.0),
        (SPENT, 2.0, {}, 2.0),
        (SPENT, 2.0, {"usd": 1.5}, 1.5),
        (SPENT, 2.0, {"usd": 0.0}, 0.0),
        (SPENT, None, {"credits": 2_400_000.0}, 1.2),
        (SPENT, 2.0, {"credits": 120_000.0}, 2.0),
        (SPENT, 2.0, {"credits": 0.0}, 2.0),
        (SPENT, None, {"usd": 1.5}, 1.5),
        (SPENT, None, {}, 0.75),
        (RESERVED, None, {}, 0.75),
        (MAYBE, None, {}, 0.75),
        (RELEASED, 2.0, {}, 0.0),
        (RELEASED, None, {}, 0.0),
    ],
)
def test_what_an_entry_counts(
    state: SubmissionState, reserved: float | None, facts: dict[str, float], counts: float
) -> None:
    """What nobody knows counts at the price that is assumed."""
    budget = Budget(10.0, [entry("e", state, reserved, **facts)], lambda _: 0.75)
    assert budget.committed_usd == counts


@pytest.mark.parametrize("state", [RESERVED, MAYBE, SPENT])
def test_a_cost_that_nobody_knows_blocks_and_says_what_to_do(state: SubmissionState) -> None:
    budget = Budget(10.0, [entry("cat", state), entry("dog", SPENT, usd=1.0)])
    assert not budget.reserve("a", 0.1)
    message = budget.full_message()
    assert "what cat cost is unknown" in message
    assert "--assume-price" in message
    assert "veobatch costs" in message


def test_an_unknown_cost_blocks_until_it_is_known() -> None:
    generating = row(1, State.GENERATING, submission_no=1, correlation_id="vb.l.a.1", generation_id="g")
    budget = Budget(10.0)
    budget.update(generating)
    assert not budget.reserve("b", 1.0)
    budget.apply(generating, generating.evolve(State.READY, completed_at=9.0, usd_spent=1.2))
    assert budget.committed_usd == 1.2
    assert budget.reserve("b", 1.0)


def test_many_unknown_costs_are_named_by_the_first() -> None:
    message = Budget(10.0, [entry(f"row-{n}", SPENT) for n in range(5)]).full_message()
    assert "row-0, row-1, row-2 and 2 more" in message


def test_one_generation_counts_once_however_many_entries_name_it() -> None:
    doubt = entry("doubt", MAYBE, 1.2)
    adopted = entry("adopted", RESERVED, 1.2, generation_id="g")
    assert Spending([doubt, adopted]).totals() == Totals(open_usd=1.2, maybe_usd=1.2)
    spending = Spending([doubt, adopted, replace(doubt, generation_id="g")])
    assert (spending.committed, spending.totals().committed_usd) == (1_200_000, 1.2)
    spending.put(replace(adopted, state=SPENT, usd=1.0))
    assert spending.committed == 1_200_000
    spending.put(replace(doubt, state=SPENT, usd=1.0))
    assert (spending.committed, spending.totals()) == (1_000_000, Totals(spent_usd=1.0))


def test_what_is_spent_stays_spent_and_what_is_known_stays_known() -> None:
    spending = Spending([entry("e", SPENT, 2.0, usd=1.2)])
    spending.put(entry("e", RELEASED))
    spending.put(entry("e", RESERVED))
    assert (spending.committed, spending.totals()) == (1_200_000, Totals(spent_usd=1.2))


def test_totals_tell_confirmed_from_assumed() -> None:
    entries = [
        entry("a", SPENT, 2.0, usd=1.2),
        entry("b", SPENT, 1.6),
        entry("c", RESERVED, 1.0),
        entry("d", MAYBE, 0.5),
        entry("e", RELEASED, 9.0),
        entry("f", SPENT),
    ]
    totals = Spending(entries).totals()
    assert totals == Totals(1.2, 1.6, 1.0, 0.5, unpriced=1)
    assert totals.committed_usd == pytest.approx(4.3)


def test_a_reservation_holds_for_what_a_worker_submits_of_it() -> None:
    """The row is lent with its money; its submissions use that up, and do not count beside it."""
    old = entry("old", SPENT, usd=1.0, job_key="a")
    budget = Budget(10.0, [old])
    assert budget.reserve("a", 1.2)
    assert budget.committed_usd == 2.2
    budget.load([old, entry("new", RESERVED, 1.2, job_key="a")])
    assert budget.committed_usd == 2.2
    budget.load([old, entry("new", RELEASED, 1.2, job_key="a")])
    assert budget.committed_usd == 2.2, "it may be submitted once more"
    budget.load([old, entry("new", SPENT, 1.2, job_key="a", usd=1.5)])
    assert budget.committed_usd == 2.5
    budget.update(row(1, State.PENDING, key="a"))
    assert budget.committed_usd == 2.5


@pytest.mark.parametrize(("limit", "overdrawn"), [(2.4, False), (2.39, True), (None, False)])
def test_rows_under_way_may_hold_more_than_the_limit(limit: float | None, overdrawn: bool) -> None:
    """An older ledger may learn of more than was planned for."""
    budget = Budget(limit)
    for key in ("a", "b"):
        budget.hold(row(1, State.IN_DOUBT, key=key, correlation_id=key, reserved_usd=1.2), 1.2)
    assert budget.is_overdrawn is overdrawn


@pytest.mark.parametrize("state", [State.SUBMITTING, State.GENERATING, State.IN_DOUBT])
def test_a_row_under_way_keeps_its_price_for_its_next_submission(state: State) -> None:
    """Whoever took it over submits it again without asking; only the ledger saw that it cost nothing."""
    under_way = row(1, state, key="a", correlation_id="c", reserved_usd=1.2)
    budget = Budget(10.0)
    budget.hold(under_way, 1.2)
    assert budget.committed_usd == 1.2, "its submission uses that"
    budget.load([entry("c", RELEASED, 1.2, job_key="a")])
    assert budget.committed_usd == 1.2, "it may be submitted once more"
    budget.load([entry("c", RELEASED, 1.2, job_key="a"), entry("d", RESERVED, 1.2, job_key="a")])
    assert budget.committed_usd == 1.2
    budget.update(row(1, State.FAILED, key="a", correlation_id="d", generation_id=""))
    assert budget.committed_usd == 0.0


@given(st.sampled_from([float("nan"), float("inf"), -1.0]))
def test_a_price_that_is_none_is_a_bug(price: Any) -> None:
    with pytest.raises(ValueError, match="finite"):
        Budget(10.0).reserve("a", price)
