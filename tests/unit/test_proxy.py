"""Which proxy a request goes through: tables of variables and hosts."""

from __future__ import annotations

import pytest
from yarl import URL

from pipeline.client.connection import proxy_for_api
from pipeline.errors import UsageError
from pipeline.net.proxy import bypasses_proxy, proxy_for, proxy_request_options

API = URL("https://api.vendor.test")


def place(url: str, **environ: str) -> tuple[str, str] | None:
    proxy = proxy_for(URL(url), environ)
    return None if proxy is None else (str(proxy.url), proxy.source)


@pytest.mark.parametrize(
    ("url", "environ", "found"),
    [
        ("https://a.test", {}, None),
        ("https://a.test", {"HTTPS_PROXY": "http://p:1"}, ("http://p:1", "HTTPS_PROXY")),
        ("https://a.test", {"https_proxy": "http://p:1"}, ("http://p:1", "https_proxy")),
        (
            "https://a.test",
            {"https_proxy": "http://p:1", "HTTPS_PROXY": "http://q:2"},
            ("http://p:1", "https_proxy"),
        ),
        ("https://a.test", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://a.test", {"HTTPS_PROXY": "http://p:1"}, None),
        ("http://a.test", {"HTTP_PROXY": "http://p:1"}, ("http://p:1", "HTTP_PROXY")),
        ("http://a.test", {"http_proxy": "http://p:1"}, ("http://p:1", "http_proxy")),
        ("https://a.test", {"ALL_PROXY": "http://p:1"}, ("http://p:1", "ALL_PROXY")),
        ("http://a.test", {"all_proxy": "http://p:1"}, ("http://p:1", "all_proxy")),
        (
            "https://a.test",
            {"ALL_PROXY": "http://p:1", "HTTPS_PROXY": "http://q:2"},
            ("http://q:2", "HTTPS_PROXY"),
        ),
        ("https://a.test", {"HTTPS_PROXY": " \n", "ALL_PROXY": ""}, None),
        ("https://a.test", {"HTTPS_PROXY": " p:3128 "}, ("http://p:3128", "HTTPS_PROXY")),
        ("https://a.test", {"HTTPS_PROXY": "https://p:1/"}, ("https://p:1", "HTTPS_PROXY")),
        ("https://a.test", {"HTTPS_PROXY": "HTTP://p:1"}, ("http://p:1", "HTTPS_PROXY")),
        ("https://a.test", {"HTTPS_PROXY": "http://[::1]:1"}, ("http://[::1]:1", "HTTPS_PROXY")),
        ("https://a.test", {"HTTPS_PROXY": "http://me:pw@p:1"}, ("http://p:1", "HTTPS_PROXY")),
        ("https://a.test", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.test"}, None),
        ("https://a.test", {"HTTPS_PROXY": "http://p:1", "no_proxy": "*"}, None),
        (
            "https://a.test",
            {"HTTPS_PROXY": "http://p:1", "no_proxy": "b.test", "NO_PROXY": "*"},
            ("http://p:1", "HTTPS_PROXY"),
        ),
    ],
)
def test_the_variables_and_their_order(
    url: str, environ: dict[str, str], found: tuple[str, str] | None
) -> None:
    assert place(url, **environ) == found


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST",
        "localhost.",
        "api.localhost",
        "127.0.0.1",
        "127.8.9.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",  # noqa: S104 - an address to be asked, not to be bound
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_this_machine_is_never_asked_through_a_proxy(scheme: str, host: str) -> None:
    assert place(f"{scheme}://{host}:8080/v2", ALL_PROXY="http://p:1") is None


@pytest.mark.parametrize(
    ("exceptions", "host", "port", "excepted"),
    [
        ("", "a.test", 443, False),
        ("*", "a.test", 443, True),
        ("a.test", "a.test", 443, True),
        ("A.Test", "a.test", 443, True),
        ("a.test", "b.a.test", 443, True),
        (".a.test", "b.a.test", 443, True),
        (".a.test", "a.test", 443, True),
        ("*.a.test", "b.a.test", 443, True),
        ("a.test.", "a.test", 443, True),
        ("a.test", "ba.test", 443, False),
        ("a.test", "a.test.evil", 443, False),
        ("b.test, a.test", "a.test", 443, True),
        ("b.test a.test", "a.test", 443, True),
        (",,", "a.test", 443, False),
        (".", "a.test", 443, False),
        ("a.test:443", "a.test", 443, True),
        ("a.test:8443", "a.test", 443, False),
        ("10.0.0.1", "10.0.0.1", 443, True),
        ("10.0.0.1:443", "10.0.0.1", 443, True),
        ("10.0.0.1:8443", "10.0.0.1", 443, False),
        ("10.0.0.0/8", "10.9.8.7", 443, True),
        ("10.0.0.0/8", "11.9.8.7", 443, False),
        ("10.0.0.1/8", "10.9.8.7", 443, True),
        ("10.0.0.0/8", "a.test", 443, False),
        ("0.0.1", "10.0.0.1", 443, False),
        ("fd00::/8", "fd00::1", 443, True),
        ("fd00::1", "fd00::1", 443, True),
        ("[fd00::1]", "fd00::1", 443, True),
        ("[fd00::1]:443", "fd00::1", 443, True),
        ("[fd00::1]:8443", "fd00::1", 443, False),
        ("[not an address", "a.test", 443, False),
        ("300.0.0.0/8", "a.test", 443, False),
    ],
)
def test_no_proxy_exceptions(exceptions: str, host: str, port: int, excepted: bool) -> None:
    assert bypasses_proxy(host, port, exceptions) is excepted


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks4", "ftp", "file"])
def test_a_kind_of_proxy_that_cannot_be_used_is_refused_by_its_name(scheme: str) -> None:
    with pytest.raises(UsageError, match=f"ALL_PROXY names a {scheme}:// proxy") as caught:
        proxy_for(API, {"ALL_PROXY": f"{scheme}://me:s3cr3t@p:1080"})
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "http://",
        "http://p:99999",
        "http://p:abc",
        "http://[::1",
        "http://a b:80",
        "http://me:12#s3cr3t@p:1",
        "http://me:12?s3cr3t@p:1",
        "http://me:s3cr3t@",
        "://s3cr3t",
        "me:s3cr3t://p",
    ],
)
def test_what_is_no_proxy_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(UsageError, match="HTTPS_PROXY") as caught:
        proxy_for(API, {"HTTPS_PROXY": text})
    assert "s3cr3t" not in str(caught.value)


