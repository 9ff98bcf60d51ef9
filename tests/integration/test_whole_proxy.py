"""The real command behind a proxy that fails in every way it can: paid once, nothing lost, the key unseen."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.integration.tunnels import Tunnel, make_certificate, server_side
from tests.integration.vendor_double import KEY, LOST, Desk, Double, Script, at_work
from tests.integration.wires import raw, says, sends

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

API = "https://api.vendor.test"


@asynccontextmanager
async def behind_a_proxy(folder: Path) -> AsyncIterator[tuple[Double, Desk, Tunnel]]:
    """A vendor that can be reached through a proxy alone: nobody else knows its name."""
    certificate = make_certificate(folder)
    async with (
        at_work(folder, render_s=0.2) as (vendor, desk),
        Tunnel(vendor.api.port, inner=server_side(certificate), user="me:s3cr3t") as tunnel,
    ):
        desk.base_url = API
        desk.environment |= {"HTTPS_PROXY": tunnel.url, "SSL_CERT_FILE": str(certificate)}
        yield vendor, desk, tunnel


async def test_a_batch_is_paid_once_through_a_proxy_that_fails(tmp_path: Path) -> None:
    async with behind_a_proxy(tmp_path) as (vendor, desk, tunnel):
        tunnel.faults = [
            *(says(status) for status in (502, 407, 503, 403, 500, 504)),
            sends(b"", reset=True),
            sends(b""),
            sends(raw(200, {}), reset=True),
        ]
        prompts = ["one", "two", "three", *LOST]
        for way, lost in LOST.items():
            vendor.scripts[way] = Script(creates=[lost])
        desk.write(prompts)
        result = await desk.run("-vv", "--reconcile-after", "3")
        assert result.code == 0, result.said
        assert vendor.paid() == dict.fromkeys(prompts, 1)
        assert tunnel.faults == []
        assert set(tunnel.asked_for) == {"CONNECT api.vendor.test:443"}
        assert KEY.encode() not in tunnel.seen
        for name in ("run.log", "results.csv", "report.html"):
            assert b"s3cr3t" not in (desk.output / name).read_bytes()
        assert "s3cr3t" not in result.said


async def test_the_reason_is_said_when_the_proxy_wants_a_user(tmp_path: Path) -> None:
    async with behind_a_proxy(tmp_path) as (vendor, desk, tunnel):
        desk.environment["HTTPS_PROXY"] = f"http://me:wr0ng@127.0.0.1:{tunnel.port}"
        desk.write(["one"])
        result = await desk.command("estimate", "batch.json", "--base-url", API)
        assert "the proxy opened no tunnel: HTTP 407" in result.err, result.said
        assert "wr0ng" not in result.said
        assert vendor.requests == []


@pytest.mark.parametrize(
    ("variable", "value", "base_url", "words"),
    [
        ("HTTP_PROXY", "http://me:s3cr3t@127.0.0.1:9", "http://api.vendor.test", "could read the key"),
        ("ALL_PROXY", "socks5://me:s3cr3t@127.0.0.1:9", API, "socks5:// proxy"),
        ("https_proxy", "http://me:12#s3cr3t@127.0.0.1:9", API, "will not do as a proxy"),
    ],
)
async def test_a_proxy_of_no_use_ends_the_run_before_it_begins(
    tmp_path: Path, variable: str, value: str, base_url: str, words: str
) -> None:
    desk = Desk(tmp_path, base_url, environment={variable: value})
    desk.write(["one"])
    result = await desk.run()
    assert result.code == 2, result.said
    assert variable in result.err
    assert words in result.err
    assert "s3cr3t" not in result.said
    assert not desk.output.exists()
