"""The vendor, written from its public facts alone: what it accepts, what it charges, what it was asked.

`Double` keeps the book; `made` is the truth on what was accepted, and so on what will be paid.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, Any, Self

from tests.integration.ports import free_port
from tests.integration.vendor_double.cdn import Cdn
from tests.integration.vendor_double.http_server import Exchange, HttpServer, Request
from tests.integration.vendor_double.script import JobScript, error_body

if TYPE_CHECKING:
    from types import TracebackType

KEY = "sk-0123456789abcdef.SECRET"
GENERATIONS_PATH = "/v2/video/generations"
SAMPLE_VIDEO = {"url": "https://cdn.example.com/sample.mp4"}
_CLIENT_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass(slots=True)
class VendorGeneration:
    """One generation that was accepted; times are epoch seconds. It is charged once it is completed."""

    number: int
    prompt: str
    body: dict[str, Any]
    id: str | int
    client_id: str
    accepted_at: float
    ends_at: float
    script: JobScript
    key: str = KEY
    polls: int = 0

    @property
    def finished(self) -> bool:
        return time.time() >= self.ends_at and not self.script.status_replies

    @property
    def failed(self) -> bool:
        return self.script.final_answer is not None and self.script.final_answer.get("status") == "error"


class VendorDouble:
    """Both servers and the book. Change its attributes at any time; use it with `async with`.

    One that `goes_away` and comes back listens where nobody else does meanwhile.
    """

    def __init__(self, *, render_s: float = 0.3, key: str = KEY, fixed_ports: bool = False) -> None:
        self.key = key
        self.other_keys: set[str] = set()
        self.management_key = ""
        self.offers_transactions = False
        self.render_s = render_s
        self.scripts: dict[str, JobScript] = {}
        self.generations: list[VendorGeneration] = []
        self.create_counts: Counter[str] = Counter()
        self.requests: list[Request] = []
        self.statuses: Counter[int] = Counter()
        self.peak_in_flight = 0
        self.credits: int | None = None
        self.max_in_flight: int | None = None
        self.quota = False
        self.log_down = 0
        self.log_lag_s = 0.0
        self.log_page_rows = 100
        self.log_noise = 0
        self.prices_delay_s = 0.0
        self.api = HttpServer(self._route)
        self.cdn = Cdn(self)
        if fixed_ports:
            self.api.port, self.cdn.server.port = free_port(), free_port()
        self._by_id: dict[str, VendorGeneration] = {}

    async def __aenter__(self) -> Self:
        await self.api.open()
        await self.cdn.server.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.api.close()
        await self.cdn.server.close()

    async def network_outage(self, seconds: float) -> None:
        """Be gone from the network, and come back on the same ports."""
        await self.api.close()
        await self.cdn.server.close()
        await asyncio.sleep(seconds)
        await self.api.open()
        await self.cdn.server.open()

    def script(self, prompt: str, **fields: Any) -> JobScript:
        """Give a prompt's job a life of its own."""
        self.scripts[prompt] = JobScript(**fields)
        return self.scripts[prompt]

    def paid_counts(self) -> Counter[str]:
        """How often each prompt was accepted and did not fail: what its author pays for."""
        return Counter(made.prompt for made in self.generations if not made.failed)

    def in_flight(self) -> int:
        return sum(not made.finished for made in self.generations)

    def is_settled(self) -> bool:
        """Whether all that clients have sent is accepted, has ended, and is in the log."""
        return not self.api.open_connections and not self.in_flight()

    async def _route(self, exchange: Exchange) -> None:
        request = exchange.request
        self.requests.append(request)
        if request.path == "/v1/models":
            await asyncio.sleep(self.prices_delay_s)
            await exchange.send_json(404, error_body(404, "no such model", request.path))
        elif asking_key(request) not in {self.key, self.management_key, *self.other_keys}:
            await exchange.send_json(401, error_body(401, "Invalid API key provided", request.path))
        elif request.path == GENERATIONS_PATH and request.method == "POST":
            await self._create(exchange)
        elif request.path == GENERATIONS_PATH:
            await self._status(exchange)
        elif request.path == "/v2/logs":
            await self._log(exchange)
        elif request.path == "/v2/billing/transactions" and self.offers_transactions:
            charged = [made for made in reversed(self.generations) if made.finished and not made.failed]
            answer = {"data": [_transaction(made) for made in charged], "pagination": {"next_cursor": None}}
            await exchange.send_json(200, answer)
        elif request.path == "/v2/billing":
            await asyncio.sleep(self.prices_delay_s)
            await exchange.send_json(200, {"current_balance": 100.0, "currency": "USD"})
        else:
            await exchange.send_json(404, error_body(404, f"Cannot {request.method} {request.path}"))

    async def _create(self, exchange: Exchange) -> None:
        body = json.loads(exchange.request.body)
        prompt = str(body.get("prompt", ""))
        self.create_counts[prompt] += 1
        script = self.scripts.setdefault(prompt, JobScript())
        if script.creates:
            fault = script.creates.pop(0)
            made = self._accept(exchange.request, body, script) if fault.accept else None
            if fault.reply is not None:
                await fault.reply(exchange)
                return
            assert made is not None
            await self._send_accepted(exchange, made)
            return
        refusal = self._rejection()
        if refusal is not None:
            await exchange.send_json(refusal[0], error_body(*refusal))
            return
        await self._send_accepted(exchange, self._accept(exchange.request, body, script))

    def _rejection(self) -> tuple[int, str] | None:
        if self.credits is not None and len(self.generations) >= self.credits:
            return 403, "You've run out of credits. Please top up your balance or update your payment method"
        if self.quota:
            return 429, "You have reached the free-tier limit of 10 requests for the hour"
        if self.max_in_flight is not None and self.in_flight() >= self.max_in_flight:
            return 429, "Too many requests"
        return None

    def _accept(self, request: Request, body: dict[str, Any], script: JobScript) -> VendorGeneration:
        now, number = time.time(), len(self.generations)
        identity = script.id if script.id is not None else f"{uuid.uuid4()}:{body.get('model')}"
        client_id = request.headers.get("x-client-request-id", "")
        made = VendorGeneration(
            number=number,
            prompt=str(body.get("prompt", "")),
            body=body,
            id=identity if str(identity) not in self._by_id else f"{identity}#{number}",
            client_id=client_id if _CLIENT_ID.fullmatch(client_id) else "",
            accepted_at=now,
            ends_at=now + (self.render_s if script.render_s is None else script.render_s),
            script=script,
            key=asking_key(request),
        )
        self.generations.append(made)
        self._by_id[str(made.id)] = made
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight())
        return made

    async def _send_accepted(self, exchange: Exchange, generation: VendorGeneration) -> None:
        answer = {
            generation.script.id_name: generation.id,
            "status": "queued",
            "video": SAMPLE_VIDEO,
            "error": {"name": "x"},
        }
        await exchange.send_json(generation.script.accepted_status, answer)

    async def _status(self, exchange: Exchange) -> None:
        made = self._by_id.get(exchange.request.query.get("generation_id", ""))
        if made is None:
            await exchange.send_json(404, error_body(404, "Generation not found"))
            return
        made.polls += 1
        script = made.script
        if script.status_replies:
            reply = script.status_replies.pop(0)
            await reply(exchange)
            return
        answer: dict[str, Any] = {script.id_name: made.id}
        if not made.finished:
            status = script.running_statuses[made.polls % len(script.running_statuses)]
            answer |= {
                "status": status,
                "video": SAMPLE_VIDEO,
                "error": {"name": "sample", "message": "sample"},
            }
        elif script.final_answer is not None:
            answer |= script.final_answer
        else:
            answer |= {"status": "completed", "video": {"url": self.cdn.issue_url(made)}, "error": None}
            answer["meta"] = {"usage": {"credits_used": 2400000}}
        await exchange.send_json(200, answer)

    async def _log(self, exchange: Exchange) -> None:
        if self.log_down:
            await exchange.send_json(self.log_down, error_body(self.log_down, "Analytics are unavailable"))
            return
        query = exchange.request.query
        if "period" in query and ("start" in query or "end" in query):
            await exchange.send_json(400, error_body(400, "period or start and end, never both"))
            return
        asking, prefix = asking_key(exchange.request), query.get("key_prefix", "")
        if prefix and asking != self.management_key:
            await exchange.send_json(403, error_body(403, "A different key requires a management key"))
            return
        rows = self._log_rows(prefix or asking)
        offset = int(query.get("offset", "0"))
        page = rows[offset : offset + min(int(query.get("limit", "10")), self.log_page_rows)]
        more = offset + len(page) < len(rows)
        pagination = {"limit": len(page), "offset": offset, "total": len(rows), "has_more": more}
        await exchange.send_json(200, {"data": page, "pagination": pagination})

    def _log_rows(self, key: str) -> list[dict[str, Any]]:
        """Newest first, strangers' requests among them; a row comes once its generation is finished."""
        now = time.time()
        shown = [
            _log_row(made)
            for made in reversed(self.generations)
            if made.key.startswith(key)
            and made.script.in_log
            and made.ends_at < inf
            and now >= made.ends_at + self.log_lag_s + made.script.log_late_s
        ]
        noise = [
            {**_log_row(None), **dict.fromkeys(("inference_id", "client_request_id"), f"noise-{number}")}
            for number in range(self.log_noise)
        ]
        return [*noise, *shown]


def _log_row(generation: VendorGeneration | None) -> dict[str, Any]:
    """A row as the documentation has it: a generation that ended in error is a failed one, and free."""
    failed = generation is not None and generation.failed
    return {
        "created": _iso(time.time() if generation is None else generation.accepted_at),
        "status": "failed" if failed else "succeeded",
        "origin": "api",
        "model": "google/veo-3.1-i2v-fast",
        "cost": {"usd": 0.0, "credits": 0} if failed else {"usd": 1.2, "credits": 2400000},
        "tokens": None,
        "request_id": "r",
        "inference_id": None if generation is None else generation.id,
        "client_request_id": None if generation is None else generation.client_id or None,
    }


def _transaction(generation: VendorGeneration) -> dict[str, Any]:
    return {
        "type": "MODEL_USAGE",
        "amount": {"usd": 1.2, "credits": 2400000},
        "reference_id": generation.id,
        "created_at": _iso(generation.ends_at),
    }


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()


def asking_key(request: Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ")
