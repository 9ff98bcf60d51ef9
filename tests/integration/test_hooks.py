"""Hooks on real sockets and processes: signed, tried again, never in the way of a run."""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pipeline import Batch
from pipeline.backoff import RetryPolicy
from pipeline.errors import UsageError
from pipeline.runner import hooks
from pipeline.runner.hooks import SIGNATURE_HEADER, CommandHook, DeliveryError, Webhook, sign
from tests import forked_python

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("small_clips")

SECRET = "a shared secret"
ROWS = [
    {"id": name, "image_url": "https://example.com/a.jpg?sig=1", "prompt": name, "duration": 4}
    for name in ("one", "two")
]


class Receiver:
    """Keeps what it is sent; answers with `codes`, the last one for good."""

    def __init__(self, codes: Sequence[int] = (200,)) -> None:
        self.codes = list(codes)
        self.requests: list[tuple[dict[str, str], bytes]] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append((dict(request.headers), await request.read()))
        code = self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]
        return web.Response(status=code, headers={"Location": "/elsewhere"})

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.requests]


async def serve(receiver: Receiver) -> TestServer:
    app = web.Application()
    app.router.add_post("/hook", receiver.handle)
    server = TestServer(app)
    await server.start_server()
    return server


async def run_batch(**options: Any) -> tuple[Any, list[str]]:
    async with Batch(ROWS, title="n", sandbox=True, sandbox_speed=400.0, **options) as batch:
        notes = [getattr(event, "message", "") async for event in batch.run()]
        return await batch.results(), notes


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VEOBATCH_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("AIMLAPI_API_KEY", "sk-not-for-commands")
    monkeypatch.setattr(hooks, "_POLICY", RetryPolicy(max_rejections=3, first_wait_s=0.01, max_wait_s=0.02))


async def test_each_row_s_end_and_the_run_s_are_posted_signed_and_tried_again() -> None:
    receiver = Receiver([500, 200])
    server = await serve(receiver)
    results, _ = await run_batch(webhook=str(server.make_url("/hook")), allow_private_webhook=True)
    await server.close()
    assert results.ok
    events = {event["delivery"]: event for event in receiver.events}
    assert len(receiver.events) >= 4  # the first one twice
    assert sorted((event["event"], event.get("row", {}).get("id")) for event in events.values()) == [
        ("row", "one"), ("row", "two"), ("run", None),
    ]  # fmt: skip
    assert receiver.events[-1]["summary"]["counts"]["done"] == 2
    for headers, body in receiver.requests:
        at, _, digest = headers[SIGNATURE_HEADER].removeprefix("t=").partition(",v1=")
        assert digest == hmac.new(SECRET.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
        assert b"sig=1" not in body


@pytest.mark.parametrize("codes", [(404,), (500,), (302,)])
async def test_a_receiver_that_refuses_costs_a_warning_and_nothing_else(codes: tuple[int, ...]) -> None:
    receiver = Receiver(codes)
    server = await serve(receiver)
    results, notes = await run_batch(webhook=str(server.make_url("/hook")), allow_private_webhook=True)
    await server.close()
    assert results.exit_code == 0
    assert sum(f"--webhook failed: answered {codes[0]}" in note for note in notes) == 3
    assert len(receiver.requests) >= 3


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x", "http://[::1]/x", "http://169.254.169.254/latest"])
def test_private_addresses_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="--allow-private-webhook"):
        Webhook(url, "")
    Webhook(url, "", allow_private=True)


async def test_names_that_lead_to_private_addresses_are_refused() -> None:
    with pytest.raises(DeliveryError, match="private address") as caught:
        await Webhook("http://localhost:9/x", "").deliver({"delivery": "1"}, b"{}")
    assert caught.value.final


@pytest.mark.parametrize("url", ["ftp://example.com/token", "example.com/token", "https://"])
def test_an_address_that_cannot_be_used_is_not_shown(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        Webhook(url, "")
    assert "token" not in str(caught.value)


def test_the_signature_is_of_the_time_and_the_body() -> None:
    assert sign(b"{}", "k", 1) != sign(b"{}", "k", 2)
    assert sign(b"{}", "k", 1).startswith("t=1,v1=")


SCRIPT = """
import json, os, pathlib, sys
event = json.load(sys.stdin)
name = f"{os.environ['VEOBATCH_EVENT']}-{os.environ['VEOBATCH_ID']}.txt"
seen = {"status": os.environ["VEOBATCH_STATUS"], "video": os.path.exists(os.environ["VEOBATCH_VIDEO"])}
secrets = [name for name in os.environ if "KEY" in name or "SECRET" in name]
pathlib.Path(name).write_text(json.dumps({**seen, "event": event["event"], "secrets": secrets}))
sys.exit(3 if os.environ["VEOBATCH_ID"] == "two" else 0)
"""


def told_by(folder: Path) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*-*.txt")}


async def test_a_command_gets_each_event_and_no_secret(tmp_path: Path) -> None:
    (tmp_path / "hook.py").write_text(SCRIPT, encoding="utf-8")
    results, notes = await run_batch(on_done=f"{sys.executable} hook.py")
    assert results.exit_code == 0
    told = told_by(tmp_path)
    row = {"status": "done", "video": True, "event": "row", "secrets": []}
    run = {**row, "status": "", "video": False, "event": "run"}
    assert told == {"row-one": row, "row-two": row, "run-": run}
    assert "--on-done failed: exit code 3; the run goes on" in notes


@pytest.mark.parametrize("command", ["", "'half"])
def test_a_command_that_is_none_is_refused(command: str) -> None:
    with pytest.raises(UsageError, match="--on-done"):
        CommandHook(command)


async def test_what_cannot_be_started_is_said_and_does_not_matter() -> None:
    results, notes = await run_batch(on_done="./no-such-program")
    assert results.exit_code == 0
    assert any("--on-done failed: No such file" in note for note in notes)


async def test_receipts_lie_beside_the_clips_and_verify_notices_what_became_of_them(tmp_path: Path) -> None:
    await run_batch(receipts=True)
    folder = tmp_path / "output" / "n.sandbox"
    receipts = sorted((folder / "videos").glob("*.json"))
    assert [path.stem for path in receipts] == ["one", "two"]
    assert await verified(folder) == (0, [], [])
    receipts[0].write_text(
        receipts[0].read_text(encoding="utf-8").replace('"model"', '"m"'), encoding="utf-8"
    )
    receipts[1].unlink()
    assert await verified(folder) == (1, ["one"], ["two"])
    await run_batch(receipts=True)
    assert await verified(folder) == (1, ["one"], [])


async def verified(folder: Path) -> tuple[int, list[str], list[str]]:
    """Return what `veobatch verify` says of receipts: its exit code, those altered, those missing."""
    words = ("-m", "pipeline", "verify", str(folder), "--json")
    done = await forked_python.run(*words, cwd=folder, env={"HOME": str(folder)})
    told = json.loads(done.stdout)
    altered, missing = ([file["id"] for file in told[f"receipt_{kind}"]] for kind in ("altered", "missing"))
    return done.returncode, altered, missing
