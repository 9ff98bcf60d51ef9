"""The account's calls: `GET /v2/billing`, `/v2/billing/transactions` and `/v1/key`.

Facts: the vendor's documentation of the three. Transactions come newest first and are paged by a cursor; a
charge is a `MODEL_USAGE` with a positive amount, and its `reference_id` is the generation's id.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pipeline.sandbox import clock
from pipeline.sandbox.call import require_call
from pipeline.sandbox.faults.injector import FaultPoint, RequestContext
from pipeline.sandbox.responses import error_response, int_query_param, json_response, to_credits
from pipeline.sandbox.state import Status

if TYPE_CHECKING:
    from aiohttp import web

    from pipeline.sandbox.faults.injector import Fault
    from pipeline.sandbox.service import VendorService
    from pipeline.sandbox.state import Generation

CURSOR_PREFIX: Final = "after-"
KEY_CREATED_AT: Final = "2026-01-05T09:00:00.000Z"


class AccountApi:
    """The handlers of the calls about money and keys."""

    def __init__(self, service: VendorService) -> None:
        self._service = service

    async def billing(self, request: web.Request) -> web.Response:
        fault = self._pick_fault("billing")
        if fault is not None and fault.name == "account-error":
            return _unavailable(request, fault)
        left_usd = self._service.options.balance_usd - self._service.state.charged_usd
        return json_response({"current_balance": round(left_usd, 6), "currency": "USD"})

    async def transactions(self, request: web.Request) -> web.Response:
        fault = self._pick_fault("transactions")
        if fault is not None and fault.name == "account-error":
            return _unavailable(request, fault)
        try:
            limit = int_query_param(request, "limit", 50, 1, 100)
            charges = self._charges_before(request.query.get("cursor"))
        except ValueError as error:
            return error_response(request, 400, str(error))
        if fault is not None:  # transactions-frozen
            charges = [] if fault.value is None else charges[-round(fault.number(1)) :]
        page, rest = charges[:limit], charges[limit:]
        cursor = f"{CURSOR_PREFIX}{page[-1].number}" if rest else None
        pagination = {"limit": limit, "next_cursor": cursor, "has_more": bool(rest)}
        return json_response({"data": [self._transaction(one) for one in page], "pagination": pagination})

    async def key(self, request: web.Request) -> web.Response:
        fault = self._pick_fault("key")
        if fault is not None and fault.name == "account-error":
            return _unavailable(request, fault)
        rule = require_call().key
        month = replace(rule, retention="month").limit_start(self._service.clock.now())
        limit = (
            {"retention": rule.retention, "threshold": rule.limit_usd} if rule.limit_usd is not None else None
        )
        data: dict[str, Any] = {
            "name": "sandbox key",
            "disabled": rule.disabled,
            "prefix": rule.prefix,
            "scopes": None if rule.scopes is None else list(rule.scopes),
            "limit": limit,
            "created_at": KEY_CREATED_AT,
            "updated_at": KEY_CREATED_AT,
            "monthly_usage": self._service.spent_usd(rule, month - self._service.clock.offset_s),
        }
        match self._service.state.key_problems.get(rule.id):
            case "key-disabled":
                data["disabled"] = True
            case "key-scope":
                data["scopes"] = ["model:chat"]
            case "key-limit":
                data["limit"] = {"retention": "day", "threshold": data["monthly_usage"]}
        return json_response({"data": data})

    def _pick_fault(self, call: str) -> Fault | None:
        return self._service.injector.pick(FaultPoint.ACCOUNT, RequestContext(call, call))

    def _charges_before(self, cursor: str | None) -> list[Generation]:
        """Completed generations, the one charged last first, that come after the cursor's."""
        now_s = clock.now()
        charged = [one for one in self._service.state.generations if one.status_at(now_s) is Status.COMPLETED]
        charged.sort(key=lambda one: (one.finishes_at, one.number), reverse=True)
        if cursor is None:
            return charged
        numbers = [one.number for one in charged]
        number = cursor.removeprefix(CURSOR_PREFIX)
        if not number.isdecimal() or int(number) not in numbers:
            raise ValueError("cursor must be the next_cursor of an earlier page")
        return charged[numbers.index(int(number)) + 1 :]

    def _transaction(self, generation: Generation) -> dict[str, Any]:
        usd = generation.price_usd
        return {
            "id": f"txn-{generation.request_id}",
            "type": "MODEL_USAGE",
            "amount": {"usd": usd, "credits": to_credits(usd)},
            "reference_id": generation.id,
            "created_at": self._service.clock.timestamp(generation.finishes_at),
        }


def _unavailable(request: web.Request, fault: Fault) -> web.Response:
    message = "The account is not available"
    return error_response(request, round(fault.number(500)), message, shape=fault.shape)
