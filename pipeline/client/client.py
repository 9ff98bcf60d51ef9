"""The only way to the vendor: one object that holds the key, the base URL and the connections.

It owns timeouts and the question what a broken exchange proves; it must not know the ledger. The key
leaves in one place, `Api._headers`, towards the base URL's host alone, and redirects are never followed.
It is no header of any session: aiohttp gives those to a proxy as well.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from pipeline import __version__
from pipeline.client.connection import Wire, connected, keyed_proxy, silence
from pipeline.client.responses import (
    COMPLETED,
    Accepted,
    CreateVerdict,
    Halted,
    LogPage,
    Look,
    LookTrouble,
    NotAccepted,
    Phase,
    Refused,
    Throttled,
    Unknown,
    UnreadableAnswerError,
    clean,
    excerpt,
    parse_balance,
    parse_log,
    parse_look,
    parse_object,
    parse_status,
    vendor_words,
)
from pipeline.errors import StopReason, UsageError
from pipeline.model import Failure
from pipeline.net.proxy import way_through

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
CONNECT_TIMEOUT_S: Final = 20.0
QUOTA_RETRY_AFTER_S: Final = 600.0

URLS_KEPT: Final = 8192
"""Building a URL costs a tenth of a look; some 600 bytes each."""

SHORTEST_SECRET: Final = 5
"""A shorter key is a test's, and taking it out of every answer would take the answers apart."""

LOG_REQUEST_GAP_S: Final = 0.35
"""Between two requests to the log: it allows 200 in 60 s (documented); some are left for others."""

