"""What lies between a process and the vendor: sessions that the package takes for aiohttp's.

A fault strikes before or after the vendor has taken a request; the process learns what a socket shows.
"""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import unquote

import aiohttp
from multidict import CIMultiDict

from pipeline.client import Api
from pipeline.client.connection import on_connected
from pipeline.client.missing_models import MissingModels
from tests.simulation.answers import AFTER_ACCEPTANCE, FLAP, NAMELESS_ERROR, REFUSALS, URLLESS
from tests.simulation.machine import EPOCH
from tests.simulation.vendor import Answer, problem

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from tests.simulation.machine import Process
    from tests.simulation.vendor import Generation

BASE_URL: Final = "https://api.example"
TIMEOUT_S: Final = 60.0
CONTRARY_POLLS: Final = 4
CONTRARY_S: Final = 3000.0
"""For how long a completed generation is called failed: for a few polls, or until the world turns kind."""
URLLESS_S: Final = 400.0
COMMITTED_WITHIN_S: Final = 3.0


class SimResponse:
    """What the package reads of an `aiohttp.ClientResponse`. `cut` ends the body early, with an error."""

    def __init__(self, answer: Answer, date: str, *, cut: bool = False) -> None:
        self.status, self._body, self._cut = answer.status, answer.body, cut
        self.headers: CIMultiDict[str] = CIMultiDict(answer.headers)
        self.headers.setdefault("Date", date)
        self.headers.setdefault("Content-Length", str(len(answer.body)))
        self.content_length = len(answer.body)
        self.reason = ""

    async def read(self) -> bytes:
        if self._cut:
            raise aiohttp.ClientPayloadError("cut")
        return self._body

    @property
    def content(self) -> Any:
        return SimpleNamespace(iter_any=self._iter, iter_chunked=self._iter)

    async def _iter(self, _: int = 0) -> Any:
        yield await self.read()

    def close(self) -> None:
        """Nothing is open."""

    release = close


class SimRequest:
    """A request on its way: `async with` or `await` it."""

    def __init__(self, exchange: Any) -> None:
        self._exchange = exchange

    async def __aenter__(self) -> Any:
        return await self._exchange

    async def __aexit__(self, *_: object) -> None:
        return None

    def __await__(self) -> Generator[Any, None, Any]:
        result: Generator[Any, None, Any] = self._exchange.__await__()
        return result


