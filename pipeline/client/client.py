"""The only way to the vendor: one object that holds the key, the base URL and the connections.

It owns timeouts and the question of what a broken exchange proves; it must not know the ledger. The key
leaves in one place, `Api._headers`, towards the base URL's host alone, and redirects are never followed.
It is no header of any session: aiohttp gives those to a proxy as well.
"""

from __future__ import annotations

import io
import os
from contextlib import AsyncExitStack
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final, Self, TypeVar
from urllib.parse import urlencode

import aiohttp
import anyio
from yarl import URL

from pipeline import clocks
from pipeline.client.account import KeyInfo, TransactionPage, parse_key_info, parse_transactions
from pipeline.client.connection import (
    RequestTrace,
    describe_network_error,
    on_connected,
    open_session,
    proxy_for_api,
    read_bounded,
    status_url,
)
from pipeline.client.create_result import (
    LOOKUP_WAITS_S,
    CreateResponse,
    CreateResult,
    NamingResult,
    OutcomeUnknown,
    RetryableRejection,
    apply_lookup,
    classify_create,
)
from pipeline.client.endpoint import MIN_REDACTED_KEY_CHARS, ApiKey, normalize_base_url
from pipeline.client.error_parsing import error_message
from pipeline.client.json_values import UnreadableResponseError, parse_object
from pipeline.client.log_responses import LogPage, parse_log_page
from pipeline.client.missing_models import MissingModels
from pipeline.client.refusals import Cause, Refusal, explain_refusal
from pipeline.client.responses import GenerationStatus, StatusError, is_about, parse_balance, parse_status
from pipeline.client.vendor_clock import VendorClock
from pipeline.net.proxy import proxy_request_options
from pipeline.net.retry_after import retry_after_header

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

T = TypeVar("T")

SLOW_LINE_BYTES_PER_S: Final = 50_000
CONNECT_TIMEOUT_S: Final = 20.0
URL_CACHE_SIZE: Final = 2048
"""Building a URL costs some percent of a poll; some 600 bytes each."""


