"""Return whether the API can be worked with, found out in seconds before anything is submitted.

Two free requests with the key tell a network that does not reach the API from an address that is not the
API and from a key that is refused. Each cause is one finding with a step that helps. Nothing is raised.
"""

from __future__ import annotations

import json
import os
import ssl
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import anyio
from aiohttp.http_exceptions import BadStatusLine
from yarl import URL

from pipeline import clocks
from pipeline.client.account import KEY_REFUSED, key_problem, parse_key_info
from pipeline.client.connection import describe_network_error, proxy_for_api
from pipeline.client.error_parsing import error_message
from pipeline.client.json_values import UnreadableResponseError, excerpt
from pipeline.client.responses import parse_balance
from pipeline.errors import StopReason
from pipeline.net.http_session import make_session
from pipeline.net.proxy import proxy_request_options

if TYPE_CHECKING:
    from pipeline.client.client import Api
    from pipeline.client.endpoint import ApiKey
    from pipeline.net.proxy import Proxy

CONNECT_TIMEOUT_S: Final = 3.0
PROBE_TIMEOUT_S: Final = 5.0
RETRY_AFTER_S: Final = 1.0
MAX_CLOCK_DIFFERENCE_S: Final = 300.0
_MAX_BODY_BYTES: Final = 256 * 1024
_RUN_AGAIN: Final = "run the same command again"
_RETRY_ADVICE: Final = f"check the network, then {_RUN_AGAIN}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that stands in the way, or (not `blocking`) one that its user should know."""

    code: str
    message: str
    next_step: str
    reason: StopReason = StopReason.UNREACHABLE
    blocking: bool = True

    def __str__(self) -> str:
        return f"{self.message}. Next: {self.next_step}"


@dataclass(frozen=True, slots=True)
class Preflight:
    """What the checks found. `balance_usd` is None when it is not known.

    `dates` are the answers' `Date` headers, each with this machine's monotonic and wall clock at that moment.
    """

    findings: tuple[Finding, ...] = ()
    balance_usd: float | None = None
    dates: tuple[tuple[str, float, float], ...] = ()

    @property
    def obstacle(self) -> Finding | None:
        """The finding that stops a run, if there is one."""
        return next((finding for finding in self.findings if finding.blocking), None)


@dataclass(frozen=True, slots=True)
class _Probe:
    """One answer, or (`status` 0) the error in place of one. `connected` tells a slow API from none."""

    status: int
    body: bytes = b""
    date: str = ""
    location: str = ""
    error: Exception | None = None
    clock: float = 0.0
    wall: float = 0.0

    def json(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self.body)
        except ValueError:
            return None
        return found if isinstance(found, dict) else None


async def check_api(base_url: str, key: ApiKey | None) -> Preflight:
    """Ask the API two questions that cost nothing; return what they show. Takes some seconds at most.

    Without a key only the way to the API is checked. Raises `UsageError` for a proxy that could read the key.
    """
    proxy = proxy_for_api(base_url, os.environ)
    timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
    headers = {"Authorization": f"Bearer {key.secret}"} if key is not None else {}
    probes: dict[str, _Probe] = {}

    async def probe(path: str) -> None:
        probes[path] = await _get(session, base_url + path, headers, proxy)
        if _may_pass(probes[path]):
            await anyio.sleep(RETRY_AFTER_S)
            probes[path] = await _get(session, base_url + path, headers, proxy)

    async with (
        make_session(timeout=timeout) as session,
        anyio.create_task_group() as tasks,
    ):
        for path in ("/v2/billing", "/v1/key"):
            tasks.start_soon(probe, path)
    billing, key_info = probes["/v2/billing"], probes["/v1/key"]
    found = _network_finding(base_url, billing, proxy) or _address_finding(base_url, billing, key_info)
    if found is None and key is not None:
        found = _key_finding(key, billing, key_info)
    clock = _clock_finding(billing.date)
    balance = parse_balance(billing.body) if billing.status == 200 else None
    dates = tuple((probe.date, probe.clock, probe.wall) for probe in probes.values() if probe.date)
    return Preflight(tuple(finding for finding in (found, clock) if finding is not None), balance, dates)


async def learn_time(api: Api) -> None:
    """Have the vendor's time known before something is submitted, unless no answer tells it within seconds.

    A create that it does not date cannot be proven absent from the vendor's log.
    """
    with anyio.move_on_after(PROBE_TIMEOUT_S):
        await api.balance()


async def _get(
    session: aiohttp.ClientSession, url: str, headers: dict[str, str], proxy: Proxy | None
) -> _Probe:
    try:
        options = proxy_request_options(proxy)
        async with session.get(
            URL(url, encoded=True), headers=headers, allow_redirects=False, **options
        ) as response:
            clock, wall = clocks.monotonic(), clocks.wall()
            body = await response.content.read(_MAX_BODY_BYTES)
            date, location = response.headers.get("Date", ""), response.headers.get("Location", "")
            location = location.partition("?")[0]
            return _Probe(response.status, body, date, location, clock=clock, wall=wall)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        return _Probe(0, error=error)


