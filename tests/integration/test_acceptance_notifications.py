"""What people and machines are told of a run, read by machines: notifications, GitHub's files, JUnit."""

from __future__ import annotations

import csv
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from junitparser import JUnitXml

from tests.integration.vendor_double import vendor_and_workspace
from tests.integration.vendor_double.http_server import Exchange, HttpServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.integration.vendor_double import Workspace

SECRET = "T0KEN"
PRICED = ("--assume-price", "1.25", "--max-cost", "5")
FAILED = {"status": "error", "error": {"name": "Refused", "message": "::error::no | <b>\n::stop::"}}


class NotificationReceiver:
    """Someone's phone, by apprise's JSON service."""

    def __init__(self) -> None:
        self.server = HttpServer(self._receive)
        self.status = 200
        self.notifications: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self.server.port}/?token={SECRET}"

    async def _receive(self, exchange: Exchange) -> None:
        self.notifications.append(json.loads(exchange.request.body))
        await exchange.send(self.status)


@asynccontextmanager
async def notification_receiver() -> AsyncIterator[NotificationReceiver]:
    receiver = NotificationReceiver()
    await receiver.server.open()
    yield receiver
    await receiver.server.close()


def assert_secret_hidden(desk: Workspace, *outputs: str) -> None:
    """The notification's URL is a password: it is in nothing that is shown or kept."""
    assert not any(SECRET in text for text in outputs)
    assert not any(SECRET.encode() in (desk.folder / name).read_bytes() for name in desk.files())


async def test_the_end_is_told_with_counts_money_and_reason(tmp_path: Path) -> None:
    async with (
        vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk),
        notification_receiver() as receiver,
    ):
        vendor.script("bad", final_answer=FAILED)
        desk.write(["good", "bad"])
        result = await desk.run("--notify", receiver.url, "--generation-retries", "0", *PRICED)
        assert result.code == 1, result.output
        told = receiver.notifications[-1]
        assert "1 done, 1 failed" in told["title"]
        assert "$1.20 spent" in told["message"]
        assert "Refused" in told["message"]
        assert_secret_hidden(desk, result.output, json.dumps(told))


async def test_an_early_stop_is_told_with_its_reason(tmp_path: Path) -> None:
    async with (
        vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk),
        notification_receiver() as receiver,
    ):
        vendor.credits = 1
        desk.write(["one", "two", "three"])
        result = await desk.run("--notify", receiver.url, "--concurrency", "1")
        assert result.code == 3, result.output
        told = receiver.notifications[-1]
        assert "1 done" in told["title"]
        assert "2 pending" in told["title"]
        assert "credits" in told["message"]
        (tmp_path / "file").write_text("in the way")
        result = await desk.run("--notify", receiver.url, "--output", "file")
        assert result.code == 3, result.output
        assert len(receiver.notifications) == 2
        assert "cannot be written" in receiver.notifications[-1]["message"]


async def test_a_phone_that_is_off_fails_no_run(tmp_path: Path) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (_, desk), notification_receiver() as receiver:
        receiver.status = 500
        desk.write(["one"])
        result = await desk.run("--notify", receiver.url, "--notify", "json://127.0.0.1:9/", "--json")
        assert result.code == 0, result.output
        assert result.err.count("was not delivered") == 2
        assert json.loads(result.out)["counts"]["done"] == 1
        assert_secret_hidden(desk, result.output)


async def test_github_and_junit_point_at_the_rows_lines(tmp_path: Path) -> None:
    """Hostile words stay words: no second workflow command, no table cell broken."""
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        vendor.script("bad", final_answer=FAILED)
        rows = "".join(
            f"  - image_url: https://a.example/b.jpg\n    prompt: {word}\n" for word in ("good", "bad")
        )
        (tmp_path / "jobs").mkdir()
        (tmp_path / "jobs" / "a, b.yaml").write_text(f"jobs:\n{rows}")
        summary = tmp_path / "summary.md"
        desk.environment = {
            "GITHUB_ACTIONS": "true",
            "CI": "true",
            "GITHUB_WORKSPACE": str(tmp_path),
            "GITHUB_STEP_SUMMARY": str(summary),
        }
        result = await desk.run(
            "--junit", "junit.xml", "--json", "--generation-retries", "0", manifest="jobs/a, b.yaml"
        )
        assert result.code == 1, result.output
        commands = [line for line in result.err.splitlines() if line.startswith("::")]
        assert [line.partition(" ")[0].partition("::")[2] for line in commands] == [
            "group::veobatch:",
            "endgroup::",
            "error",
            "error",
        ]
        assert "title=veobatch::1 of 2 videos is saved. 1 failed.%0ANext: veobatch run" in commands[-2]
        assert "file=jobs/a%2C b.yaml,line=4," in commands[-1]
        text = summary.read_text()
        assert "| done | 1 |" in text
        assert "<b>" not in text
        with (tmp_path / "output" / "a, b" / "results.csv").open(newline="", encoding="utf-8-sig") as file:
            rows_of_csv = list(csv.DictReader(file))
        cases = [case for suite in JUnitXml.fromfile(str(tmp_path / "junit.xml")) for case in suite]
        assert [(case.name, case.is_failure) for case in cases] == [
            (row["id"], row["status"] == "failed") for row in rows_of_csv
        ]
        assert json.loads(result.out)["counts"] | {"done": 1, "failed": 1} == json.loads(result.out)["counts"]
