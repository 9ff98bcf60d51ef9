"""Through a real CONNECT proxy, to a real TLS server: what a proxy may see, and what its failures prove."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING

import aiohttp
import pytest

from pipeline.client import (
    Accepted,
    AccountBlocked,
    Api,
    ApiKey,
    CreateResult,
    GenerationStatus,
    OutcomeUnknown,
    RateLimited,
    Rejected,
    RetryableRejection,
    StatusError,
)
from pipeline.client.catalog import Catalog
from pipeline.download.guarded_session import open_session
from pipeline.download.redirects import ForbiddenUrl as RefusedPlace
from pipeline.download.resumable_get import OpenBody, Unreachable, open_body
from pipeline.errors import UsageError
from tests.integration.connect_proxy import ConnectProxy, make_certificate, server_tls_context
from tests.integration.ports import free_port
from tests.integration.raw_server import (
    RawServer,
    hang_past_timeout,
    never_respond,
    respond_with,
    response_head,
    send_and_close,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Act = Callable[[asyncio.StreamWriter], Awaitable[None]]

SECRET = "sk-hush-0123456789"
KEY = ApiKey(SECRET, "AIML_API_KEY")
API = "https://api.vendor.test"
CREATE = '{"model": "m", "prompt": "a wink"}'
QUEUED_RESPONSE = {"id": "a:b/c", "status": "queued"}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The server's side; aiohttp trusts its certificate, as SSL_CERT_FILE makes it do from the start on."""
    trusting = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting)
    return server_tls_context(certificate)


def api_through(tunnel: ConnectProxy) -> Api:
    return Api(API, KEY, timeout_s=20.0, environ={"HTTPS_PROXY": tunnel.url})


async def create_through(tls: ssl.SSLContext, act: Act) -> tuple[CreateResult, RawServer, ConnectProxy]:
    """Send a create to an API that answers by `act`, through a proxy that does its duty."""
    async with (
        RawServer(act, tls=tls) as wire,
        ConnectProxy(wire.port) as tunnel,
        api_through(tunnel) as api,
    ):
        return await api.create(CREATE, "vb.x.1"), wire, tunnel


async def call_through_failing_proxy(
    act: Act,
) -> tuple[CreateResult, GenerationStatus | StatusError, ConnectProxy]:
    """Send a create and a look to a proxy that answers CONNECT by `act`."""
    async with ConnectProxy(0, act) as tunnel, api_through(tunnel) as api:
        return await api.create(CREATE, "vb.x.1"), await api.get_status("a:b/c"), tunnel


async def test_every_call_of_the_api_goes_through_the_tunnel(tls: ssl.SSLContext) -> None:
    async with (
        RawServer(respond_with(200, QUEUED_RESPONSE), tls=tls) as wire,
        ConnectProxy(wire.port, user="me:p@ss") as tunnel,
    ):
        environ = {"https_proxy": f"http://me:p%40ss@127.0.0.1:{tunnel.port}"}
        async with Api(API, KEY, environ=environ) as api:
            assert isinstance(await api.create(CREATE, "vb.x.1"), Accepted)
            assert isinstance(await api.get_status("a:b/c"), GenerationStatus)
            await api.log_page({"period": "24h"}, limit=1, offset=0)
            await api.balance()
            assert isinstance(await api.create(CREATE, "vb.x.2"), Accepted)
    assert set(tunnel.request_lines) == {"CONNECT api.vendor.test:443"}
    assert len(tunnel.requests) == 3, "a create has a connection of its own, looks share theirs"
    assert [heard.request_line.split()[0] for heard in wire.requests] == ["POST", "GET", "GET", "GET", "POST"]
    assert all(heard.headers["authorization"] == f"Bearer {SECRET}" for heard in wire.requests)
    assert all("proxy-authorization" not in heard.headers for heard in wire.requests)


async def test_a_proxy_sees_nothing_of_the_key(tls: ssl.SSLContext) -> None:
    """aiohttp gives a session's own headers to the proxy too, and would call a key a user of the proxy."""
    async with (
        RawServer(respond_with(200, QUEUED_RESPONSE), tls=tls) as wire,
        ConnectProxy(wire.port) as tunnel,
        api_through(tunnel) as api,
    ):
        await api.create(CREATE, "vb.x.1")
        await api.get_status("a:b/c")
        await api.balance()
    assert tunnel.requests
    assert SECRET.encode() not in tunnel.visible_bytes
    assert b"uthorization" not in tunnel.visible_bytes
    assert b"vb.x.1" not in tunnel.visible_bytes


