"""Hooks on real sockets and processes: signed, tried again, never in the way of a run."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import socket
import struct
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer, TestServer

from pipeline import Batch
from pipeline.backoff import RetryPolicy
from pipeline.errors import UsageError
from pipeline.runner import hook_targets, hooks
from pipeline.runner.hook_targets import SIGNATURE_HEADER, CommandHook, DeliveryError, Webhook, sign
from tests import forked_python

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

pytestmark = pytest.mark.usefixtures("small_clips")

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "hooks.md"
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
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
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
    is_genuine = page_example()
    for headers, body in receiver.requests:
        assert is_genuine(headers[SIGNATURE_HEADER], body, SECRET)
        assert not is_genuine(headers[SIGNATURE_HEADER], body + b" ", SECRET)
        assert not is_genuine(headers[SIGNATURE_HEADER].replace("t=1", "t=2"), body, SECRET)
        assert not is_genuine(headers[SIGNATURE_HEADER], body, "another secret")
        assert b"sig=1" not in body


def page_example() -> Callable[[str, bytes, str], bool]:
    """Return the function that the page gives to receivers."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)  # noqa: S102 - our own page
    return names["is_genuine"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("codes", [(404,), (500,), (302,)])
async def test_a_receiver_that_refuses_costs_a_warning_and_nothing_else(codes: tuple[int, ...]) -> None:
    receiver = Receiver(codes)
    server = await serve(receiver)
    results, notes = await run_batch(webhook=str(server.make_url("/hook")), allow_private_webhook=True)
    await server.close()
    assert results.exit_code == 0
    assert sum(f"--webhook failed: answered {codes[0]}" in note for note in notes) == 3
    assert len(receiver.requests) >= 3


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:9", "[::1]", "169.254.169.254", "[::]", "[::ffff:127.0.0.1]", "[::ffff:a00:1]",
     "[64:ff9b::7f00:1]", "127。0。0。1"],
)  # fmt: skip
def test_private_addresses_are_refused(host: str) -> None:
    with pytest.raises(UsageError, match="--allow-private-webhook"):
        Webhook(f"http://{host}/x", "")
    Webhook(f"http://{host}/x", "", allow_private=True)


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0177.0.0.1", "0", "127.0.0.1."])
def test_an_address_that_resolvers_read_differently_is_refused(host: str) -> None:
    for allow_private in (False, True):
        with pytest.raises(UsageError, match="four numbers"):
            Webhook(f"http://{host}:9/x", "", allow_private=allow_private)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "0x7f.0.0.1", "0x7f000001"])
async def test_names_that_lead_to_private_addresses_are_refused(host: str) -> None:
    with pytest.raises(DeliveryError, match="private address") as caught:
        await Webhook(f"http://{host}:9/x", "").deliver({"delivery": "1"}, b"{}")
    assert caught.value.final


async def test_a_webhook_goes_through_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    async def handle(request: web.BaseRequest) -> web.Response:
        asked.append((request.method, str(request.url), await request.read()))
        return web.Response()

    async with RawTestServer(handle) as proxy:
        monkeypatch.setenv("HTTP_PROXY", str(proxy.make_url("/")))
        await Webhook("http://hooks.invalid/x", "").deliver({"delivery": "1"}, b"{}")
        assert asked == [("POST", "http://hooks.invalid/x", b"{}")]
        monkeypatch.setenv("NO_PROXY", "hooks.invalid")
        with pytest.raises(DeliveryError):
            await Webhook("http://hooks.invalid/x", "").deliver({"delivery": "1"}, b"{}")
    assert len(asked) == 1


Behaviour: TypeAlias = "Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]"