def test_the_proxys_user_is_shown_to_the_proxy_alone() -> None:
    proxy = proxy_for(API, {"HTTPS_PROXY": "http://me:p%40ss@p:1"})
    assert proxy is not None
    for shown in (
        repr(proxy),
        str(proxy),
        proxy.tunnel_error(407, "no"),
        str(proxy_request_options(proxy)["proxy"]),
    ):
        assert "p%40ss" not in shown
        assert "p@ss" not in shown
        assert "bWU6cEBzcw" not in shown
    assert proxy_request_options(proxy)["proxy_headers"] == {"Proxy-Authorization": "Basic bWU6cEBzcw=="}
    assert "user:password" in proxy.tunnel_error(407, "no")
    assert "user:password" not in proxy.tunnel_error(502, "no")


def test_without_a_user_the_proxy_is_told_nothing() -> None:
    proxy = proxy_for(API, {"HTTPS_PROXY": "p:1"})
    assert proxy_request_options(proxy)["proxy_headers"] == {}
    assert proxy_request_options(None) == {}


def test_a_key_goes_through_no_proxy_in_the_open() -> None:
    environ = {"HTTP_PROXY": "http://me:s3cr3t@p:1"}
    with pytest.raises(UsageError, match=r"could read the key.*NO_PROXY") as caught:
        proxy_for_api("http://api.vendor.test:8080", environ)
    assert "s3cr3t" not in str(caught.value)
    assert proxy_for_api("http://api.vendor.test", environ | {"NO_PROXY": "vendor.test"}) is None
    assert proxy_for_api("http://127.0.0.1:8080", environ) is None
    assert proxy_for_api("https://api.vendor.test", environ) is None
    assert proxy_for_api("HTTPS://api.vendor.test", {"ALL_PROXY": "p:1"}) is not None
