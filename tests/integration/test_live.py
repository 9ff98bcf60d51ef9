"""The live page's server over real sockets: events, files, and who is let in."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.errors import UsageError
from pipeline.events import Event, Topic
from pipeline.ledger import Ledger
from pipeline.model import Pick, State
from pipeline.results.live import BindAddress, ChangeFeed, LivePage, Reviews, parse_bind
from pipeline.results.report.page_data import FIELDS
from pipeline.storage.local import LocalStore
from tests.unit.sample_rows import done, failed, row

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pipeline.model import Record
    from pipeline.storage.base import FileStamp


@asynccontextmanager
async def live_page(
    root: Path, records: list[Record], bind: BindAddress | None = None, **facts: Any
) -> AsyncIterator[tuple[ChangeFeed, LivePage, aiohttp.ClientSession]]:
    feed = ChangeFeed(records)
    facts = {"store": LocalStore(root)} | facts
    page = LivePage(feed, bind or BindAddress("127.0.0.1", 0), title="t", manifest="m.yaml", **facts)
    async with (
        page,
        aiohttp.ClientSession(page.url.partition("?")[0], timeout=aiohttp.ClientTimeout(600)) as session,
    ):
        yield feed, page, session


class EventListener:
    """Reads server-sent events one by one."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.last_event_id = ""

    async def next(self, name: str) -> Any:
        """Return the data of the next event called `name`."""
        while True:
            fields: dict[str, str] = {}
            while line := (await self._response.content.readline()).decode().rstrip("\n"):
                key, _, value = line.partition(": ")
                fields[key] = value
            self.last_event_id = fields.get("id", self.last_event_id)
            if fields.get("event") == name:
                return json.loads(fields["data"])
            assert fields, "the stream ended"

    async def section(self, name: str) -> str:
        """Return a section as it is drawn next; what took long on a busy machine comes after the others."""
        while name not in (html := await self.next("parts")):
            pass
        return str(html[name])

    async def rows(self) -> list[tuple[str, str]]:
        return [(item[FIELDS.index("id")], item[FIELDS.index("status")]) for item in await self.next("rows")]


async def test_changes_reach_a_listener_and_none_is_told_twice(tmp_path: Path) -> None:
    rows = [row(0), row(1)]
    async with live_page(tmp_path, rows) as (feed, _, session):
        async with session.get("events", params={"since": feed.cursor}) as response:
            assert response.content_type == "text/event-stream"
            listener = EventListener(response)
            assert set(await listener.next("parts")) == {"top", "failures", "charts"}
            feed.on_transition(rows[1], done(1))
            assert await listener.rows() == [("job-1", "done")]
            assert "1 of 2 videos is saved." in await listener.section("top")
        feed.on_transition(rows[0], failed(0))
        headers = {"Last-Event-ID": listener.last_event_id}
        async with session.get("events", params={"since": "old"}, headers=headers) as response:
            assert await EventListener(response).rows() == [("job-0", "failed")]


async def test_a_page_of_another_run_is_told_everything(tmp_path: Path) -> None:
    async with (
        live_page(tmp_path, [row(0), row(1)]) as (_, _, session),
        session.get("events", params={"since": "ffffffff-7"}) as response,
    ):
        assert await EventListener(response).rows() == [("job-0", "pending"), ("job-1", "pending")]


async def test_listeners_are_let_go_at_the_end(tmp_path: Path) -> None:
    async with (
        live_page(tmp_path, [row(0)]) as (feed, _, session),
        session.get("events", params={"since": feed.cursor}) as response,
    ):
        listener = EventListener(response)
        await listener.next("pulse")
        feed.on_transition(row(0), done(0))
        feed.close()
        assert await listener.rows() == [("job-0", "done")]
        assert await listener.next("ended") == "ended"
        assert await response.content.read() == b""


async def test_the_server_goes_down_with_a_listener_attached(tmp_path: Path) -> None:
    async with asyncio.timeout(600):
        async with live_page(tmp_path, [row(0)]) as (feed, page, session):
            response = await session.get("events", params={"since": feed.cursor})
            await EventListener(response).next("pulse")
            await page.__aexit__(None, None, None)
            assert await EventListener(response).next("ended") == "ended"


