"""What keeps a run from starting: each cause is found in seconds, on one line, before a row is touched."""

from __future__ import annotations

import json
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.client import ApiKey
from pipeline.client.reachability import Finding, check_api
from pipeline.errors import UsageError
from pipeline.runner.preflight import check_report_file, fit_to_open_files
from pipeline.sandbox import KeyRule, Sandbox, SandboxOptions
from pipeline.settings import Settings
from tests.integration.ports import free_port
from tests.integration.raw_server import RawServer, respond_with, send_and_close
from tests.integration.vendor_double import Workspace, vendor_and_workspace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

KEY = ApiKey("sk-0123456789", "AIMLAPI_API_KEY")


async def obstacle(base_url: str, key: ApiKey | None = KEY) -> Finding | None:
    return (await check_api(base_url, key)).obstacle


@pytest.mark.parametrize(
    ("rule", "code", "words"),
    [
        (KeyRule("another"), "key_refused", "401"),
        (KeyRule(KEY.secret, disabled=True), "key_disabled", "is disabled"),
        (KeyRule(KEY.secret, scopes=("model:chat",)), "key_scope", "model:chat"),
    ],
)
async def test_a_key_that_will_not_do_is_told_from_the_others(rule: KeyRule, code: str, words: str) -> None:
    async with Sandbox(SandboxOptions(keys=(rule,))) as box:
        found = await obstacle(box.url)
    assert found is not None
    assert (found.code, found.reason.value) == (code, "key")
    assert words in found.message
    assert KEY.source in found.message
    assert KEY.secret not in str(found)


async def test_a_key_that_will_do_and_no_key_stop_nothing() -> None:
    async with Sandbox(SandboxOptions(keys=(KeyRule(KEY.secret, scopes=("model:video",)),))) as box:
        checked = await check_api(box.url, KEY)
        assert (checked.findings, checked.balance_usd) == ((), 1000.0)
        assert await obstacle(box.url, None) is None


async def test_a_wrong_path_of_the_api_is_not_the_api() -> None:
    async with Sandbox(SandboxOptions()) as box:
        found = await obstacle(f"{box.url}/api/wrong")
    assert found is not None
    assert found.code == "not_the_api"
    assert "404" in found.message


@pytest.mark.parametrize(
    "handler",
    [
        respond_with(200, b"<html>Welcome to your new web server</html>"),
        respond_with(404, b"<html>Not Found</html>"),
        respond_with(200, {"hello": "world"}),
        respond_with(301, b"", Location="https://elsewhere.example/login?token=s3cr3t"),
        respond_with(405, b""),
        respond_with(404, {"message": "no route"}),
    ],
)
async def test_whoever_else_answers_is_not_the_api(handler: Callable[..., Awaitable[None]]) -> None:
    async with RawServer(handler=handler) as server:
        found = await obstacle(server.url)
    assert found is not None
    assert found.code == "not_the_api"
    assert "s3cr3t" not in str(found)
    assert "--base-url" in found.next_step


@pytest.mark.parametrize(
    "handler",
    [
        respond_with(503, b"<html>busy</html>"),
        respond_with(429, {"message": "slow down"}),
        respond_with(401, b"", X_Policy="x" * 20_000),
        respond_with(500, {"message": "oops"}),
    ],
)
async def test_a_bad_moment_or_a_long_header_is_no_reason_to_stop(
    handler: Callable[..., Awaitable[None]],
) -> None:
    async with RawServer(handler=handler) as server:
        assert await obstacle(server.url, None) is None


async def test_what_does_not_speak_http_is_named() -> None:
    async with RawServer(handler=send_and_close(b"SSH-2.0-OpenSSH_9.2\r\n"), before_request=True) as server:
        found = await obstacle(server.url)
    assert found is not None
    assert "does not speak HTTP" in found.message


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:{}", "refused"),
        ("https://no-such-host.invalid", "DNS"),
    ],
)
async def test_a_host_that_cannot_be_reached_is_named_with_the_cause(url: str, words: str) -> None:
    found = await obstacle(url.format(free_port()))
    assert found is not None
    assert found.code == "unreachable"
    assert words in found.message


