"""Whose matter a 401, 402 or 403 is: the key's, its limit's, the credits', or the row's own."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.client import Cause, KeyInfo, Refusal, SpendingLimit, StatusError
from pipeline.client.account import parse_key_info
from pipeline.client.json_values import UnreadableResponseError
from pipeline.client.refusals import explain_refusal, resets_at
from pipeline.errors import StopReason

NOW = datetime(2026, 11, 28, 22, 30, tzinfo=UTC).timestamp()
"""A Saturday."""

WORKS = KeyInfo(disabled=False, scopes=None, limit=None, usage_usd=3.0)
DISABLED = replace(WORKS, disabled=True)
CHAT_ONLY = replace(WORKS, scopes=("model:chat",))
UNREACHABLE = StatusError(503, "HTTP 503")
REFUSED = StatusError(401, "HTTP 401")
ROW = Refusal(403, "HTTP 403: Forbidden", 0.40)


def limited(retention: str, threshold_usd: float = 3.2) -> KeyInfo:
    return replace(WORKS, limit=SpendingLimit(retention, threshold_usd))


def explain(
    key: KeyInfo | StatusError, balance_usd: float | StatusError | None, refusal: Refusal = ROW
) -> Cause:
    return explain_refusal(refusal, key, balance_usd, key_source="AIML_API_KEY", now=NOW)


@pytest.mark.parametrize(
    ("key", "balance_usd", "reason", "phrases"),
    [
        (REFUSED, REFUSED, StopReason.KEY, "AIML_API_KEY was refused .401.: put"),
        (DISABLED, 50.0, StopReason.KEY, "AIML_API_KEY is disabled: enable it"),
        (
            CHAT_ONLY,
            50.0,
            StopReason.KEY,
            "may not make videos .scopes: model:chat.: give it the scope model:video",
        ),
        (WORKS, 0.39, StopReason.CREDITS, "0.39 USD left, and the row costs 0.40: top it up"),
        (UNREACHABLE, 0.0, StopReason.CREDITS, "top it up"),
        (WORKS, -3.0, StopReason.CREDITS, "-3.00 USD left"),
        (limited("no_reset"), 50.0, StopReason.CREDITS, "limit of 3.20 USD is used up: raise it, or use ano"),
        (
            limited("month"),
            50.0,
            StopReason.CREDITS,
            "monthly limit .* after its reset .1 December, 00:00 UTC",
        ),
        (limited("day"), 0.1, StopReason.CREDITS, "top it up"),
        (UNREACHABLE, StatusError(403, "HTTP 403"), StopReason.CREDITS, "HTTP 403: Forbidden"),
    ],
)
def test_what_the_account_says_against_itself_stops_the_run(
    key: KeyInfo | StatusError, balance_usd: float | StatusError | None, reason: StopReason, phrases: str
) -> None:
    blocked = explain(key, balance_usd).blocked
    assert blocked is not None
    assert blocked.reason is reason
    assert re.search(phrases, blocked.message)
    assert "HTTP 403: Forbidden" in blocked.message


@pytest.mark.parametrize(
    ("key", "balance_usd", "price_usd", "works"),
    [
        (WORKS, 50.0, 0.40, True),
        (UNREACHABLE, 50.0, 0.40, True),
        (limited("day", 3.4), 50.0, 0.40, True),
        (WORKS, 50.0, None, None),
        (WORKS, None, 0.40, None),
        (WORKS, UNREACHABLE, 0.40, None),
        (UNREACHABLE, UNREACHABLE, 0.40, None),
    ],
)
def test_one_rows_403_is_not_the_accounts(
    key: KeyInfo | StatusError,
    balance_usd: float | StatusError | None,
    price_usd: float | None,
    works: bool | None,
) -> None:
    """A firewall answers a single prompt like an account without credits."""
    cause = explain(key, balance_usd, replace(ROW, price_usd=price_usd))
    assert cause == Cause(account_works=works, unanswered=key == balance_usd == UNREACHABLE)


BY_THE_DAY = "daily limit .* after its reset .29 November, 00:00 UTC"
BY_THE_WEEK = "weekly limit .* after its reset .30 November, 00:00 UTC"


@pytest.mark.parametrize(
    ("retention", "balance_usd", "reason", "phrases"),
    [
        ("week", 50.0, StopReason.CREDITS, BY_THE_WEEK),
        ("day", 50.0, StopReason.QUOTA, BY_THE_DAY),
        ("day", None, StopReason.QUOTA, BY_THE_DAY),
    ],
)
def test_a_months_usage_proves_no_daily_or_weekly_limit(
    retention: str, balance_usd: float | None, reason: StopReason, phrases: str
) -> None:
    """It may all be of the days before; it explains the refusals of several rows, or one that names it."""
    unnamed = explain(limited(retention), balance_usd)
    assert (unnamed.blocked, unnamed.account_works) == (None, None)
    named = explain(limited(retention), balance_usd, replace(ROW, message="HTTP 403: spending limit")).blocked
    for found in (unnamed.suspected, named):
        assert found is not None
        assert found.reason is reason
        assert re.search(phrases, found.message)


def test_a_key_that_works_may_not_see_the_balance() -> None:
    assert explain(WORKS, StatusError(403, "HTTP 403")) == Cause()


@pytest.mark.parametrize(
    ("balance_usd", "price_usd", "works"),
    [(2.0, 0.4, True), (1.9, 0.4, False), (1.9, None, None), (None, 0.4, None)],
)
def test_credits_that_may_be_held_show_no_account_that_works(
    balance_usd: float | None, price_usd: float | None, works: bool | None
) -> None:
    refusal = Refusal(403, "HTTP 403: Forbidden", price_usd, held_usd=1.6)
    assert explain(WORKS, balance_usd, refusal) == Cause(account_works=works)


def test_limit_that_the_vendor_names_explains_it_before_the_credits_do() -> None:
    named = replace(ROW, message="HTTP 403: the key's limit is reached")
    blocked = explain(limited("day"), 0.1, named).blocked
    assert blocked is not None
    assert blocked.reason is StopReason.QUOTA


def test_daily_limit_is_waited_for_until_midnight_utc() -> None:
    blocked = explain(limited("day"), 50.0).suspected
    assert blocked is not None
    assert blocked.retry_after == str(90 * 60)


@pytest.mark.parametrize(("second", "wait_s"), [(1, None), (599, None), (601, "85799")])
def test_a_limit_that_is_used_up_right_after_its_reset_is_not_waited_for_until_the_next_one(
    second: int, wait_s: str | None
) -> None:
    midnight = datetime(2026, 11, 28, tzinfo=UTC).timestamp()
    cause = explain_refusal(ROW, limited("day"), 50.0, key_source="K", now=midnight + second)
    assert cause.suspected is not None
    assert (cause.suspected.reason, cause.suspected.retry_after) == (StopReason.QUOTA, wait_s)


@pytest.mark.parametrize(
    ("retention", "day"),
    [
        ("day", (2026, 11, 29)),
        ("week", (2026, 11, 30)),
        ("month", (2026, 12, 1)),
        ("no_reset", None),
        ("", None),
    ],
)
def test_limits_reset_at_midnight_utc(retention: str, day: tuple[int, int, int] | None) -> None:
    expected = None if day is None else datetime(*day, tzinfo=UTC).timestamp()
    assert resets_at(SpendingLimit(retention, 1.0), NOW) == expected


def test_key_is_read_as_documented() -> None:
    data: dict[str, Any] = {
        "name": None,
        "disabled": False,
        "prefix": "b747e891",
        "scopes": ["model:chat", "model:video"],
        "limit": {"retention": "day", "threshold": 25},
        "created_at": "2026-02-18T06:57:29.232Z",
        "updated_at": "2026-02-18T06:57:29.232Z",
        "monthly_usage": 0.5,
    }
    expected = KeyInfo(False, ("model:chat", "model:video"), SpendingLimit("day", 25.0), 0.5)
    assert parse_key_info(json.dumps({"data": data}).encode()) == expected
    bare = {"disabled": True, "scopes": None, "limit": None, "monthly_usage": 0}
    assert parse_key_info(json.dumps({"data": bare}).encode()) == KeyInfo(True, None, None, 0.0)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"data": []}', b'{"data": null}', b"<html>"])
def test_what_describes_no_key_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadableResponseError):
        parse_key_info(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)


@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(("disabled", "scopes", "monthly_usage"), JSON)),
    st.fixed_dictionaries({}, optional={"retention": JSON, "threshold": JSON}) | JSON,
    st.none() | st.floats(allow_nan=False),
    st.none() | st.floats(min_value=0.0, allow_nan=False),
)
def test_key_of_any_shape_is_a_value(
    data: dict[str, Any], limit: object, balance_usd: float | None, price_usd: float | None
) -> None:
    key = parse_key_info(json.dumps({"data": {**data, "limit": limit}}).encode())
    cause = explain(key, balance_usd, replace(ROW, price_usd=price_usd))
    assert cause.blocked is None or not cause.account_works