USER_AGENT: Final = f"veobatch/{__version__}"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The secret and the name of the variable it was read from; never shown by repr or str."""

    secret: str = field(repr=False)
    source: str

    def __str__(self) -> str:
        return f"<key from {self.source}>"


def normalise_base_url(text: str) -> str:
    """Return the base URL without a trailing slash or version; samples end in `/v1` and `/v2`.

    Raises `UsageError` when it is no http(s) address with a host.
    """
    bare = text.strip()
    while (shorter := re.sub(r"(/v[12])?/*$", "", bare, count=1, flags=re.IGNORECASE)) != bare:
        bare = shorter
    try:
        url = URL(bare) if bare.isprintable() and " " not in bare else URL()
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host or url.user or url.query_string or url.fragment:
        raise UsageError(f"base URL {text!r} will not do: it looks like https://api.aimlapi.com")
    return bare


class Api:
    """A client of the vendor's API, to be used as an async context manager.

    Creates go over connections of their own, one each: a kept-alive connection that the server closes at
    the moment of reuse loses a POST in a way that proves nothing, and a doubt costs more than a handshake.
    """

    def __init__(
        self,
        base_url: str,
        key: ApiKey,
        *,
        timeout_s: float = 60.0,
        connections: int = 128,
        may_create: Callable[[], bool] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """`may_create` is asked right before a create's first byte: False keeps it from leaving.

        `environ` is where a proxy is looked for (None: the process's own). Raises `UsageError` for a base
        URL that will not do, and for a proxy that will not.
        """
        self._may_create = may_create
        self.base_url = normalise_base_url(base_url)
        self._proxy = keyed_proxy(self.base_url, os.environ if environ is None else environ)
        self._way = way_through(self._proxy)
        self.key = key
        self._timeout_s = timeout_s
        self._connections = connections
        self._generations = f"{self.base_url}/v2/video/generations"
        self._headers = {"Authorization": f"Bearer {key.secret}"}
        self._secret = key.secret if len(key.secret) >= SHORTEST_SECRET else ""
        self._status_url = lru_cache(maxsize=URLS_KEPT)(partial(_status_url, self._generations))
        self._creates: aiohttp.ClientSession
        self._looks: aiohttp.ClientSession
        self.plain: aiohttp.ClientSession
        """A session that carries no key, for the CDN and the public catalogue."""

    async def __aenter__(self) -> Self:
        limits = aiohttp.ClientTimeout(total=self._timeout_s, connect=None, sock_connect=CONNECT_TIMEOUT_S)
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(connected)
        self._creates = self._session(
            aiohttp.TCPConnector(limit=0, force_close=True, ttl_dns_cache=60), limits, [trace]
        )
        self._looks = self._session(aiohttp.TCPConnector(limit=self._connections, ttl_dns_cache=60), limits)
        self.plain = self._session(
            aiohttp.TCPConnector(limit=0, ttl_dns_cache=60),
            aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in (self._creates, self._looks, self.plain):
            await session.close()

    def _session(
        self,
        connector: aiohttp.TCPConnector,
        timeout: aiohttp.ClientTimeout,
        traces: list[aiohttp.TraceConfig] | None = None,
    ) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            trace_configs=traces,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": USER_AGENT},
        )

    async def create(self, body: str, correlation_id: str) -> CreateVerdict:
        """Send one create; return what its answer, or the lack of one, proves. The network never raises."""
        data = body.encode("utf-8", "replace")
        headers = {
            **self._headers,
            "Content-Type": "application/json",
            "X-Client-Request-Id": correlation_id,
        }
        wire = Wire(self._may_create)
        try:
            async with self._creates.post(
                self._generations,
                data=data,
                headers=headers,
                allow_redirects=False,
                trace_request_ctx=wire,
                **self._way,
            ) as response:
                wire.status, wire.headers = response.status, response.headers
                return self._judge(response.status, response.headers, await self._read(response))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return self._judge_silence(wire, error)

    def _judge(self, status: int, headers: Mapping[str, str], body: bytes) -> CreateVerdict:
        """The error table of the vendor's documentation, by status."""
        words = f"HTTP {status}: {vendor_words(body)}"
        retry_after = headers.get("Retry-After")
        if 200 <= status < 300:
            return _read_acceptance(headers, body)
        if status in (401, 402, 403):
            return self._halt(status, words)
        if status == 429:
            if is_quota(words, retry_after):
                return Halted(StopReason.QUOTA, words, retry_after)
            return Throttled(words, retry_after)
        if status == 425:
            return Throttled(words, retry_after)
        if status in (500, 501, 503):
            return NotAccepted(words, reached=True)
        if 300 <= status < 400:
            message = f"HTTP {status}: {self._generations} redirects elsewhere; check the base URL"
            return Halted(StopReason.UNREACHABLE, message)
        if status == 404:
            return Refused(Failure("not_found", f"{words} (POST {self._generations})"))
        if 400 <= status < 500 and status != 408:
            return Refused(Failure("refused", words))
        return Unknown(words)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """Read a body; a vendor that repeats the key in it must not make us write the key down."""
        body = await _read(response)
        return body.replace(self._secret.encode(), b"***") if self._secret else body

    def _silence(self, error: Exception) -> str:
        words = silence(error, self._proxy)
        return words.replace(self._secret, "***") if self._secret else words

    def _halt(self, status: int, words: str) -> Halted:
        if status == 401:
            return Halted(StopReason.KEY, f"the key read from {self.key.source} was refused: {words}")
        return Halted(StopReason.CREDITS, words)

    def _judge_silence(self, wire: Wire, error: Exception) -> CreateVerdict:
        """No whole answer came: what was sent before that decides what it proves."""
        words = self._silence(error)
        if not wire.connected:
            return NotAccepted(f"no connection to {self.base_url}: {words}", reached=False)
        if wire.status:
            return self._judge(wire.status, wire.headers, b"")
        return Unknown(f"the answer never came: {words}")

    async def look(self, generation_id: str) -> Look | LookTrouble:
        """Ask for a generation's status. Whatever goes wrong is a value: a failed look costs only time."""
        url = self._status_url(generation_id)
        try:
            async with self._ask(url) as response:
                body = await self._read(response)
                if 200 <= response.status < 300:
                    return parse_status(parse_object(body), response.headers)
                words = f"HTTP {response.status}: {vendor_words(body)}"
                return LookTrouble(response.status, words, response.headers.get("Retry-After"))
        except UnreadableAnswerError as error:
            return LookTrouble(200, f"an unreadable answer: {error}")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return LookTrouble(0, self._silence(error))

    async def log_page(self, window: Mapping[str, str], *, limit: int, offset: int) -> LogPage | LookTrouble:
        """Read one page of the request log; `window` is `{period}` or `{start, end}`."""
        query = {**window, "limit": str(limit), "offset": str(offset)}
        answer = await self._get(f"/v2/logs?{urlencode(query)}")
        if isinstance(answer, LookTrouble):
            return answer
        try:
            return parse_log(answer, offset=offset)
        except UnreadableAnswerError as error:
            return LookTrouble(200, f"an unreadable log: {error}")

    async def balance(self) -> float | None:
        """Return the account's balance in USD, or None when it cannot be had."""
        answer = await self._get("/v2/billing")
        return None if isinstance(answer, LookTrouble) else parse_balance(answer)

    def _ask(self, url: URL) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._looks.get(url, headers=self._headers, allow_redirects=False, **self._way)

    async def _get(self, path: str) -> bytes | LookTrouble:
        url = URL(self.base_url + path, encoded=True)
        try:
            async with self._ask(url) as response:
                body = await self._read(response)
                if 200 <= response.status < 300:
                    return body
                words = f"HTTP {response.status}: {vendor_words(body)}"
                return LookTrouble(response.status, words, response.headers.get("Retry-After"))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return LookTrouble(0, self._silence(error))


def is_quota(words: str, retry_after: str | None) -> bool:
    """Tell a quota from a pace: both are 429, and only the sentence or a very long wait differs."""
    lowered = words.lower()
    named = "free-tier" in lowered or "free tier" in lowered or "quota" in lowered
    spans = any(
        span in lowered for span in ("for the hour", "per hour", "for the day", "per day", "hourly", "daily")
    )
    long = (
        retry_after is not None
        and retry_after.strip().isdecimal()
        and float(retry_after) >= QUOTA_RETRY_AFTER_S
    )
    return named or ("limit" in lowered and spans) or long


def _read_acceptance(headers: Mapping[str, str], body: bytes) -> CreateVerdict:
    """Any 2xx is an acceptance; what must be found is the id.

    For a video `x-inference-id` carries the id that create returned (vendor's documentation), which saves
    an answer whose body was cut or garbled.
    """
    inference_id = clean(headers.get("x-inference-id", "")).strip()
    try:
        look = parse_look(parse_object(body), headers)
    except UnreadableAnswerError:
        if inference_id:
            return Accepted(inference_id, Look(Phase.UNKNOWN, "", inference_id))
        return Unknown(f"accepted with an unreadable answer: {excerpt(body)}")
    identity = look.generation_id or inference_id
    if identity:
        return Accepted(identity, look)
    if look.failure is not None and look.status not in COMPLETED:
        return Refused(look.failure)
    return Unknown(f"accepted without an id: {excerpt(body)}")


def _status_url(generations: str, generation_id: str) -> URL:
    """Return where a generation's status is asked for; ids are opaque and may hold anything."""
    identity = quote(generation_id.encode("utf-8", "replace"), safe="")
    return URL(f"{generations}?generation_id={identity}", encoded=True)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Read a body of bounded size; raises `ValueError` when it is larger than any answer can be."""
    length = response.content_length
    if length is not None and length <= MAX_ANSWER_BYTES and "Content-Encoding" not in response.headers:
        return await response.read()
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise ValueError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
    return bytes(body)