async def test_a_proxy_may_be_spoken_to_in_tls_itself(tls: ssl.SSLContext) -> None:
    async with (
        RawServer(respond_with(200, QUEUED_RESPONSE), tls=tls) as wire,
        ConnectProxy(wire.port, tls=tls, user="me:pw") as tunnel,
        api_through(tunnel) as api,
    ):
        assert isinstance(await api.create(CREATE, "vb.x.1"), Accepted)
        assert isinstance(await api.get_status("a:b/c"), GenerationStatus)
    assert set(tunnel.request_lines) == {"CONNECT api.vendor.test:443"}


@pytest.mark.parametrize("status", [302, 400, 401, 403, 407, 429, 500, 502, 503, 504])
async def test_a_tunnel_that_was_refused_proves_that_nothing_was_accepted(status: int) -> None:
    verdict, seen, tunnel = await call_through_failing_proxy(
        respond_with(status, b"<html>no</html>", Location="https://elsewhere")
    )
    assert isinstance(verdict, RetryableRejection), verdict
    assert not verdict.reached
    assert isinstance(seen, StatusError)
    assert seen.http_status == 0, "the proxy's status is none of the API's"
    for message in (verdict.message, seen.message):
        assert f"the proxy http://127.0.0.1:{tunnel.port} of HTTPS_PROXY opened no tunnel" in message
        assert str(status) in message
        assert ("user:password" in message) is (status == 407)


UNOPENED_TUNNELS: dict[str, Act] = {
    "closed without a word": send_and_close(b""),
    "reset without a word": send_and_close(b"", reset=True),
    "half a head": send_and_close(b"HTTP/1.1 200 Conn"),
    "no HTTP": send_and_close(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    "closed after its yes": send_and_close(response_head(200, {})),
    "reset after its yes": send_and_close(response_head(200, {}), reset=True),
    "no TLS after its yes": send_and_close(response_head(200, {}) + b"HTTP/1.1 200 OK\r\n\r\n"),
}


@pytest.mark.parametrize("how", UNOPENED_TUNNELS)
async def test_a_tunnel_that_never_stood_proves_that_nothing_was_accepted(how: str) -> None:
    verdict, seen, _ = await call_through_failing_proxy(UNOPENED_TUNNELS[how])
    assert isinstance(verdict, RetryableRejection), verdict
    assert "HTTPS_PROXY" in verdict.message
    assert isinstance(seen, StatusError)


async def test_a_proxy_that_never_answers_was_never_told_anything() -> None:
    verdict, _, tunnel = await call_through_failing_proxy(hang_past_timeout)
    assert isinstance(verdict, RetryableRejection), verdict
    assert "timed out" in verdict.message
    assert tunnel.requests


async def test_a_proxy_that_is_not_there_is_named_without_its_user() -> None:
    port = free_port()
    async with Api(API, KEY, environ={"HTTPS_PROXY": f"http://me:s3cr3t@127.0.0.1:{port}"}) as api:
        verdict = await api.create(CREATE, "vb.x.1")
    assert isinstance(verdict, RetryableRejection)
    assert f"127.0.0.1:{port} of HTTPS_PROXY" in verdict.message
    assert "s3cr3t" not in repr(verdict)


async def test_a_wrong_password_is_said_and_not_shown() -> None:
    async with ConnectProxy(0, user="me:right") as tunnel:
        environ = {"HTTPS_PROXY": f"http://me:s3cr3t@127.0.0.1:{tunnel.port}"}
        async with Api(API, KEY, environ=environ) as api:
            verdict = await api.create(CREATE, "vb.x.1")
    assert isinstance(verdict, RetryableRejection)
    assert "407" in verdict.message
    assert "s3cr3t" not in repr(verdict)


async def test_a_certificate_of_someone_else_ends_it_before_the_key_leaves(certificate: Path) -> None:
    """A proxy that opens TLS with a certificate of its own is trusted only if the user says so."""
    async with (
        RawServer(respond_with(200, QUEUED_RESPONSE), tls=server_tls_context(certificate)) as wire,
        ConnectProxy(wire.port) as tunnel,
        api_through(tunnel) as api,
    ):
        verdict = await api.create(CREATE, "vb.x.1")
    assert isinstance(verdict, RetryableRejection)
    assert "SSL_CERT_FILE" in verdict.message
    assert wire.requests == []


async def test_tunnel_cut_after_body_is_outcome_unknown(tls: ssl.SSLContext) -> None:
    async with ConnectProxy(0) as tunnel:

        async def cuts(_: asyncio.StreamWriter) -> None:
            tunnel.abort_connections()

        async with RawServer(cuts, tls=tls) as wire, api_through(tunnel) as api:
            tunnel.target = wire.port
            verdict = await api.create(CREATE, "vb.x.1")
    assert isinstance(verdict, OutcomeUnknown), verdict
    assert len(wire.requests) == 1, "one create, never a second"
    assert "HTTPS_PROXY" in verdict.message


async def test_tunnel_cut_in_handshake_is_not_sent(tls: ssl.SSLContext) -> None:
    async with (
        RawServer(respond_with(200, QUEUED_RESPONSE), tls=tls) as wire,
        ConnectProxy(wire.port, cut_after_bytes=1) as tunnel,
        api_through(tunnel) as api,
    ):
        verdict = await api.create(CREATE, "vb.x.1")
    assert isinstance(verdict, RetryableRejection), verdict
    assert wire.requests == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (502, OutcomeUnknown),
        (504, OutcomeUnknown),
        (503, RetryableRejection),
        (400, Rejected),
        (429, RateLimited),
    ],
)
async def test_within_the_tunnel_the_apis_words_count_as_ever(
    tls: ssl.SSLContext, status: int, kind: type
) -> None:
    verdict, _, _ = await create_through(tls, respond_with(status, b"no"))
    assert isinstance(verdict, kind), verdict


