"""Uploads into a bucket that are stopped, cut, refused or left behind: none stays, billed and unseen."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
from typing import TYPE_CHECKING, Any, Final

import anyio
import pytest

from pipeline.download.download_result import Saved
from pipeline.images.image_store import ImageStore
from pipeline.images.prepared import Prepared
from pipeline.storage import open_store
from tests.integration import faulty_file_hosts as hosts
from tests.integration.raw_server import LoopbackServer
from tests.integration.s3_server import VIDEO, cancel_while_held, rig

if TYPE_CHECKING:
    from pathlib import Path

    from moto.server import ThreadedMotoServer

    from tests.integration.s3_server import Bucket, HeldRequest, Hold

REQUESTS: Final = {
    "begin": ("POST", "uploads"),
    "first part": ("PUT", "partNumber=1"),
    "last part": ("PUT", "partNumber=3"),
    "complete": ("POST", "uploadId"),
}
"""What an upload of three parts consists of: the method, and what is in its query."""

FILM_BYTES: Final = 20 * 2**20


@pytest.fixture(params=list(REQUESTS.values()), ids=list(REQUESTS))
def request_kind(request: pytest.FixtureRequest) -> tuple[str, str]:
    kind: tuple[str, str] = request.param
    return kind


@pytest.fixture(params=[False, True], ids=["not carried out", "carried out"])
def each_request(request: pytest.FixtureRequest, hold: Hold, request_kind: tuple[str, str]) -> HeldRequest:
    """Each request of an upload in turn, held before and after it is carried out."""
    return hold(*request_kind, carried_out=request.param)


async def test_a_run_that_is_stopped_leaves_no_upload(tmp_path: Path, s3_bucket: Bucket) -> None:
    class Pauses(hosts.FileHost):
        sent = anyio.Event()

        async def handle(self, ask: hosts.CdnRequest) -> None:
            await self.serve_file(ask, max_bytes=11 * 2**20)
            self.sent.set()
            await asyncio.Event().wait()

    async with Pauses(VIDEO) as host, rig(tmp_path) as it, anyio.create_task_group() as tasks:
        tasks.start_soon(it.fetch, host.url)
        await host.sent.wait()
        with anyio.fail_after(600):
            while not s3_bucket.uploads():  # noqa: ASYNC110 - the bucket has no event to wait for
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert s3_bucket.uploads() == []
    assert s3_bucket.objects() == {}


async def test_a_run_that_is_stopped_during_a_request_leaves_nothing(
    tmp_path: Path, s3_bucket: Bucket, each_request: HeldRequest
) -> None:
    async with hosts.FileHost(VIDEO) as host, rig(tmp_path) as it, anyio.create_task_group() as tasks:
        tasks.start_soon(it.fetch, host.url)
        assert await asyncio.to_thread(each_request.arrived.wait, 600)
        tasks.cancel_scope.cancel()
        threading.Timer(0.2, each_request.let_go.set).start()
    assert s3_bucket.uploads() == []
    assert s3_bucket.objects() == {}


async def test_an_upload_whose_end_is_refused_is_aborted(
    tmp_path: Path, s3_bucket: Bucket, moto_server: ThreadedMotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert moto_server._server is not None
    serve, to_refuse = moto_server._server.app, ["partNumber=3", "delete"]

    def refuse(environ: dict[str, Any], start_response: Any) -> Any:
        if to_refuse and environ["REQUEST_METHOD"] != "GET" and to_refuse[0] in environ["QUERY_STRING"]:
            del to_refuse[0]
            start_response("400 Bad Request", [])
            return [b""]
        return serve(environ, start_response)

    monkeypatch.setattr(moto_server._server, "app", refuse)
    async with hosts.FileHost(VIDEO) as host, rig(tmp_path) as it:
        assert isinstance(await it.fetch(host.url), Saved)
    assert to_refuse == []
    assert s3_bucket.read("night/one/videos/row.mp4") == VIDEO
    assert s3_bucket.uploads() == []


async def test_what_a_killed_run_left_goes_when_the_row_is_tried_again(
    tmp_path: Path, s3_bucket: Bucket
) -> None:
    mine, other = "night/one/videos/row.veobatch-part", "night/one/videos/other.veobatch-part"
    s3_bucket.client.create_multipart_upload(Bucket="stored", Key=mine)
    s3_bucket.client.create_multipart_upload(Bucket="stored", Key=other)
    s3_bucket.client.put_object(Bucket="stored", Key=mine, Body=b"staged, never published")
    async with hosts.FileHost(VIDEO) as host, rig(tmp_path) as it:
        assert isinstance(await it.fetch(host.url), Saved)
    assert s3_bucket.uploads() == [other]
    assert mine not in s3_bucket.objects()


async def test_uploads_below_a_prefix_with_a_space_are_found(tmp_path: Path, s3_bucket: Bucket) -> None:
    mine = "my films/é/videos/row.veobatch-part"
    s3_bucket.client.create_multipart_upload(Bucket="stored", Key=mine)
    async with hosts.FileHost(VIDEO) as host, rig(tmp_path, "s3://stored/my%20films/é") as it:
        assert isinstance(await it.fetch(host.url), Saved)
    assert s3_bucket.uploads() == []
    assert sorted(s3_bucket.objects()) == ["my films/é/posters/row.jpg", "my films/é/videos/row.mp4"]


async def test_a_large_table_that_is_stopped_leaves_no_upload(s3_bucket: Bucket, hold: Hold) -> None:
    held = hold("PUT", "", carried_out=False)
    store, table = open_store("s3://stored/night"), bytes(12 * 2**20)
    await cancel_while_held(held, store.write_bytes("results.csv", table))
    assert s3_bucket.uploads() == []
    await store.write_bytes("results.csv", table)
    assert s3_bucket.read("night/results.csv") == table


def film_to_link(folder: Path, size_bytes: int) -> Prepared:
    path = folder / "film.mp4"
    path.write_bytes(data := bytes(size_bytes))
    return Prepared(path, hashlib.sha256(data).hexdigest(), size_bytes, "video/mp4", "mp4")


async def test_a_picture_whose_upload_is_stopped_leaves_no_upload(
    tmp_path: Path, s3_bucket: Bucket, each_request: HeldRequest
) -> None:
    store = ImageStore("s3://stored/stills", 3600, public=False)
    await cancel_while_held(each_request, store.upload(film_to_link(tmp_path, FILM_BYTES), tmp_path))
    assert s3_bucket.uploads() == []


async def test_a_picture_that_a_killed_run_began_leaves_no_upload(tmp_path: Path, s3_bucket: Bucket) -> None:
    film = film_to_link(tmp_path, FILM_BYTES)
    mine, other = f"stills/{film.sha256}.mp4", "stills/other.mp4"
    s3_bucket.client.create_multipart_upload(Bucket="stored", Key=mine)
    s3_bucket.client.create_multipart_upload(Bucket="stored", Key=other)
    store = ImageStore("s3://stored/stills", 3600, public=False)
    assert await store.upload(film, tmp_path) == f"{film.sha256}.mp4"
    assert s3_bucket.uploads() == [other]
    assert s3_bucket.read(mine) == film.path.read_bytes()
    assert s3_bucket.client.head_object(Bucket="stored", Key=mine)["ContentType"] == "video/mp4"


async def test_a_picture_that_another_run_uploads_at_once_is_there(
    tmp_path: Path, s3_bucket: Bucket, hold: Hold
) -> None:
    film = film_to_link(tmp_path, FILM_BYTES)
    held = hold("PUT", "partNumber=3", carried_out=False)
    slower, faster = (ImageStore("s3://stored/stills", 3600, public=False) for _ in range(2))
    task = asyncio.ensure_future(slower.upload(film, tmp_path))
    assert await asyncio.to_thread(held.arrived.wait, 600)
    assert await faster.upload(film, tmp_path) == f"{film.sha256}.mp4"
    held.let_go.set()
    assert await task == f"{film.sha256}.mp4"
    assert s3_bucket.uploads() == []


class ConnectionCuttingProxy(LoopbackServer):
    """A proxy before S3 that resets the connection in the middle of the first `cuts` large requests."""

    def __init__(self, endpoint: str, cuts: int) -> None:
        super().__init__()
        self.target = int(endpoint.rpartition(":")[2])
        self.cuts, self.made = cuts, 0

    async def handle_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        self._writers.add(up_writer)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._forward(reader, up_writer, writer))
                both.create_task(self._pump(up_reader, writer))
        finally:
            up_writer.close()

    async def _forward(
        self, reader: asyncio.StreamReader, up: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        passed = 0
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                passed += len(data)
                if passed > 2**20 and self.made < self.cuts:
                    self.made += 1
                    back.transport.abort()
                    break
                up.write(data)
                await up.drain()
        up.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


async def test_an_upload_that_is_cut_is_sent_again(
    tmp_path: Path, s3_bucket: Bucket, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cutter = ConnectionCuttingProxy(s3_endpoint, cuts=2)
    async with cutter, hosts.FileHost(VIDEO) as host:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{cutter.port}")
        async with rig(tmp_path) as it:
            assert isinstance(await it.fetch(host.url), Saved)
    assert cutter.made == 2
    assert s3_bucket.read("night/one/videos/row.mp4") == VIDEO
    assert s3_bucket.uploads() == []
