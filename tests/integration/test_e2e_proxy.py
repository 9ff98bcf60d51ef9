"""The real command behind a proxy that fails in every way it can: paid once, nothing lost, the key unseen."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.integration.connect_proxy import ConnectProxy, make_certificate, server_tls_context
from tests.integration.raw_server import respond_with, response_head, send_and_close
from tests.integration.vendor_double import (
    KEY,
    LOST_CREATES,
    JobScript,
    VendorDouble,
    Workspace,
    vendor_and_workspace,
    wait_for_exit,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

API = "https://api.vendor.test"


@asynccontextmanager
async def vendor_behind_proxy(folder: Path) -> AsyncIterator[tuple[VendorDouble, Workspace, ConnectProxy]]:
    """A vendor that can be reached through a proxy alone: nobody else knows its name."""
    certificate = make_certificate(folder)
    async with (
        vendor_and_workspace(folder, render_s=0.2) as (vendor, desk),
        ConnectProxy(vendor.api.port, inner_tls=server_tls_context(certificate), user="me:s3cr3t") as tunnel,
    ):
        desk.base_url = API
        desk.environment |= {"HTTPS_PROXY": tunnel.url, "SSL_CERT_FILE": str(certificate)}
        yield vendor, desk, tunnel


async def test_a_batch_is_paid_once_through_a_proxy_that_fails(tmp_path: Path) -> None:
    async with vendor_behind_proxy(tmp_path) as (vendor, desk, tunnel):
        faults = [
            *(respond_with(status) for status in (502, 407, 503, 403, 500, 504)),
            send_and_close(b"", reset=True),
            send_and_close(b""),
            send_and_close(response_head(200, {}), reset=True),
        ]
        prompts = ["one", "two", "three", *LOST_CREATES]
        for way, lost in LOST_CREATES.items():
            vendor.scripts[way] = JobScript(creates=[lost])
        desk.write(prompts)
        process = await desk.start("-vv", "--reconcile-after", "3")
        await wait_until(lambda: {"/v1/key", "/v2/billing"} <= {seen.path for seen in vendor.requests})
        tunnel.faults = faults
        result = await wait_for_exit(process)
        assert result.code == 0, result.output
        assert vendor.paid_counts() == dict.fromkeys(prompts, 1)
        assert tunnel.faults == []
        assert set(tunnel.request_lines) == {"CONNECT api.vendor.test:443"}
        assert KEY.encode() not in tunnel.visible_bytes
        for name in ("run.log", "results.csv", "report.html"):
            assert b"s3cr3t" not in (desk.output / name).read_bytes()
        assert "s3cr3t" not in result.output


async def test_the_reason_is_said_when_the_proxy_wants_a_user(tmp_path: Path) -> None:
    async with vendor_behind_proxy(tmp_path) as (vendor, desk, tunnel):
        desk.environment["HTTPS_PROXY"] = f"http://me:wr0ng@127.0.0.1:{tunnel.port}"
        desk.write(["one"])
        result = await desk.command("estimate", "batch.json", "--base-url", API)
        assert "HTTPS_PROXY opened no tunnel: HTTP 407" in result.err, result.output
        assert "wr0ng" not in result.output
        assert vendor.requests == []


@pytest.mark.parametrize(
    ("variable", "value", "base_url", "words"),
    [
        ("HTTP_PROXY", "http://me:s3cr3t@127.0.0.1:9", "http://api.vendor.test", "could read the key"),
        ("ALL_PROXY", "socks5://me:s3cr3t@127.0.0.1:9", API, "socks5:// proxy"),
        ("https_proxy", "http://me:12#s3cr3t@127.0.0.1:9", API, "cannot be used as a proxy"),
    ],
)
async def test_a_proxy_of_no_use_ends_the_run_before_it_begins(
    tmp_path: Path, variable: str, value: str, base_url: str, words: str
) -> None:
    desk = Workspace(tmp_path, base_url, environment={variable: value})
    desk.write(["one"])
    result = await desk.run()
    assert result.code == 2, result.output
    assert variable in result.err
    assert words in result.err
    assert "s3cr3t" not in result.output
    assert not desk.output.exists()
