"""A review of clips in a bucket: played through our server, chosen without their bytes being read."""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from pipeline.ledger import Ledger
from pipeline.model import PICKED, Artifact, Pick
from pipeline.results.live import BindAddress, ChangeFeed, LivePage, Reviews
from pipeline.results.picks import PicksFolder
from pipeline.storage import open_store
from tests.integration.test_acceptance_object_store import AWS_ENVIRON, Bucket, counted_bucket
from tests.unit.sample_rows import done

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from pipeline.model import Record

CLIP = bytes(range(256)) * 10_000
PATHS = ("videos/job-0.mp4", "videos/job-0.2.mp4")


@pytest.fixture
def films(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with counted_bucket() as found:
        for name, value in (AWS_ENVIRON | {"AWS_ENDPOINT_URL": found.endpoint}).items():
            monkeypatch.setenv(name, value)
        for path in PATHS:
            found.client.put_object(Bucket="films", Key=f"night/{path}", Body=CLIP + path.encode())
        found.client.put_object(Bucket="films", Key="night/ledger.sqlite3", Body=b"secret")
        found.requests.clear()
        yield found


def rows() -> list[Record]:
    found = []
    for number, path in enumerate(PATHS, 1):
        data = CLIP + path.encode()
        artifact = Artifact(path, len(data), hashlib.sha256(data).hexdigest())
        take_id = "job-0" if number == 1 else f"job-0.{number}"
        facts: dict[str, Any] = {"key": f"{take_id}@f0", "id": take_id, "take": number, "file_stem": take_id}
        found.append(replace(done(0), artifact=artifact, **facts))
    return found


@asynccontextmanager
async def reviewed(tmp_path: Path) -> AsyncIterator[tuple[Reviews, aiohttp.ClientSession]]:
    store, records = open_store("s3://films/night"), rows()
    async with await Ledger.open(tmp_path / "ledger.sqlite3") as ledger:
        await ledger.add(records)
        feed = ChangeFeed(records)
        reviews = Reviews(ledger, store, feed, notify=print)
        page = LivePage(
            feed, BindAddress("127.0.0.1", 0), title="t", manifest="m", store=store, reviews=reviews
        )
        timeout = aiohttp.ClientTimeout(60)
        async with page, aiohttp.ClientSession(page.url, timeout=timeout) as session:
            yield reviews, session
    await store.aclose()


async def test_clips_in_a_bucket_are_played_through_our_server(tmp_path: Path, films: Bucket) -> None:
    data = CLIP + PATHS[0].encode()
    async with reviewed(tmp_path) as (_, session):
        async with session.get(PATHS[0]) as response:
            assert (response.status, response.content_type) == (200, "video/mp4")
            assert await response.read() == data
            etag = response.headers["ETag"]
        for asked, part in {
            "bytes=0-99": data[:100],
            "bytes=1000000-": data[1_000_000:],
            "bytes=-7": data[-7:],
            "bytes=5-999999999": data[5:],
        }.items():
            async with session.get(PATHS[0], headers={"Range": asked, "If-Range": etag}) as response:
                assert (response.status, await response.read()) == (206, part), asked
                assert response.headers["Content-Range"].endswith(f"/{len(data)}")
        async with session.head(PATHS[0]) as response:
            assert response.headers["Content-Length"] == str(len(data))
        for asked in ("bytes=99999999-", "bytes=-0"):
            async with session.get(PATHS[0], headers={"Range": asked}) as response:
                assert (response.status, response.headers["Content-Range"]) == (416, f"bytes */{len(data)}")
        async with session.get(PATHS[0], headers={"Range": "bytes=0-9", "If-Range": '"old"'}) as response:
            assert (response.status, await response.read()) == (200, data)
        for path in ("videos/none.mp4", "ledger.sqlite3", "videos/..%2fledger.sqlite3", "videos/.mp4"):
            async with session.get(path) as response:
                assert response.status == 404, path
        async with session.get("") as response:
            assert "Signature" not in await response.text()
    assert not signed_files(tmp_path)


def signed_files(folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if b"X-Amz" in path.read_bytes() or b"Signature" in path.read_bytes()]


async def test_a_clip_that_changes_while_it_is_read_is_not_taken_for_whole(
    tmp_path: Path, films: Bucket
) -> None:
    """Else a player would show one half of each."""
    big = b"a" * (32 * 2**20)  # more than the sockets between hold
    films.client.put_object(Bucket="films", Key=f"night/{PATHS[0]}", Body=big)
    async with reviewed(tmp_path) as (_, session), session.get(PATHS[0]) as response:
        await response.content.readexactly(1)
        films.client.put_object(Bucket="films", Key=f"night/{PATHS[0]}", Body=b"b" * len(big))
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_picks_in_a_bucket_are_copied_by_the_store(tmp_path: Path, films: Bucket) -> None:
    """No clip is read, whatever is picked, unpicked and picked again."""
    async with await Ledger.open(tmp_path / "ledger.sqlite3") as ledger:
        records = rows()
        await ledger.add(records)
        store = open_store("s3://films/night")

        async def update(**picks: str) -> str | None:
            wishes = {"first": "job-0@f0", "second": "job-0.2@f0"}
            await ledger.set_picks({wishes[name]: Pick(pick) for name, pick in picks.items()})
            assert await PicksFolder(ledger, store).update() == ()
            return films.etag("night/picks/job-0.mp4")

        first, second = (films.etag(f"night/{path}") for path in PATHS)
        assert await update(first=PICKED) == first
        assert await update(first="", second=PICKED) == second
        assert await update(second="") is None
        assert await update(second=PICKED) == second
        await store.aclose()
    listed = [path for method, path in films.requests if method == "GET" and path.strip("/") != "films"]
    assert listed == [], "no GET but for listings"
    copied = [path for method, path in films.requests if method == "PUT"]
    assert copied == ["/films/night/picks/job-0.mp4"] * 3