async def test_the_page_the_table_and_the_videos(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a #1.mp4").write_bytes(b"0123456789")
    async with live_page(tmp_path, [done(0)]) as (_, _, session):
        async with session.get("") as response:
            assert response.headers["X-Frame-Options"] == "DENY"
            assert "The video is saved." in await response.text()
        async with session.get("results.csv") as response:
            assert [line["id"] for line in csv.DictReader(io.StringIO(await response.text()))] == ["job-0"]
        async with session.get("videos/a%20%231.mp4", headers={"Range": "bytes=2-4"}) as response:
            assert (response.status, await response.read()) == (206, b"234")
            assert response.content_type == "video/mp4"


class SlowDisk(LocalStore):
    """A store whose files are read once `ready` is set."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked, self.ready = asyncio.Event(), asyncio.Event()

    async def read_range(self, path: str, stamp: FileStamp, start: int, end: int) -> bytes:
        self.asked.set()
        await self.ready.wait()
        return await super().read_range(path, stamp, start, end)


async def test_a_slow_disk_holds_up_nobody_else(tmp_path: Path) -> None:
    store = SlowDisk(tmp_path)
    await store.write_bytes("videos/a.mp4", b"0123456789")
    async with live_page(tmp_path, [done(0)], store=store) as (_, _, session):
        clip = asyncio.create_task(session.get("videos/a.mp4"))
        await store.asked.wait()
        async with session.get("") as response:
            assert response.status == 200
        store.ready.set()
        async with await clip as response:
            assert await response.read() == b"0123456789"


@pytest.mark.parametrize(
    "path",
    [
        "videos/../ledger.sqlite3",
        "videos/%2e%2e/ledger.sqlite3",
        "videos/..%2fsecret.mp4",
        "videos/%2e%2e%2fsecret.mp4",
        "videos//secret.mp4",
        "videos/link.mp4",
        "videos/.hidden.mp4",
        "videos/a.mp4.part",
        "videos/a%00.mp4",
        "videos/folder.mp4",
        "ledger.sqlite3",
        "other/a.mp4",
        "videos",
    ],
)
async def test_nothing_but_the_gallerys_files_is_given_out(tmp_path: Path, path: str) -> None:
    root = tmp_path / "out"
    (root / "videos" / "folder.mp4").mkdir(parents=True)
    (root / "other").mkdir()
    for name in ("ledger.sqlite3", "secret.mp4", "videos/.hidden.mp4", "videos/a.mp4.part", "other/a.mp4"):
        (root / name).write_text("secret")
    (root / "videos" / "link.mp4").symlink_to(root / "secret.mp4")
    async with live_page(root, [done(0)]) as (_, page, _):
        address = page.url.removeprefix("http://").rstrip("/")
        host, port = address.rsplit(":", 1)
        reader, writer = await asyncio.open_connection(host, int(port))
        # Raw, since a client would tidy the path.
        writer.write(f"GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
    assert answer.split()[1] in (b"404", b"400")
    assert b"secret" not in answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(("host", "status"), [("evil.example", 421), ("localhost:1", 200), ("[::1]", 200)])
async def test_a_rebound_name_is_refused(tmp_path: Path, host: str, status: int) -> None:
    async with live_page(tmp_path, [row(0)]) as (_, _, session):
        for path in ("", "results.csv", "metrics", "events?since="):
            async with session.get(path, headers={"Host": host}) as response:
                assert response.status == status


async def test_others_need_the_token(tmp_path: Path) -> None:
    async with live_page(tmp_path, [row(0)], BindAddress("0.0.0.0", 0)) as (_, page, _):  # noqa: S104
        token = page.url.partition("?token=")[2]
        assert len(token) >= 32
        base = page.url.partition("?")[0].replace("0.0.0.0", "127.0.0.1")  # noqa: S104
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(base, cookie_jar=jar) as session:
            for path in ("", "events", "videos/a.mp4", "metrics", "?token=wrong", "?token="):
                async with session.get(path) as response:
                    assert response.status == 401
            async with session.get("metrics", headers={"Authorization": f"Bearer {token}"}) as response:
                assert response.status == 200
            async with session.get("", params={"token": token}) as response:
                assert response.status == 200
                assert "token" not in str(response.url)
            async with session.get("results.csv") as response:
                assert response.status == 200


async def test_only_reading_is_allowed(tmp_path: Path) -> None:
    async with live_page(tmp_path, [row(0)]) as (_, _, session):
        for method in ("POST", "PUT", "DELETE"):
            async with session.request(method, "") as response:
                assert response.status == 405


async def test_metrics(tmp_path: Path) -> None:
    rows = [done(0, 50.0), done(1, 100.0), failed(2), row(3, State.GENERATING, reserved_usd=1.2)]
    async with live_page(tmp_path, rows) as (feed, _, session):
        feed.on_event(Event(Topic.THROTTLED, "slower"))
        async with session.get("metrics") as response:
            families = {
                family.name: family for family in text_string_to_metric_families(await response.text())
            }
    by_status = {sample.labels["status"]: sample.value for sample in families["veobatch_rows"].samples}
    assert by_status == {"done": 2, "failed": 1, "generating": 1, "in_doubt": 0, "ready": 0, "pending": 0}
    assert families["veobatch_spent_usd"].samples[0].value == 2.4
    assert families["veobatch_throttled"].samples[0].value == 1
    buckets = {
        s.labels.get("le"): s.value for s in families["veobatch_rendering_seconds"].samples if s.labels
    }
    assert (buckets["45.0"], buckets["60.0"], buckets["120.0"], buckets["+Inf"]) == (0, 1, 2, 2)


async def test_a_place_that_is_taken_is_said_so(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match=r"cannot listen at 127\.0\.0\.1"):
            async with live_page(tmp_path, [], BindAddress("127.0.0.1", taken.getsockname()[1])):
                pass


@pytest.mark.parametrize(
    ("text", "bind", "local"),
    [
        ("8080", BindAddress("127.0.0.1", 8080), True),
        (":0", BindAddress("127.0.0.1", 0), True),
        ("localhost:80", BindAddress("localhost", 80), True),
        ("[::1]:80", BindAddress("::1", 80), True),
        ("127.8.8.8:80", BindAddress("127.8.8.8", 80), True),
        ("0.0.0.0:80", BindAddress("0.0.0.0", 80), False),  # noqa: S104
        ("box.example:80", BindAddress("box.example", 80), False),
    ],
)
def test_where_to_listen(text: str, bind: BindAddress, local: bool) -> None:
    assert parse_bind(text) == bind
    assert bind.is_loopback is local


@pytest.mark.parametrize("text", ["", "x", "host:", "1:2:3", "70000", "-1", "[::1]", "host:8080x"])
def test_where_nobody_can_listen(text: str) -> None:
    with pytest.raises(UsageError, match="HOST"):
        parse_bind(text)


@asynccontextmanager
async def reviewed_page(root: Path, records: list[Record]) -> AsyncIterator[tuple[Ledger, Reviews, Any]]:
    async with await Ledger.open(root / "ledger.sqlite3") as ledger:
        await ledger.add(records)
        feed, store = ChangeFeed(records), LocalStore(root)
        reviews = Reviews(ledger, store, feed, notify=print)
        page = LivePage(
            feed, BindAddress("127.0.0.1", 0), title="t", manifest="m", store=store, reviews=reviews
        )
        async with page, aiohttp.ClientSession(page.url) as session:
            yield ledger, reviews, session


@pytest.mark.parametrize(
    ("headers", "document", "status"),
    [
        ({}, {"picks": [{"key": "job-0@f0", "pick": "picked", "note": "n"}]}, 204),
        ({"Origin": "https://evil.example"}, {"picks": []}, 403),
        ({"Origin": "null"}, {"picks": []}, 403),
        ({"X-Veobatch-Token": "guessed"}, {"picks": []}, 403),
        ({"Content-Type": "text/plain"}, {"picks": []}, 415),
        ({}, {"picks": [{"key": "job-9@f9", "pick": "picked", "note": ""}]}, 422),
        ({}, {"picks": [{"key": "job-1@f1", "pick": "picked", "note": ""}]}, 422),
        ({}, {"picks": [{"key": "job-0@f0"}]}, 422),
        ({}, {"picks": [{"key": "job-0@f0", "pick": "picked", "note": "x" * 10_000}]}, 422),
        ({}, [], 422),
    ],
)
async def test_a_pick_comes_from_our_own_page_or_not_at_all(
    tmp_path: Path, headers: dict[str, str], document: object, status: int
) -> None:
    async with reviewed_page(tmp_path, [done(0), row(1)]) as (ledger, reviews, session):
        own = {"X-Veobatch-Token": reviews.token, "Origin": str(session._base_url.origin())}
        data = json.dumps(document)
        sent = {"Content-Type": "application/json", **own, **headers}
        async with session.post("picks", data=data, headers=sent) as response:
            assert response.status == status, await response.text()
            assert "Access-Control-Allow-Origin" not in response.headers
        async with session.options("picks", headers={"Origin": "https://evil.example"}) as response:
            assert response.status == 405
        assert await ledger.picks() == ({"job-0@f0": Pick("picked", "n")} if status == 204 else {})


async def test_a_run_takes_no_pick_back(tmp_path: Path) -> None:
    rows = [done(0), row(1)]
    feed = ChangeFeed(rows)
    feed.set_picks({"job-0@f0": Pick("picked", "n")})
    feed.on_transition(rows[0], done(0, polls=9))
    [changed] = [record for record in feed.records() if record.id == "job-0"]
    assert (changed.pick, changed.pick_note, changed.polls) == ("picked", "n", 9)
