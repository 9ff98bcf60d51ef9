"""What a page of the vendor's log says, and when its silence proves nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.client.json_values import UnreadableResponseError
from pipeline.client.log_responses import parse_log_page
from tests.unit.test_client_responses import UNREADABLE


def log_page(*rows: object, **pagination: object) -> bytes:
    facts = {"pagination": pagination} if pagination else {}
    return json.dumps({"data": list(rows), **facts}).encode()


def test_a_row_of_the_log_is_read_whole() -> None:
    row = {
        "created": "2026-08-01T00:00:00Z",
        "status": "succeeded",
        "model": "m",
        "cost": {"usd": 0.4, "credits": "8000"},
        "request_id": 12,
        "inference_id": "g",
        "client_request_id": "c",
    }
    [read] = parse_log_page(log_page(row, has_more=False), offset=0).rows
    assert (read.client_request_id, read.inference_id, read.request_id) == ("c", "g", "12")
    assert (read.succeeded, read.usd, read.credits, read.model) == (True, 0.4, 8000, "m")


@pytest.mark.parametrize(
    "row", [{}, {"status": "odd", "cost": 3, "inference_id": None, "client_request_id": 7}]
)
def test_a_row_that_says_nothing_proves_nothing(row: dict[str, Any]) -> None:
    [read] = parse_log_page(log_page(row, has_more=False), offset=0).rows
    assert (read.client_request_id, read.inference_id, read.succeeded) == ("", "", None)


ROW = {"client_request_id": "c"}


@pytest.mark.parametrize(
    ("body", "offset", "more"),
    [
        (log_page(ROW, has_more=True), 0, True),
        (log_page(ROW, has_more=False, total=500), 0, False),
        (log_page(ROW, total=3), 0, True),
        (log_page(ROW, total=3), 2, False),
        (log_page(has_more=False), 0, False),
        (log_page(total=9), 9, False),
        (log_page(has_more=False, total=9), 0, False),
        (log_page(ROW), 0, True),
        (log_page(), 0, False),
    ],
)
def test_whether_another_page_follows(body: bytes, offset: int, more: bool) -> None:
    assert parse_log_page(body, offset=offset).has_more is more


@pytest.mark.parametrize(("body", "offset"), [(log_page(has_more=True), 0), (log_page(total=9), 8)])
def test_a_log_that_ends_too_soon_proves_no_absence(body: bytes, offset: int) -> None:
    with pytest.raises(UnreadableResponseError, match="ends where it says that there is more"):
        parse_log_page(body, offset=offset)


@pytest.mark.parametrize("name", ["data", "logs", "items", "rows", "results", "requests"])
def test_the_list_of_rows_is_found_under_any_name(name: str) -> None:
    body = json.dumps({name: [ROW], "pagination": {"has_more": False}}).encode()
    assert [row.client_request_id for row in parse_log_page(body, offset=0).rows] == ["c"]


@pytest.mark.parametrize(
    "body", [*UNREADABLE, b"{}", b'{"data": null}', b'{"data": null, "warnings": []}', b'{"data": {"a": 1}}']
)
def test_what_holds_no_rows_is_no_log(body: bytes) -> None:
    with pytest.raises(UnreadableResponseError):
        parse_log_page(body, offset=0)


def test_what_is_no_row_is_passed_over() -> None:
    page = parse_log_page(log_page(None, 3, [ROW], ROW, has_more=False), offset=0)
    assert [row.client_request_id for row in page.rows] == ["c"]
    assert page.row_count == 4