async def test_no_response_after_body_through_tunnel_is_outcome_unknown(tls: ssl.SSLContext) -> None:
    verdict, wire, _ = await create_through(tls, hang_past_timeout)
    assert isinstance(verdict, OutcomeUnknown), verdict
    assert len(wire.requests) == 1


async def test_a_lease_that_is_over_keeps_a_create_back_in_the_tunnel(tls: ssl.SSLContext) -> None:
    asked: list[int] = []
    async with (
        RawServer(respond_with(200, QUEUED_RESPONSE), tls=tls) as wire,
        ConnectProxy(wire.port) as tunnel,
    ):

        def may_create() -> bool:
            asked.append(len(tunnel.requests))
            return False

        environ = {"HTTPS_PROXY": tunnel.url}
        async with Api(API, KEY, may_create=may_create, environ=environ) as api:
            verdict = await api.create(CREATE, "vb.x.1")
    assert isinstance(verdict, RetryableRejection)
    assert asked == [1], "it is asked when the tunnel stands, not before"
    assert wire.requests == []


async def test_a_redirect_takes_the_key_nowhere(tls: ssl.SSLContext) -> None:
    verdict, wire, tunnel = await create_through(
        tls, respond_with(307, b"", Location="https://cdn.vendor.test/")
    )
    assert isinstance(verdict, AccountBlocked)
    assert (len(wire.requests), len(tunnel.requests)) == (1, 1)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_this_machine_is_asked_directly(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with RawServer(respond_with(200, QUEUED_RESPONSE)) as wire, ConnectProxy(wire.port) as tunnel:
        for variable in ("HTTPS_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(variable, tunnel.url)
        async with Api(f"http://{name}:{wire.port}", KEY) as api:
            assert isinstance(await api.create(CREATE, "vb.x.1"), Accepted)
            assert isinstance(await api.get_status("a:b/c"), GenerationStatus)
    assert (len(wire.requests), tunnel.requests) == (2, [])


async def test_the_environment_of_the_process_is_read(
    tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        RawServer(respond_with(200, QUEUED_RESPONSE), tls=tls) as wire,
        ConnectProxy(wire.port) as tunnel,
    ):
        monkeypatch.setenv("ALL_PROXY", tunnel.url)
        async with Api(API, KEY) as api:
            assert isinstance(await api.get_status("a:b/c"), GenerationStatus)
        monkeypatch.setenv("NO_PROXY", "vendor.test")
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fail_to_resolve)
        async with Api(API, KEY) as api:
            assert isinstance(await api.get_status("a:b/c"), StatusError), "nobody else knows that name"
    assert tunnel.request_lines == ["CONNECT api.vendor.test:443"]


async def fail_to_resolve(*_: object, **__: object) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def test_a_key_in_the_open_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(UsageError, match="could read the key"):
        Api("http://api.vendor.test", KEY, environ={"HTTP_PROXY": "http://127.0.0.1:9"})


# Downloads


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Callable[[ConnectProxy], None]:
    return lambda tunnel: monkeypatch.setenv("HTTPS_PROXY", tunnel.url)


async def download(url: str) -> bytes:
    async with open_session() as session, open_body(session, url, None, 0, 5.0) as answer:
        assert isinstance(answer, OpenBody)
        return await answer.response.read()


async def test_a_video_comes_through_the_tunnel(
    tls: ssl.SSLContext, proxied: Callable[[ConnectProxy], None]
) -> None:
    """Through a proxy on this machine, whose address is none of the video's."""
    async with (
        RawServer(respond_with(200, b"film"), tls=tls) as wire,
        ConnectProxy(wire.port, user="me:pw") as tunnel,
    ):
        proxied(tunnel)
        assert await download("https://cdn.vendor.test/film.mp4?sig=s3cr3t") == b"film"
    assert tunnel.request_lines == ["CONNECT cdn.vendor.test:443"]
    assert "proxy-authorization" not in wire.requests[0].headers
    assert b"s3cr3t" not in tunnel.visible_bytes


async def test_a_redirect_is_followed_through_the_tunnel_to_public_places_only(
    tls: ssl.SSLContext, proxied: Callable[[ConnectProxy], None]
) -> None:
    there = iter(["https://cdn.vendor.test/next.mp4", "https://10.0.0.1/film.mp4"])

    async def leads(writer: asyncio.StreamWriter) -> None:
        await respond_with(302, b"", Location=next(there))(writer)

    async with RawServer(leads, tls=tls) as wire, ConnectProxy(wire.port) as tunnel:
        proxied(tunnel)
        with pytest.raises(RefusedPlace, match=r"10\.0\.0\.1 leads to a private network"):
            await download("https://cdn.vendor.test/film.mp4")
    assert tunnel.request_lines == ["CONNECT cdn.vendor.test:443"] * 2


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_redirect_from_a_tunnel_leads_to_no_file_of_this_machine(
    tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """That the proxy is on this machine, by address or by name, makes nobody behind it a neighbour."""
    async with RawServer(respond_with(200, b"mine")) as mine:

        async def leads(writer: asyncio.StreamWriter) -> None:
            writer.write(response_head(302, {"Location": f"{mine.url}/film.mp4", "Content-Length": "10"}))
            await never_respond(writer)  # while the connection is held, its other end can be looked at

        async with RawServer(leads, tls=tls) as wire, ConnectProxy(wire.port) as tunnel:
            monkeypatch.setenv("HTTPS_PROXY", f"http://{host}:{tunnel.port}")
            with pytest.raises(RefusedPlace, match=r"127\.0\.0\.1"):
                await download("https://cdn.vendor.test/film.mp4")
    assert len(tunnel.requests) == 1
    assert mine.requests == []


async def test_a_download_says_why_no_tunnel_was_opened_and_no_signature(
    proxied: Callable[[ConnectProxy], None],
) -> None:
    async with ConnectProxy(0, respond_with(503, b"")) as tunnel:
        proxied(tunnel)
        with pytest.raises(Unreachable, match=r"of HTTPS_PROXY opened no tunnel: HTTP 503") as caught:
            await download("https://cdn.vendor.test/film.mp4?sig=s3cr3t")
    assert "s3cr3t" not in str(caught.value)


async def test_a_proxy_of_no_use_fails_a_download_with_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(Unreachable, match="socks5"):
        await download("https://cdn.vendor.test/film.mp4")


# The catalogue


async def test_the_catalogue_is_asked_through_the_tunnel(
    tls: ssl.SSLContext, proxied: Callable[[ConnectProxy], None]
) -> None:
    listing = {"data": [{"id": "m", "pricing": {"kind": "fixed"}}]}
    async with RawServer(respond_with(200, listing), tls=tls) as wire, ConnectProxy(wire.port) as tunnel:
        proxied(tunnel)
        async with aiohttp.ClientSession() as session:
            found = await Catalog(session, API).fetch_models(["m"], with_rules=False)
    assert found["m"].pricing == {"kind": "fixed"}
    assert tunnel.request_lines == ["CONNECT api.vendor.test:443"]


@pytest.mark.parametrize("variable", ["http://127.0.0.1:9", "socks5://127.0.0.1:9"])
async def test_a_catalogue_behind_a_broken_proxy_is_a_note(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", variable)
    async with aiohttp.ClientSession() as session:
        found = await Catalog(session, API).fetch_models(["m"])
    assert not found["m"].reached
    assert found["m"].notes


async def test_a_catalogue_says_that_the_proxy_refused(proxied: Callable[[ConnectProxy], None]) -> None:
    async with ConnectProxy(0, respond_with(403, b"")) as tunnel, aiohttp.ClientSession() as session:
        proxied(tunnel)
        found = await Catalog(session, API).fetch_models(["m"])
    assert "the proxy opened no tunnel: HTTP 403" in found["m"].notes[0]
