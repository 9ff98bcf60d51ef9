"""A page of the vendor's request log, `GET /v2/logs`, as typed rows. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pipeline.client.json_values import UnreadableResponseError, parse_amount, parse_id, parse_object, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

LOG_REQUEST_GAP_S: Final = 0.35
"""Between two requests to the log: it allows 200 in 60 s (documented); some are left for others."""


@dataclass(frozen=True, slots=True)
class LogRow:
    """One request of ours in the vendor's log."""

    client_request_id: str
    inference_id: str
    request_id: str = ""
    succeeded: bool | None = None
    model: str = ""
    created: str = ""
    usd: float | None = None
    credits: float | None = None

    @property
    def is_charged(self) -> bool:
        """Whether a generation has ended well, by its price: a row may come, without one, on acceptance."""
        return self.succeeded is True and bool(self.usd or self.credits)


@dataclass(frozen=True, slots=True)
class LogPage:
    """A page of the log: our reading of its rows, how many there were, and whether another page follows."""

    rows: tuple[LogRow, ...]
    row_count: int
    has_more: bool


def parse_log_page(body: bytes, *, offset: int) -> LogPage:
    """Read a page of `/v2/logs`; raises `UnreadableResponseError` when there is no list of rows in it.

    So does a page that shows nothing and says that there is more: the end of such a log proves no absence,
    and absence is what lets a create be sent again.
    """
    payload = parse_object(body)
    items = _find_log_rows(payload)
    rows = tuple(_parse_log_row(item) for item in items if isinstance(item, dict))
    pagination = payload.get("pagination")
    page_info: Mapping[str, object] = pagination if isinstance(pagination, dict) else {}
    total = page_info.get("total")
    has_more = page_info.get("has_more")
    if isinstance(has_more, bool):
        more = has_more
    elif isinstance(total, int):
        more = offset + len(items) < total
    else:
        more = True  # nobody says where the log ends: an empty page does
    if more and not items and (has_more is True or isinstance(total, int)):
        raise UnreadableResponseError("a log that ends where it says that there is more")
    return LogPage(rows, len(items), more and bool(items))


def _find_log_rows(payload: Mapping[str, object]) -> list[object]:
    """The documentation names the rows' fields, not the list that holds them."""
    for name in ("data", "logs", "items", "rows", "results"):
        value = payload.get(name)
        if isinstance(value, list):
            return value
    for value in payload.values():
        if isinstance(value, list) and (
            any(isinstance(item, dict) for item in value) or "pagination" in payload
        ):
            return value
    raise UnreadableResponseError("a log without rows")


def _parse_log_row(item: Mapping[str, object]) -> LogRow:
    cost = item.get("cost")
    cost_fields: Mapping[str, object] = cost if isinstance(cost, dict) else {}
    status = text_of(item.get("status")).lower()
    return LogRow(
        client_request_id=text_of(item.get("client_request_id")),
        inference_id=parse_id(item.get("inference_id")),
        request_id=parse_id(item.get("request_id")),
        succeeded={"succeeded": True, "failed": False}.get(status),
        model=text_of(item.get("model")),
        created=text_of(item.get("created")),
        usd=parse_amount(cost_fields.get("usd")),
        credits=parse_amount(cost_fields.get("credits")),
    )
