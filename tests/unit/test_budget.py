"""Settled and reserved never exceed the limit by a new reservation, whatever happens in between."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pipeline.model import Record, State
from pipeline.submit.budget import Budget

KEYS = st.sampled_from([f"job-{n}" for n in range(12)])
PRICES = st.decimals(min_value=0, max_value=5, places=4).map(float)


def record(key: str, state: State, reserved: float | None = None, spent: float | None = None) -> Record:
    return Record(
        key=key,
        id=key,
        fingerprint="f",
        position=0,
        model="m",
        body="{}",
        image_url="",
        prompt="",
        state=state,
        reserved_usd=reserved,
        usd_spent=spent,
    )


class BudgetMachine(RuleBasedStateMachine):
    """A vendor that charges what was reserved or less: its book stays within the limit."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget(10.0)
        self.charged: dict[str, float] = {}
        self.reserved: dict[str, float] = {}

    @rule(key=KEYS, price=PRICES)
    def reserve(self, key: str, price: float) -> None:
        if key in self.reserved or key in self.charged:
            return
        before = (self.budget.settled_usd, self.budget.reserved_usd)
        left = self.budget.left_usd
        assert left is not None
        if self.budget.reserve(key, price):
            self.reserved[key] = price
        else:
            assert price > left - 1e-9
            assert (self.budget.settled_usd, self.budget.reserved_usd) == before

    @rule(key=KEYS, share=st.floats(0, 1))
    def settle(self, key: str, share: float) -> None:
        if key in self.reserved:
            actual = round(self.reserved.pop(key) * share, 6)
            self.budget.settle(key, actual)
            self.charged[key] = actual

    @rule(key=KEYS)
    def release(self, key: str) -> None:
        self.budget.release(key)
        self.reserved.pop(key, None)

    @rule()
    def restart(self) -> None:
        done = [record(key, State.DONE, 5.0, usd) for key, usd in self.charged.items()]
        open_rows = [record(key, State.IN_DOUBT, usd) for key, usd in self.reserved.items()]
        failed = [record(f"failed-{n}", State.FAILED, None) for n in range(3)]
        self.budget = Budget.from_records(10.0, [*done, *open_rows, *failed])

    @invariant()
    def the_book_stays_within_the_limit(self) -> None:
        assert sum(self.charged.values()) + sum(self.reserved.values()) <= 10.0 + 1e-6
        assert self.budget.settled_usd == pytest.approx(sum(self.charged.values()), abs=1e-4)
        assert self.budget.reserved_usd == pytest.approx(sum(self.reserved.values()), abs=1e-4)


TestBudgetMachine = BudgetMachine.TestCase


def test_eight_rows_of_1_20_fit_into_10() -> None:
    budget = Budget(10.0)
    assert [budget.reserve(str(n), 1.2) for n in range(10)] == [True] * 8 + [False] * 2
    assert budget.left_usd == 0.4


def test_many_small_sums_do_not_drift() -> None:
    budget = Budget(100.0)
    assert all(budget.reserve(str(n), 0.1) for n in range(1000))
    assert not budget.reserve("more", 0.000001)
    assert budget.reserve("free", 0.0)


def test_without_a_limit_all_fits() -> None:
    budget = Budget(None)
    assert budget.reserve("a", 1e9)
    assert budget.left_usd is None
    assert budget.limit_usd is None


def test_a_higher_charge_stops_new_reservations() -> None:
    budget = Budget(10.0)
    assert budget.reserve("a", 5.0)
    budget.settle("a", 12.0)
    assert budget.left_usd == 0
    assert not budget.reserve("b", 0.01)


def test_settling_again_corrects_and_without_a_cost_keeps_the_price() -> None:
    budget = Budget(10.0)
    budget.reserve("a", 5.0)
    budget.settle("a", None)
    assert (budget.settled_usd, budget.reserved_usd) == (5.0, 0.0)
    budget.settle("a", 4.0)
    budget.settle("unknown", None)
    assert (budget.settled_usd, budget.reserved_usd) == (4.0, 0.0)


def test_reserving_again_replaces() -> None:
    budget = Budget(10.0)
    assert budget.reserve("a", 6.0)
    assert budget.reserve("a", 7.0)
    assert budget.reserved_usd == 7.0
    assert not budget.reserve("a", 11.0)
    assert budget.reserved_usd == 7.0


@pytest.mark.parametrize(
    ("state", "reserved", "spent", "counts"),
    [
        (State.PENDING, 2.0, None, 0.0),
        (State.PENDING, 2.0, 1.5, 1.5),
        (State.SUBMITTING, 2.0, None, 2.0),
        (State.IN_DOUBT, 2.0, None, 2.0),
        (State.IN_DOUBT, 2.0, 1.5, 3.5),
        (State.GENERATING, 2.0, None, 2.0),
        (State.GENERATING, 2.0, 0.0, 2.0),
        (State.GENERATING, 2.0, 2.5, 2.5),
        (State.READY, 2.0, None, 2.0),
        (State.READY, 2.0, 1.5, 1.5),
        (State.DONE, 2.0, None, 2.0),
        (State.DONE, 2.0, 1.5, 1.5),
        (State.DONE, None, None, 0.0),
        (State.FAILED, 2.0, None, 2.0),
        (State.FAILED, None, None, 0.0),
        (State.FAILED, 2.0, 1.5, 1.5),
    ],
)
def test_what_a_record_counts(
    state: State, reserved: float | None, spent: float | None, counts: float
) -> None:
    row = record("a", state, reserved, spent)
    budget = Budget.from_records(10.0, [row])
    assert budget.settled_usd + budget.reserved_usd == counts
    budget.update(row)
    assert budget.settled_usd + budget.reserved_usd == counts


@given(st.sampled_from([float("nan"), float("inf"), -1.0]))
def test_a_price_that_is_none_is_a_bug(price: Any) -> None:
    with pytest.raises(ValueError, match="finite"):
        Budget(10.0).reserve("a", price)