def _may_pass(probe: _Probe) -> bool:
    """Return whether the same request may fare better a moment later."""
    error = probe.error
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return error.status >= 500
    if isinstance(error, aiohttp.ClientConnectorDNSError | aiohttp.ClientSSLError):
        return False
    return isinstance(error, aiohttp.ClientOSError | aiohttp.ServerDisconnectedError | TimeoutError)


def _network_finding(base_url: str, probe: _Probe, proxy: Proxy | None) -> Finding | None:
    error, host = probe.error, URL(base_url).host or base_url
    if error is None or (isinstance(error, TimeoutError) and not _never_connected(error)):
        return None  # an API that is only slow is the engine's to wait for
    if isinstance(error, aiohttp.ClientHttpProxyError) and error.status >= 500:
        return None  # a proxy's bad moment
    match error:
        case aiohttp.ClientConnectorDNSError():
            cause, step = "its name cannot be resolved (DNS)", "check the address and the network"
        case aiohttp.ClientHttpProxyError() | aiohttp.ClientProxyConnectionError():
            cause = describe_network_error(error, proxy)
            step = f"check the proxy, or name {host} in NO_PROXY to go there directly"
        case aiohttp.ClientSSLError() | ssl.SSLError():
            cause = describe_network_error(error, proxy)
            step = "check the address, this machine's clock and its certificates (SSL_CERT_FILE)"
        case aiohttp.ClientConnectorError() if isinstance(error.os_error, ConnectionRefusedError):
            cause, step = "the connection was refused", f"check the address and the port; {_RETRY_ADVICE}"
        case aiohttp.ClientResponseError() if not _is_no_http(error):
            return None  # an unusual answer, but HTTP: the client judges it where it matters
        case aiohttp.ClientResponseError():
            cause, step = "what listens there does not speak HTTP", "check the address and the port"
        case TimeoutError():
            cause, step = f"no connection within {CONNECT_TIMEOUT_S:g} s", _RETRY_ADVICE
        case _:
            cause, step = describe_network_error(error, proxy), _RETRY_ADVICE
    return Finding("unreachable", f"cannot reach {host}: {cause}", step)


def _never_connected(error: Exception) -> bool:
    return isinstance(error, aiohttp.ConnectionTimeoutError)


def _is_no_http(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, BadStatusLine):
        error = error.__cause__ or error.__context__
    return error is not None


def _address_finding(base_url: str, billing: _Probe, key_info: _Probe) -> Finding | None:
    """Return a finding when neither answer is one that the API would give."""
    if any(_is_the_api(probe) for probe in (billing, key_info)):
        return None
    if billing.location:
        seen = f"it redirects to {billing.location}"
    elif billing.json() is None:
        seen = f"it answered {billing.status} and no JSON: {excerpt(billing.body)[:80]}"
    else:
        seen = f"it answered {billing.status}: {error_message(billing.body)[:80]}"
    step = "check --base-url (or AIMLAPI_API_BASE, AIML_API_BASE): it looks like https://api.aimlapi.com"
    return Finding("not_the_api", f"{base_url} is not the API: {seen}", step)


def _is_the_api(probe: _Probe) -> bool:
    if probe.status == 0 or probe.status == 429 or probe.status >= 500:
        return True  # no evidence against it
    found = probe.json()
    if found is None:
        return probe.status in (401, 403)  # a gateway in front of it
    return probe.status in (401, 403) or "current_balance" in found or isinstance(found.get("data"), dict)


def _key_finding(key: ApiKey, billing: _Probe, key_info: _Probe) -> Finding | None:
    problem = None
    if key_info.status == 200:
        with suppress(UnreadableResponseError):
            problem = key_problem(parse_key_info(key_info.body))
    elif billing.status == 401:
        problem = KEY_REFUSED
    if problem is None:
        return None
    message = f"the key read from {key.source} {problem.message}"
    return Finding(problem.code, message, f"{problem.remedy}, then {_RUN_AGAIN}", StopReason.KEY)


def _clock_finding(date: str) -> Finding | None:
    try:
        ahead_s = clocks.wall() - parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError):
        return None
    if abs(ahead_s) <= MAX_CLOCK_DIFFERENCE_S:
        return None
    side = "ahead of" if ahead_s > 0 else "behind"
    message = f"this machine's clock is {abs(ahead_s) / 60:.0f} min {side} the vendor's"
    return Finding("clock", message, "set the clock (timedatectl shows whether NTP is on)", blocking=False)