@asynccontextmanager
async def misbehaving(behave: Behaviour) -> AsyncIterator[str]:
    """Give the URL of a receiver; whatever it still does at the end is ended."""
    tasks: list[asyncio.Task[Any]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            tasks.append(task)
        with suppress(OSError, asyncio.CancelledError):
            await behave(reader, writer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
    server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(-1)


async def begin_and_hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX-More: 1\r\n")
    await reader.read(-1)


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"<html>not HTTP at all</html>\r\n\r\n")


@pytest.mark.parametrize("behave", [hang, begin_and_hang, reset, babble])
async def test_a_receiver_that_misbehaves_is_tried_again(
    behave: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook_targets, "DELIVERY_LIMIT_S", 0.2)
    async with misbehaving(behave) as url:
        with pytest.raises(DeliveryError) as caught:
            await Webhook(url, "", allow_private=True).deliver({"delivery": "1"}, b"{}")
    assert not caught.value.final


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


SECRETS = {
    "AIMLAPI_API_KEY": "sk-first-key-of-all",
    "AIML_API_KEY": "sk-second",
    "AIMLAPI_KEY": "sk3",
    "AIMLAPI_MANAGEMENT_KEY": "mk-manages-all",
    "VEOBATCH_WEBHOOK_SECRET": "signs-webhooks",
    "PGPASSWORD": "of-the-server",
}
HELD_ELSEWHERE = {
    "OPENAI_API_KEY": "sk-first-key-of-all",
    "AUTHORIZATION": "Bearer mk-manages-all",
    "DATABASE_URL": "postgresql://me:p%40ssw0rd-of-mine@db/clips",
    "DATABASE_PASSWORD": "p@ssw0rd-of-mine",
    "SHORT": "sk3",
}
KEPT = {"AWS_ACCESS_KEY_ID": "AKIA-of-the-bucket", "WORD": "task3", "VEOBATCH_TIMEOUT": "60", "EMPTY": ""}


async def test_a_command_gets_no_value_of_any_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = "postgresql://me:p%40ssw0rd-of-mine@db/clips?sslmode=require"
    for name, value in {**SECRETS, **HELD_ELSEWHERE, **KEPT, "VEOBATCH_LEDGER": ledger}.items():
        monkeypatch.setenv(name, value)
    script = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
    seen = tmp_path / "seen.json"
    hook = CommandHook(shlex.join([sys.executable, "-c", script, str(seen)]))
    await hook.deliver(EVENT, b"{}")
    environ = json.loads(seen.read_text(encoding="utf-8"))
    assert not environ.keys() & {*SECRETS, *HELD_ELSEWHERE}
    assert {name: environ[name] for name in KEPT} == KEPT
    assert environ["VEOBATCH_LEDGER"] == "postgresql://me:***@db/clips?sslmode=require"


@pytest.mark.parametrize("command", ["", "'half"])
def test_a_command_that_is_none_is_refused(command: str) -> None:
    with pytest.raises(UsageError, match="--on-done"):
        CommandHook(command)


async def test_what_cannot_be_started_is_said_and_does_not_matter() -> None:
    results, notes = await run_batch(on_done="./no-such-program")
    assert results.exit_code == 0
    assert any("--on-done failed: No such file" in note for note in notes)


EVENT = {"event": "row", "delivery": "1", "row": {"id": "a"}}
LARGE_BODY = b"x" * 1_000_000


@pytest.mark.parametrize(
    "script", ["exit 0", "head -c 10000000 /dev/zero; head -c 10000000 /dev/zero >&2", "sleep 60 & exit 0"]
)
async def test_a_command_need_not_read_may_write_and_may_leave_others_behind(script: str) -> None:
    await CommandHook(f"sh -c {shlex.quote(script)}").deliver(EVENT, LARGE_BODY)


@pytest.mark.parametrize("script", ["trap '' TERM INT; sleep 60", "yes >&2", "sleep 60 & cat >&2; wait"])
async def test_a_command_that_does_not_end_is_killed_with_all_that_it_started(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook_targets, "COMMAND_LIMIT_S", 0.3)
    os.mkfifo(tmp_path / "pipe")
    alive = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(alive, True)
    with pytest.raises(DeliveryError, match="still ran") as caught:
        await CommandHook(f"sh -c {shlex.quote(f'exec 9>pipe; {script}')}").deliver(EVENT, LARGE_BODY)
    assert caught.value.final
    assert os.read(alive, 1) == b""  # at its end once nobody holds the other side any more
    os.close(alive)


async def test_hooks_that_hang_or_break_neither_hold_up_nor_fail_a_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def explode(self: CommandHook, event: Any, body: bytes) -> None:
        raise ValueError("embedded null byte")

    monkeypatch.setattr(hooks, "DRAIN_LIMIT_S", 0.2)
    monkeypatch.setattr(CommandHook, "deliver", explode)
    async with misbehaving(hang) as url:
        results, notes = await run_batch(webhook=url, allow_private_webhook=True, on_done="./done.sh")
    assert results.exit_code == 0
    assert "--on-done failed: embedded null byte; the run goes on" in notes
    assert any("not delivered within" in note for note in notes)


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