async def test_plain_http_on_a_port_for_tls_is_a_tls_error() -> None:
    async with Sandbox(SandboxOptions()) as box:
        found = await obstacle(box.url.replace("http://", "https://"))
    assert found is not None
    assert "TLS" in found.message


@pytest.mark.parametrize(("offset_s", "words"), [(3600, "60 min behind"), (-7200, "120 min ahead of")])
async def test_a_clock_that_is_wrong_is_reported_and_stops_nothing(offset_s: int, words: str) -> None:
    answer: dict[str, Any] = {"current_balance": 5.0, "currency": "USD"}
    date = formatdate(time.time() + offset_s, usegmt=True)
    async with RawServer(handler=respond_with(200, answer, Date=date)) as server:
        checked = await check_api(server.url, KEY)
    assert checked.obstacle is None
    assert [words in finding.message for finding in checked.findings] == [True]


@pytest.mark.parametrize("command", [["run", "--yes", "--max-cost", "2"], ["estimate"], ["doctor"]])
@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ("http://127.0.0.1:9", 3, "cannot reach 127.0.0.1: the connection was refused"),
        ("{}/wrong", 2, "is not the API"),
        ("{}", 3, "the key read from AIMLAPI_API_KEY was refused (401)"),
    ],
)
async def test_every_command_names_the_cause_and_touches_no_row(
    tmp_path: Path, command: list[str], url: str, code: int, words: str
) -> None:
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        desk.key = desk.key if "wrong" in url else "sk-another"
        desk.write(["one"])
        base_url = url.format(vendor.api.url)
        result = await desk.command(command[0], "batch.json", *command[1:], "--base-url", base_url)
        assert result.code == code, result.output
        assert words in result.output
        assert "Traceback" not in result.output
        assert "--assume-price" not in result.output
        assert vendor.create_counts == {}
        if command[0] == "run" and code == 3:
            assert desk.states() == {"pending": 1}


async def test_a_run_that_cannot_start_says_so_in_json(tmp_path: Path) -> None:
    desk = Workspace(tmp_path, "http://127.0.0.1:9")
    desk.write(["one"])
    result = await desk.run("--json")
    assert result.code == 3
    summary = json.loads(result.out)
    assert (summary["exit_code"], summary["stop"]) == (3, "unreachable")
    assert "refused" in summary["message"]


async def test_the_doctor_finds_nothing_where_all_is_well(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        desk.write(["one", "two"])
        result = await desk.command("doctor", "batch.json", "--base-url", vendor.api.url)
        assert result.code == 0, result.output
        assert "FAIL" not in result.out
        assert "2 jobs" in result.out
        assert "100.00 USD" in result.out
        assert desk.files() == {"batch.json"}


@pytest.mark.parametrize("name", ["missing/junit.xml", "folder"])
def test_a_report_file_that_cannot_be_written_is_an_error_at_the_start(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="--junit"):
        check_report_file("--junit", tmp_path / name)
    check_report_file("--junit", tmp_path / "junit.xml")


@pytest.mark.parametrize(
    ("limit", "concurrency", "downloads", "connections"),
    [(4096, 100, 40, 128), (256, 100, 32, 64), (255, 63, 31, 63), (100, 12, 6, 12), (64, 1, 1, 1)],
)
def test_settings_fit_the_limit_of_open_files(
    limit: int, concurrency: int, downloads: int, connections: int
) -> None:
    settings, made, warning = fit_to_open_files(Settings(concurrency=100, downloads=40), limit)
    assert (settings.concurrency, settings.downloads, made) == (concurrency, downloads, connections)
    assert (str(limit) in warning) is (limit < 4096)


def test_a_batch_may_have_more_generations_in_flight_than_files_may_be_open() -> None:
    wanted = Settings(concurrency=100_000)
    assert fit_to_open_files(wanted, limit=4096) == (wanted, 128, "")
