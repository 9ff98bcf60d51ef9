"""The vendor as its documentation describes it (`api.md` is its only source), without a socket.

It keeps a book of what it accepted and charged, which the invariants read. Times are the world's, in seconds.
"""

from __future__ import annotations

import heapq
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from tests.simulation.machine import EPOCH

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.simulation.machine import Process
    from tests.simulation.world import World

MODEL: Final = "google/veo-3.1-i2v-fast"
PRICE_USD: Final = 1.2
CDN: Final = "https://cdn.example/"


@dataclass(slots=True)
class Answer:
    """An answer as it leaves the vendor."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Generation:
    """One accepted create."""

    id: str
    key: str
    correlation: str
    accepted_at: float
    ends_at: float
    log_at: float
    charged_at: float
    failure: str = ""
    clips: int = 1
    queued: bytes = b""
    logged: bytes = b""
    damaged: dict[int, int] = field(default_factory=dict)
    """From which byte on the CDN has damaged the rest of a clip, by the clip's number."""
    flaps: int = 0
    urlless: int = 0
    urlless_until: float = 0.0
    errors_to_come: int = 0
    errors_until: float = 0.0
    told: tuple[float, Process] | None = None
    """When, and to which process, it was first called completed, if errors for long follow."""

    def is_over(self, now: float) -> bool:
        return now >= self.ends_at

    @property
    def is_paid(self) -> bool:
        return not self.failure


@dataclass(frozen=True, slots=True)
class Pace:
    """How this vendor is: seconds, and what an account may have in progress."""

    shortest_s: float
    longest_s: float
    log_lag_s: float
    limit: int
    failing: float
    refusing: float
    pairs: float = 0.03
    """How many generations have two clips."""
    page_rows: int = 1000
    charges: str = "offered"
    """"not offered": this API has no call for them."""
    log_allowed: bool = True
    """Whether the user's keys may read the log."""


