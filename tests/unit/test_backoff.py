"""What is tried again, how soon, and when a row or a run has had its chances."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import backoff

DEFAULT_POLICY = backoff.policy_for_interval(10.0)


def test_default_backoff_ranges_from_one_second_to_a_minute() -> None:
    assert (DEFAULT_POLICY.first_wait_s, DEFAULT_POLICY.max_wait_s) == (1.0, 60.0)


@pytest.mark.parametrize(
    ("attempt", "low", "high"),
    [(1, 1, 2), (2, 2, 3), (3, 4, 5), (4, 8, 9), (5, 16, 17), (6, 32, 33), (7, 60, 60), (50, 60, 60)],
)
def test_waits_double_up_to_the_longest(attempt: int, low: float, high: float) -> None:
    waits = [backoff.backoff_s(DEFAULT_POLICY, attempt) for _ in range(50)]
    assert low <= min(waits)
    assert max(waits) <= high


def test_two_rows_that_fail_together_do_not_come_back_together() -> None:
    assert len({backoff.backoff_s(DEFAULT_POLICY, 2) for _ in range(20)}) > 10


@given(attempt=st.integers(-5, 10**9), interval=st.floats(0.001, 1e5))
def test_a_wait_is_always_within_the_policy(attempt: int, interval: float) -> None:
    policy = backoff.policy_for_interval(interval)
    assert 0 < backoff.backoff_s(policy, attempt) <= policy.max_wait_s


@pytest.mark.parametrize(
    ("more", "over"), [(-DEFAULT_POLICY.max_rejections, False), (-1, False), (0, True), (1, True)]
)
def test_a_row_gives_up_at_its_limit(more: int, over: bool) -> None:
    assert backoff.retries_exhausted(DEFAULT_POLICY, DEFAULT_POLICY.max_rejections + more) is over


def test_a_row_has_more_than_a_minute_of_chances() -> None:
    assert (
        sum(backoff.backoff_s(DEFAULT_POLICY, attempt) for attempt in range(1, DEFAULT_POLICY.max_rejections))
        > 60
    )


def test_a_wrong_address_is_noticed_sooner_than_an_outage() -> None:
    never, once = backoff.outage_limit_s(ever_reached=False), backoff.outage_limit_s(ever_reached=True)
    assert 60 < never < once


@pytest.mark.parametrize(
    ("retryable", "faults", "allowed", "again"),
    [
        (True, 0, 1, True),
        (True, 1, 1, False),
        (True, 1, 2, True),
        (True, 0, 0, False),
        (False, 0, 1, False),
        (False, 0, 20, False),
    ],
)
def test_only_a_fault_that_may_pass_is_generated_again(
    retryable: bool, faults: int, allowed: int, again: bool
) -> None:
    made = backoff.should_regenerate(retryable=retryable, faults=faults, generation_retries=allowed)
    assert made is again
