"""What identifies a key, the vendor's clock, and the account's charges as they are read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.client import ChargedUsage, TransactionPage, key_id
from pipeline.client.account import parse_transactions
from pipeline.client.json_values import UnreadableResponseError
from pipeline.client.vendor_clock import VendorClock

DATE = "Fri, 15 Jan 2027 08:00:00 GMT"
MOMENT = 1_800_000_000.0


def test_key_id_tells_keys_apart_within_one_ledger_and_shows_none_of_them() -> None:
    names = {key_id(secret, salt) for secret in ("sk-one", "sk-two") for salt in ("a", "b")}
    assert len(names) == 4
    assert key_id("sk-one", "a") == key_id("sk-one", "a")
    assert all("sk" not in name and len(name) == 32 for name in names)


def test_vendor_clock_goes_on_with_the_monotonic_one() -> None:
    clock = VendorClock()
    assert clock.now(50.0, 1000.0) is None
    clock.observe(DATE, 100.0, 1050.0)
    assert clock.now(160.0, 1110.0) == MOMENT + 60


def test_a_sleep_that_the_monotonic_clock_does_not_see_makes_the_vendors_time_unknown() -> None:
    clock = VendorClock()
    for _ in range(9):
        clock.observe(DATE, 100.0, 1000.0)
    assert clock.now(101.0, 4601.0) is None
    clock.observe("Fri, 15 Jan 2027 09:00:00 GMT", 101.0, 4601.0)
    assert clock.now(102.0, 4602.0) == MOMENT + 3601


@pytest.mark.parametrize("date", [None, "", "yesterday", "Fri, 99 Jan 2027 08:00:00 GMT"])
def test_date_that_cannot_be_read_is_left_out(date: str | None) -> None:
    clock = VendorClock()
    clock.observe(date, 1.0, 1.0)
    assert clock.now(1.0, 1.0) is None


def test_one_wrong_date_does_not_move_the_clock() -> None:
    clock = VendorClock()
    for date in (DATE, DATE, "Fri, 15 Jan 2027 23:00:00 GMT", DATE):
        clock.observe(date, 100.0, 100.0)
    assert clock.now(100.0, 100.0) == MOMENT


def test_charges_are_those_of_generations() -> None:
    rows: list[Any] = [
        {"type": "MODEL_USAGE", "reference_id": "g-1", "created_at": "2026-11-01T00:00:00Z"},
        {"type": "TOP_UP", "reference_id": "p-1", "created_at": "2026-11-01T00:00:00Z"},
        {"reference_id": 7, "created": "2026-11-02T00:00:00Z"},
        "junk",
    ]
    body = json.dumps({"data": rows, "pagination": {"next_cursor": "c2"}}).encode()
    assert parse_transactions(body) == TransactionPage(
        (ChargedUsage("g-1", "2026-11-01T00:00:00Z"), ChargedUsage("7", "2026-11-02T00:00:00Z")), "c2"
    )
    assert parse_transactions(b'{"data": [], "pagination": {"next_cursor": null}}') == TransactionPage((), "")


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"data": null}'])
def test_answer_without_a_list_is_no_list_of_charges(body: bytes) -> None:
    with pytest.raises(UnreadableResponseError):
        parse_transactions(body)
