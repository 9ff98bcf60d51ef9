"""Creates that are refused for the moment: in an outage no row is at fault, beside others one may be."""

from __future__ import annotations

import pytest

from pipeline import backoff
from pipeline.submit.outage import Outage

POLICY = backoff.policy_for_interval(10.0)


class Vendor:
    """What a run has met so far, told as it comes."""

    def __init__(self) -> None:
        self.outage, self.now = Outage(POLICY), 0.0

    def refuse(self, key: str, *, reached: bool = True) -> None:
        self.outage.on_rejected(key, self.now, 0.1, reached=reached)
        self.now += self.outage.row_wait_s(key)

    def verdict(self, key: str) -> str:
        """Return what becomes of a row that was refused just now."""
        if not self.outage.retries_exhausted(key):
            return "again"
        return "failed" if self.outage.is_rows_own(key) else "left"


@pytest.mark.parametrize("refused_before", [False, True])
def test_an_outage_that_only_the_last_row_meets_is_not_its_own(refused_before: bool) -> None:
    vendor = Vendor()
    if refused_before:
        vendor.refuse("last")
    for number in range(99):
        vendor.outage.on_accepted(f"row-{number}")
    began = vendor.now
    while vendor.now - began < 300.0:
        vendor.refuse("last")
        assert vendor.verdict("last") in ("again", "left")
    assert vendor.verdict("last") == "left"


def test_an_acceptance_between_the_first_refusal_and_an_outage_makes_the_outage_nobodys_own() -> None:
    vendor = Vendor()
    vendor.refuse("b")
    vendor.refuse("c")
    vendor.outage.on_accepted("a")
    while not vendor.outage.is_over_limit():
        for key in ("b", "c"):
            vendor.refuse(key)
            assert vendor.verdict(key) in ("again", "left")


def test_a_row_that_is_refused_each_time_while_others_are_accepted_fails() -> None:
    vendor = Vendor()
    for number in range(1, POLICY.max_rejections + 1):
        vendor.refuse("bad")
        assert vendor.verdict("bad") == ("failed" if number == POLICY.max_rejections else "again")
        vendor.outage.on_accepted(f"row-{number}")


def test_an_outage_in_between_is_no_evidence_against_a_row() -> None:
    vendor = Vendor()
    for number in range(1, POLICY.max_rejections + 1):
        vendor.refuse("bad")
        if number != POLICY.max_rejections // 2:
            vendor.outage.on_accepted(f"row-{number}")
    assert vendor.verdict("bad") == "left"


def test_a_row_that_was_accepted_once_is_refused_for_no_fault_of_its_own() -> None:
    vendor = Vendor()
    for _ in range(POLICY.max_rejections):
        vendor.refuse("row")
        vendor.outage.on_accepted("row")
    vendor.refuse("row")
    assert vendor.verdict("row") == "again"
    assert not vendor.outage.is_rows_own("row")


def test_a_row_that_reached_nobody_uses_up_no_try() -> None:
    vendor = Vendor()
    for _ in range(20):
        vendor.refuse("row", reached=False)
    assert vendor.verdict("row") == "again"