def iso(at: float) -> str:
    return datetime.fromtimestamp(EPOCH + at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def problem(status: int, message: str, **headers: str) -> Answer:
    body = {"message": message, "path": "/v2/video/generations", "requestId": "req-1", "statusCode": status}
    return Answer(status, json.dumps(body).encode(), {k.replace("_", "-"): v for k, v in headers.items()})


def clip_bytes(generation_id: str, number: int) -> bytes:
    """Return a file that begins and ends like an MP4 and is no other generation's."""
    payload = f"{generation_id}#{number}|".encode() * 24
    boxes = ((b"ftyp", b"isom\0\0\2\0isom"), (b"moov", bytes(24)), (b"mdat", payload))
    return b"".join((len(data) + 8).to_bytes(4, "big") + kind + data for kind, data in boxes)


class Vendor:
    """The account and its generations."""

    def __init__(self, world: World, pace: Pace) -> None:
        self.world, self.pace = world, pace
        self.generations: dict[str, Generation] = {}
        self.valid_keys = {"sk-first-key", "sk-second-key"}
        self.log_stands_since: float | None = None
        self.stale_until, self.fresh_from, self.behind_s = -1.0, 0.0, 0.0
        self.account_empty = self.withdrawn = self.away = self.flooded = False
        self.forgets_statuses = self.nameless_errors = False
        self._running: list[float] = []
        self._refused: list[tuple[float, str, str]] = []
        self._chance = world.chance.stream("vendor")
        self._numbers = 0

    def in_progress(self) -> int:
        """Return how many generations are rendering now."""
        while self._running and self._running[0] <= self.world.now:
            heapq.heappop(self._running)
        return len(self._running)

    def create(self, body: bytes, headers: Mapping[str, str]) -> tuple[Answer, Generation | None]:
        """Take a create, or refuse it."""
        key = headers["Authorization"].removeprefix("Bearer ")
        if key not in self.valid_keys:
            return problem(401, "Unauthorized"), None
        if self.withdrawn:
            return problem(404, "model not found"), None
        if self.account_empty:
            return problem(403, "You have run out of credits"), None
        request = json.loads(body)
        if request.get("prompt", "").startswith("refuse"):
            return problem(422, "prompt is not allowed"), None
        if self.flooded or self.in_progress() >= self.pace.limit:
            return problem(429, "Too many generations at once"), None
        generation = self._accept(key, headers.get("X-Client-Request-Id", ""))
        return self.accepted(generation), generation

    def _accept(self, key: str, correlation: str) -> Generation:
        chance, pace, now = self._chance, self.pace, self.world.now
        self._numbers += 1
        number = f"{chance.getrandbits(48):012x}"
        style = chance.randrange(4)
        names = (f"{number}-{self._numbers}", str(self._numbers + 10**9), f"{number}:{MODEL}", f"-{number}")
        ends_at = now + pace.shortest_s + (pace.longest_s - pace.shortest_s) * chance.random() ** 3
        fails = chance.random() - pace.failing
        failure = "provider" if fails < 0 else "policy" if fails < pace.refusing else ""
        generation = Generation(
            names[style],
            key,
            correlation,
            now,
            ends_at,
            log_at=ends_at + pace.log_lag_s * chance.random(),
            charged_at=ends_at + 20.0 * chance.random(),
            failure=failure,
            clips=2 if chance.random() < pace.pairs else 1,
        )
        generation.queued = json.dumps(
            {"id": generation.id, "status": "queued", "video": None, "error": None}
        ).encode()
        self.generations[generation.id] = generation
        heapq.heappush(self._running, ends_at)
        self.world.book.on_accepted(generation)
        return generation

    def accepted(self, generation: Generation) -> Answer:
        """Return the answer to its create, which names that, as every answer of the vendor does."""
        names = {"x-inference-id": generation.id, "x-client-request-id": generation.correlation}
        return Answer(200, generation.queued, names)

    def status(self, generation_id: str, key: str) -> Answer:
        """Say how a generation stands."""
        generation = self.generations.get(generation_id)
        if key not in self.valid_keys:
            return problem(401, "Unauthorized")
        if generation is None:
            return problem(404, "generation not found")
        if not generation.is_over(self.world.now):
            return Answer(200, generation.queued)
        return Answer(200, json.dumps(self._final(generation)).encode())

    def _final(self, generation: Generation) -> dict[str, Any]:
        if generation.failure == "policy":
            error = {"name": "ContentPolicyError", "message": "flagged by the safety policy"}
        else:
            error = {"name": "ProviderError", "message": "the provider failed"}
        if generation.failure:
            return {"id": generation.id, "status": "error", "video": None, "error": error}
        urls = [{"url": self.clip_url(generation, number)} for number in range(generation.clips)]
        usage = {"credits_used": round(PRICE_USD * 2_000_000)}
        video: Any = urls if len(urls) > 1 else urls[0]
        return {"id": generation.id, "status": "completed", "video": video, "meta": {"usage": usage}}

    def clip_url(self, generation: Generation, number: int) -> str:
        return f"{CDN}{generation.id.replace(':', '_').replace('/', '_')}/{number}.mp4?sig=secret"

    def log(self, query: str, key: str, *, behind_s: float = 0.0) -> Answer:
        """Return a page of the request log of the asking key, as far as it has come."""
        if key not in self.valid_keys:
            return problem(401, "Unauthorized")
        if not self.pace.log_allowed:
            return problem(403, "this key may not read the log")
        asked = {name: values[0] for name, values in parse_qs(query).items()}
        limit, offset = int(asked.get("limit", "50")), int(asked.get("offset", "0"))
        limit = min(limit, self.pace.page_rows)
        if ("period" in asked) == ("start" in asked):
            return problem(400, "give either period or start and end")
        seen = self.world.now if self.log_stands_since is None else self.log_stands_since
        start, end = _window(asked, self.world.now)
        rows = [
            generation
            for generation in self.generations.values()
            if generation.key == key
            and generation.log_at <= seen - behind_s
            and start <= generation.accepted_at <= end
        ]
        rows.sort(key=attrgetter("accepted_at"), reverse=True)
        page = b", ".join(map(self._log_row, rows[offset : offset + limit]))
        more = offset + limit < len(rows)
        pages = {"limit": limit, "offset": offset, "total": len(rows), "has_more": more}
        return Answer(200, b'{"data": [%b], "pagination": %b}' % (page, json.dumps(pages).encode()))

    def _log_row(self, generation: Generation) -> bytes:
        """Return the row of a generation, written once: some worlds read their log a thousand times."""
        if not generation.logged:
            generation.logged = json.dumps(self._log_values(generation)).encode()
        return generation.logged

    def _log_values(self, generation: Generation) -> dict[str, Any]:
        return {
            "created": iso(generation.accepted_at),
            "status": "failed" if generation.failure else "succeeded",
            "origin": "api",
            "model": MODEL,
            "cost": {"usd": PRICE_USD * generation.is_paid, "credits": 0},
            "request_id": None,
            "inference_id": generation.id,
            "client_request_id": generation.correlation or None,
        }

    def transactions(self, key: str) -> Answer:
        """Return the account's charges, newest first."""
        if self.pace.charges == "not offered":
            return problem(404, "not found")
        charged = [g for g in self.generations.values() if g.is_paid and g.charged_at <= self.world.now]
        charged.sort(key=lambda generation: -generation.charged_at)
        rows = [
            {"type": "MODEL_USAGE", "reference_id": g.id, "created_at": iso(g.charged_at), "amount": {}}
            for g in charged
        ]
        return Answer(200, json.dumps({"data": rows, "pagination": {"next_cursor": None}}).encode())

    def account(self, path: str, key: str) -> Answer:
        """Answer what is asked of the key and the balance."""
        if key not in self.valid_keys:
            return problem(401, "Unauthorized")
        if path == "/v2/billing":
            balance = 0.0 if self.account_empty else 1e6
            return Answer(200, json.dumps({"current_balance": balance, "currency": "USD"}).encode())
        info = {"disabled": False, "scopes": ["model:video"], "limit": None, "monthly_usage": 1.0}
        return Answer(200, json.dumps({"data": info}).encode())

    def catalogue(self, path: str) -> Answer:
        """Answer what needs no key: models, and those that retire."""
        if path == "/v1/models/deprecations":
            entry = {
                "id": MODEL, "aliases": [], "status": "withdrawn", "shutdown_at": "2026-01-01",
                "deprecated_at": "2026-01-01", "replaced_by": "other", "reason": "",
            }  # fmt: skip
            return Answer(200, json.dumps({"object": "list", "data": [entry] * self.withdrawn}).encode())
        return Answer(200, json.dumps({"data": [] if self.withdrawn else [{"id": MODEL}]}).encode())


def _window(asked: Mapping[str, str], now: float) -> tuple[float, float]:
    if "period" in asked:
        count, unit = int(asked["period"][:-1]), asked["period"][-1]
        return now - count * (3600.0 if unit == "h" else 86_400.0), now
    start, end = (datetime.fromisoformat(asked[name]).timestamp() - EPOCH for name in ("start", "end"))
    return start, end
