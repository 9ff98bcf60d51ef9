"""Which claimed rows a cluster leases, and what it sets aside for them: by the selection and the budget."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.client import ApiKey
from pipeline.cluster.budget import ClusterBudget
from pipeline.cluster.messages import ClusterConfig
from pipeline.ledger.leases import LeasedRow
from pipeline.model import State
from pipeline.settings import Settings
from pipeline.submit.budget import PRICE_UNKNOWN_MESSAGE
from tests.unit.samples import record

CHOSEN, OTHER = record(name="chosen", index=1), record(name="other", index=0)


def budget_for(*chosen: str, max_cost: float | None = 1.0, price: float | None = 1.0) -> ClusterBudget:
    key, settings = ApiKey("any-key", "AIML_API_KEY"), Settings(max_cost=max_cost)
    facts: dict[str, Any] = {"assumed_price": price, "submittable": frozenset(chosen)}
    return ClusterBudget(ClusterConfig("", "", "", "", key, settings, 1, 30.0, **facts))


@pytest.mark.parametrize("max_cost", [None, 1.0])
def test_a_pending_row_that_is_not_selected_is_left_and_takes_no_money(max_cost: float | None) -> None:
    budget = budget_for(CHOSEN.key, max_cost=max_cost)
    affordable, over_budget, left = budget.allocate([LeasedRow(OTHER, 1), LeasedRow(CHOSEN, 1)])
    assert affordable == [(LeasedRow(CHOSEN, 1), 1.0)]
    assert over_budget == []
    assert left == {OTHER.key: ""}


def test_a_row_without_a_price_is_left_with_the_reason() -> None:
    allocation = budget_for(CHOSEN.key, price=None).allocate([LeasedRow(CHOSEN, 1)])
    assert allocation.left == {CHOSEN.key: PRICE_UNKNOWN_MESSAGE}


@pytest.mark.parametrize(("chosen", "affordable"), [(True, False), (False, True)])
def test_only_a_row_that_may_be_submitted_again_has_money_set_aside_for_that(
    chosen: bool, affordable: bool
) -> None:
    under_way = record(State.GENERATING, name="under-way", reserved_usd=0.0)
    budget = budget_for(CHOSEN.key, *([under_way.key] if chosen else []))
    allocation = budget.allocate([LeasedRow(under_way, 1), LeasedRow(CHOSEN, 1)])
    assert (allocation.over_budget == []) is affordable