class Api:
    """A client of the vendor's API, to be used as an async context manager.

    Creates go over connections of their own, one each: a kept-alive connection that the server closes at the
    moment of reuse loses a POST in a way that proves nothing, which costs more than a handshake.
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
        name: str = "",
    ) -> None:
        """`may_create` is asked right before a create's first byte: False keeps it from leaving.

        `environ` is where a proxy is looked for (None: the process's own). `name` is what the ledger calls
        this API (the base URL): the embedded sandbox listens on another port each time. Raises
        `UsageError` for a base URL or a proxy that will not do.
        """
        self._may_create = may_create
        self.vendor_clock = VendorClock()
        self.base_url = normalize_base_url(base_url)
        self.name = name or self.base_url
        self._proxy = proxy_for_api(self.base_url, os.environ if environ is None else environ)
        self._proxy_options = proxy_request_options(self._proxy)
        self.key = key
        self._timeout_s = timeout_s
        self._connections = connections
        self._generations_url = f"{self.base_url}/v2/video/generations"
        self._headers = {"Authorization": f"Bearer {key.secret}"}
        self._secret = key.secret if len(key.secret) >= MIN_REDACTED_KEY_CHARS else ""
        self._status_url = lru_cache(maxsize=URL_CACHE_SIZE)(
            partial(status_url, URL(self._generations_url, encoded=True))
        )
        self._create_session: aiohttp.ClientSession
        self._read_session: aiohttp.ClientSession
        self.keyless_session: aiohttp.ClientSession
        """A session that carries no key, for the CDN and the public catalogue."""

    async def __aenter__(self) -> Self:
        limits = aiohttp.ClientTimeout(total=self._timeout_s, connect=None, sock_connect=CONNECT_TIMEOUT_S)
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(on_connected)
        connector = partial(aiohttp.TCPConnector, ttl_dns_cache=60)
        self._create_session = open_session(connector(limit=0, force_close=True), limits, [trace])
        self._read_session = open_session(connector(limit=self._connections), limits)
        self.keyless_session = open_session(
            connector(limit=0), aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
        )
        self._missing_models = MissingModels(self.keyless_session, self.base_url)
        return self

    async def __aexit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Each closes although another was interrupted: a task may be cancelled while it closes, too.
        with anyio.CancelScope(shield=True):
            async with AsyncExitStack() as stack:
                for session in (self._create_session, self._read_session, self.keyless_session):
                    stack.push_async_callback(session.close)

    async def create(self, body: str, correlation_id: str) -> CreateResult:
        """Send one create; return what its answer, or the lack of one, proves. The network never raises."""
        data = body.encode("utf-8", "replace")
        # A picture in it takes its time on a slow line, and an answer that is not waited for is a doubt.
        total_s = self._timeout_s + len(data) / SLOW_LINE_BYTES_PER_S
        own = {"Content-Type": "application/json", "X-Client-Request-Id": correlation_id}
        trace = RequestTrace(self._may_create, correlation_id=correlation_id)
        try:
            async with self._create_session.post(
                self._generations_url,
                data=io.BytesIO(data),
                timeout=aiohttp.ClientTimeout(total_s, sock_connect=CONNECT_TIMEOUT_S),
                headers=self._headers | own,
                # A redirect would carry the key to another host, or turn the POST into a GET.
                allow_redirects=False,
                trace_request_ctx=trace,
                **self._proxy_options,
            ) as response:
                trace.status, trace.headers = response.status, response.headers
                self._observe_date(response)
                result = self._classify(trace, await self._read_redacted(response))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            result = self._classify_failure(trace, error)
        return await self._look_for(result)

    def _classify(self, trace: RequestTrace, body: bytes) -> CreateResult:
        response = CreateResponse(
            trace.status, trace.headers, body, self._generations_url, trace.correlation_id
        )
        return classify_create(response, self.key.source)

    async def _look_for(self, result: CreateResult) -> CreateResult:
        """Poll the id that an answer named without proving acceptance: what the vendor knows was accepted."""
        if not isinstance(result, NamingResult) or not result.inference_id:
            return result
        answers: list[GenerationStatus | StatusError] = []
        for wait_s in LOOKUP_WAITS_S[type(result)]:
            await anyio.sleep(wait_s)
            answers.append(await self.get_status(result.inference_id, new_connection=wait_s > 0))
            if isinstance(answers[-1], GenerationStatus):
                break
        return apply_lookup(result, answers)

    async def _read_redacted(self, response: aiohttp.ClientResponse) -> bytes:
        """Read a body; a vendor that repeats the key in it must not make us write the key down."""
        body = await read_bounded(response)
        return body.replace(self._secret.encode(), b"***") if self._secret else body

    def _describe_error(self, error: Exception) -> str:
        message = describe_network_error(error, self._proxy)
        return message.replace(self._secret, "***") if self._secret else message

    def _classify_failure(self, trace: RequestTrace, error: Exception) -> CreateResult:
        """No whole answer came: what was sent before that decides what it proves."""
        message = self._describe_error(error)
        # Nothing was sent before the connection stood, so this is the one failure that proves "not accepted".
        if not trace.connected:
            return RetryableRejection(f"no connection to {self.base_url}: {message}", reached=False)
        # The head came and the body broke off: the status alone decides, as if the body were empty.
        if trace.status:
            return self._classify(trace, b"")
        if isinstance(error, aiohttp.ClientResponseError):
            return OutcomeUnknown(f"the answer cannot be read: {message}")
        return OutcomeUnknown(f"the answer never came: {message}")

    async def get_status(
        self, generation_id: str, *, new_connection: bool = False
    ) -> GenerationStatus | StatusError:
        """Ask for a generation's status. Whatever goes wrong is a value: a failed poll costs only time.

        `new_connection` leaves the kept-alive ones alone, so that a second opinion may come from another
        of the vendor's servers.
        """
        url = self._status_url(generation_id)
        try:
            async with self._open_get(url, fresh=new_connection) as response:
                self._observe_date(response)
                body = await self._read_redacted(response)
                if 200 <= response.status < 300:
                    payload = parse_object(body)
                    if is_about(payload, generation_id):
                        return parse_status(payload, response.headers)
                    return StatusError(
                        200, "the answer is about another generation; it was not applied", misdirected=True
                    )
                return self._status_error(response, body)
        except UnreadableResponseError as error:
            return StatusError(200, f"an unreadable answer: {error}")
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return StatusError(0, self._describe_error(error))

    def _observe_date(self, response: aiohttp.ClientResponse) -> None:
        self.vendor_clock.observe(response.headers.get("Date"), clocks.monotonic(), clocks.wall())

    def vendor_now(self) -> float | None:
        """Return the vendor's time (epoch seconds), by its `Date` headers; None where it is not known."""
        return self.vendor_clock.now(clocks.monotonic(), clocks.wall())

    async def log_page(
        self, window: Mapping[str, str], *, limit: int, offset: int, key_prefix: str = ""
    ) -> LogPage | StatusError:
        """Read one page of the request log; `window` is `{period}` or `{start, end}`.

        With `key_prefix` (8 characters), a management key reads the log of another key.
        """
        query = {**window, "limit": str(limit), "offset": str(offset)}
        if key_prefix:
            query["key_prefix"] = key_prefix
        parse = partial(parse_log_page, offset=offset)
        return await self._read(f"/v2/logs?{urlencode(query)}", parse, "an unreadable log")

    async def transactions(self, *, cursor: str = "", limit: int = 100) -> TransactionPage | StatusError:
        """Read one page of the account's charges, newest first."""
        query = {"limit": str(limit), **({"cursor": cursor} if cursor else {})}
        path = f"/v2/billing/transactions?{urlencode(query)}"
        return await self._read(path, parse_transactions, "unreadable transactions")

    async def key_info(self) -> KeyInfo | StatusError:
        """Ask what the vendor says of the key itself: whether it is disabled, its scopes and its limit."""
        return await self._read("/v1/key", parse_key_info, "an unreadable answer about the key")

    async def explain_missing_model(self, model: str) -> str:
        """Return why no create with `model` is accepted any more, "" when nothing confirms that."""
        return await self._missing_models.explain(model)

    async def explain_refusal(self, refusal: Refusal) -> Cause:
        """Ask the key and the account whose matter a 401, 402 or 403 is."""
        key, balance_usd = await self.key_info(), await self._balance_or_error()
        return explain_refusal(refusal, key, balance_usd, key_source=self.key.source, now=self.vendor_now())

    async def balance(self) -> float | None:
        """Return the account's balance in USD, or None when it cannot be had."""
        balance_usd = await self._balance_or_error()
        return None if isinstance(balance_usd, StatusError) else balance_usd

    async def _balance_or_error(self) -> float | StatusError | None:
        body = await self._get("/v2/billing")
        return body if isinstance(body, StatusError) else parse_balance(body)

    def _status_error(self, response: aiohttp.ClientResponse, body: bytes) -> StatusError:
        message, headers = f"HTTP {response.status}: {error_message(body)}", response.headers
        return StatusError(response.status, message, retry_after_header(headers))

    def _open_get(
        self, url: URL, *, fresh: bool = False
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        session = self._create_session if fresh else self._read_session
        return session.get(url, headers=self._headers, allow_redirects=False, **self._proxy_options)

    async def _read(self, path: str, parse: Callable[[bytes], T], unreadable: str) -> T | StatusError:
        body = await self._get(path)
        if isinstance(body, StatusError):
            return body
        try:
            return parse(body)
        except UnreadableResponseError as error:
            return StatusError(200, f"{unreadable}: {error}")

    async def _get(self, path: str) -> bytes | StatusError:
        url = URL(self.base_url + path, encoded=True)
        try:
            async with self._open_get(url) as response:
                self._observe_date(response)
                body = await self._read_redacted(response)
                if 200 <= response.status < 300:
                    return body
                return self._status_error(response, body)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return StatusError(0, self._describe_error(error))