class ApiSession:
    """A session towards the API, for one process."""

    def __init__(self, process: Process) -> None:
        self.process, self.world = process, process.world
        self._ways = self.world.chance.stream(f"network {process.number}")
        self._dates: tuple[int, str] = (-1, "")

    async def close(self) -> None:
        """Nothing is open."""

    def post(self, url: str, *, data: Any, headers: Mapping[str, str], **options: Any) -> SimRequest:
        body = data if isinstance(data, bytes) else data.read()
        return SimRequest(self._create(body, headers, options["trace_request_ctx"]))

    def get(self, url: Any, *, headers: Mapping[str, str] | None = None, **_: Any) -> SimRequest:
        return SimRequest(self._get(str(url), headers or {}))

    async def _delay(self, longest_s: float = 0.3) -> None:
        await asyncio.sleep(longest_s * self._ways.random() ** 2)

    def _respond(self, answer: Answer, *, cut: bool = False) -> SimResponse:
        now = int(self.world.now)
        if self._dates[0] != now:
            self._dates = now, formatdate(EPOCH + now, usegmt=True)
        return SimResponse(answer, self._dates[1], cut=cut)

    async def _create(self, data: bytes, headers: Mapping[str, str], trace: Any) -> SimResponse:
        kind = self.world.chance.draw("create")
        await self._delay()
        if kind == "asleep before it leaves":
            self._sleep_now()
            await self._delay()
        if kind == "refused connection" or self.world.vendor.away:
            raise aiohttp.ClientConnectionError("connection refused")
        params: Any = None
        await on_connected(self._session(), SimpleNamespace(trace_request_ctx=trace), params)
        self.world.book.on_sent(headers["X-Client-Request-Id"])
        self.world.tell("POST", headers["X-Client-Request-Id"], kind)
        if kind == "reset before acceptance":
            raise aiohttp.ServerDisconnectedError
        if kind == "silence before acceptance":
            await self._time_out()
        if kind in REFUSALS:
            await self._delay()
            return self._respond(REFUSALS[kind])
        if kind == "429 with a date":
            date = formatdate(EPOCH + self.world.now + 9, usegmt=True)
            return self._respond(problem(429, "Too many requests", Retry_After=date))
        answer, generation = self.world.vendor.create(data, headers)
        self.world.tell("ANSWER", headers["X-Client-Request-Id"], answer.status, generation and generation.id)
        return await self._deliver(answer, generation, kind)

    def _mixed_up(self, generation: Generation) -> Answer:
        """Return the answer to another create, which names that one; nobody may know yet whose it is."""
        vendor = self.world.vendor
        others = [one for one in vendor.generations.values() if one is not generation]
        return vendor.accepted(others[self._ways.randrange(len(others))] if others else generation)

    def _session(self) -> Any:
        return self

    def _sleep_now(self) -> None:
        """The lid is closed and opened hours later: the machine's monotonic clock has not moved."""
        slept_s = 600.0 + 10_000.0 * self._ways.random()
        self.world.now += slept_s
        self.process.machine.suspended_s += slept_s

    async def _time_out(self) -> None:
        await asyncio.sleep(TIMEOUT_S)
        raise TimeoutError

    async def _deliver(self, answer: Answer, generation: Generation | None, kind: str) -> SimResponse:
        """Bring the vendor's answer back, or what is left of it."""
        await self._delay(30.0 if kind == "slow acceptance" else 2.0)
        if generation is None:
            return self._respond(answer)
        if kind in AFTER_ACCEPTANCE:
            named = {"x-inference-id": generation.id} if kind.endswith("with the id") else {}
            return self._respond(Answer(AFTER_ACCEPTANCE[kind], b"<html>gateway</html>", named))
        match kind:
            case "silence after acceptance" | "asleep before it leaves":
                await self._time_out()
            case "cut answer":
                if self._ways.random() < 0.5:
                    raise aiohttp.ServerDisconnectedError
                named = answer.headers if self._ways.random() < 0.5 else {}
                return self._respond(Answer(200, answer.body, named), cut=True)
            case "garbled answer":
                return self._respond(Answer(200, b"\xff\xfe{]", {}))
            case "nameless error after acceptance":
                return self._respond(NAMELESS_ERROR)
            case "answer to another":
                return self._respond(self._mixed_up(generation))
            case "answer without an id":
                return self._respond(Answer(201, b'{"status": "queued"}', {}))
            case "another row's id":
                others = list(self.world.book.known_generations)
                if others:
                    other = self.world.vendor.generations[others[self._ways.randrange(len(others))]]
                    return self._respond(Answer(200, other.queued, {"x-inference-id": other.id}))
        return self._respond(answer)

    async def _get(self, url: str, headers: Mapping[str, str]) -> SimResponse:
        path, _, query = url.removeprefix(BASE_URL).partition("?")
        key = headers.get("Authorization", "").removeprefix("Bearer ")
        await self._delay()
        if self.world.vendor.away:
            raise aiohttp.ClientConnectionError("connection refused")
        if path == "/v2/video/generations":
            return await self._status(unquote(query.removeprefix("generation_id=")), key)
        if path == "/v2/logs":
            return await self._log(query, key)
        if path == "/v2/billing/transactions":
            return await self._transactions(key)
        if path in ("/v2/billing", "/v1/key"):
            return self._respond(self.world.vendor.account(path, key))
        return self._respond(self.world.vendor.catalogue(path))

    async def _status(self, generation_id: str, key: str) -> SimResponse:
        world = self.world
        kind = world.chance.draw("status")
        if kind == "connection refused":
            raise aiohttp.ClientConnectionError("connection refused")
        if kind == "reset":
            raise aiohttp.ServerDisconnectedError
        if kind == "silence":
            await self._time_out()
        if world.vendor.forgets_statuses:
            return self._respond(REFUSALS["404"])
        if world.vendor.nameless_errors:
            return self._respond(NAMELESS_ERROR)
        answer = self._bent(kind, generation_id, world.vendor.status(generation_id, key))
        world.tell("STATUS", generation_id, answer.status, kind)
        return self._respond(answer, cut=kind == "cut")

    def _bent(self, kind: str, generation_id: str, answer: Answer) -> Answer:
        """Return the answer as a fault changes it."""
        if kind in ("429", "500", "404", "401"):
            return REFUSALS[kind]
        if kind == "html":
            return Answer(200, b"<html>maintenance</html>")
        generation = self.world.vendor.generations.get(generation_id)
        if generation is None or answer.status != 200:
            return answer
        now, over = self.world.now, generation.is_over(self.world.now)
        if over and generation.is_paid and (other := self._contradicts(kind, generation, now)) is not None:
            return other
        if kind == "unknown status" and not over:
            return Answer(200, answer.body.replace(b'"queued"', b'"dreaming"'))
        if kind == "error flap" and not generation.flaps:
            generation.flaps += 1
            return Answer(200, FLAP % generation.id.encode())
        if kind == "completed without url" and over and generation.is_paid and generation.urlless < 3:
            generation.urlless += 1
            return Answer(200, URLLESS)
        if kind == "of another generation":
            return Answer(
                200, b'{"id": "somebody-elses", "status": "completed", "video": {"url": "https://x"}}'
            )
        if kind == "out of date":
            return Answer(200, generation.queued)
        return answer

    def _contradicts(self, kind: str, generation: Generation, now: float) -> Answer | None:
        """A vendor that calls a generation completed first, and then something else for a while."""
        if kind == "error after completion" and not generation.flaps:
            generation.flaps, generation.errors_to_come = 1, CONTRARY_POLLS
            if self.world.chance.stream(f"errors {generation.id}").random() < 0.5:
                generation.errors_until, generation.told = now + CONTRARY_S, (now, self.process)
            return Answer(200, URLLESS)
        if kind == "no url for minutes" and not generation.urlless_until:
            generation.urlless_until = now + URLLESS_S
        if now < generation.errors_until and self._was_lost(generation):
            generation.told = now, self.process
            return Answer(200, URLLESS)
        if generation.errors_to_come or now < generation.errors_until:
            generation.errors_to_come = max(0, generation.errors_to_come - 1)
            return Answer(200, FLAP % generation.id.encode())
        return Answer(200, URLLESS) if now < generation.urlless_until else None

    def _was_lost(self, generation: Generation) -> bool:
        """Whether a process that was told of the completion can have written nothing down since.

        Nobody knows it then; whoever contradicts it for so long cannot be told from who says the truth.
        """
        if generation.told is None or generation.id in self.world.book.completed:
            return False
        told_at, process = generation.told
        return process.committed_at < told_at + COMMITTED_WITHIN_S

    async def _log(self, query: str, key: str) -> SimResponse:
        kind = self.world.chance.draw("log")
        if kind == "connection refused":
            raise aiohttp.ClientConnectionError("connection refused")
        if kind == "reset":
            raise aiohttp.ServerDisconnectedError
        if kind in ("429", "500", "403"):
            return self._respond(REFUSALS[kind])
        if kind == "garbled":
            return self._respond(Answer(200, b'{"data": "soon"}'))
        answer = self.world.vendor.log(query, key, behind_s=self._behind_s(stale=kind == "replica behind"))
        self.world.tell("LOG", query, answer.status, len(answer.body), kind)
        return self._respond(answer)

    def _behind_s(self, *, stale: bool) -> float:
        """How far behind the replica is that answers: asked a while later, a fresh one does."""
        vendor, wait_s = self.world.vendor, self.world.options.reconcile_after
        if stale and self.world.now >= vendor.fresh_from:
            vendor.stale_until = self.world.now + 2.0 * self._ways.random()
            vendor.fresh_from = self.world.now + 0.3 * wait_s
            vendor.behind_s = wait_s * self._ways.random()
        return vendor.behind_s if self.world.now <= vendor.stale_until else 0.0

    async def _transactions(self, key: str) -> SimResponse:
        kind = self.world.chance.draw("transactions")
        if kind in REFUSALS:
            return self._respond(REFUSALS[kind])
        if kind == "garbled":
            return self._respond(Answer(200, b"[]"))
        return self._respond(self.world.vendor.transactions(key))


class SimApi(Api):
    """The package's client, whose exchanges are simulated ones."""

    def __init__(self, process: Process, key: Any) -> None:
        super().__init__(BASE_URL, key, environ={})
        self._process = process

    async def __aenter__(self) -> Self:
        session: Any = ApiSession(self._process)
        self._create_session = self._read_session = self.keyless_session = session
        self._missing_models = MissingModels(session, self.base_url)
        return self
