"""Videos in S3, against moto's server: whole objects, nothing left behind, nothing on the local disk."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import threading
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import boto3  # type: ignore[import-untyped]  # ships no types
import pytest
from botocore.config import Config
from moto.server import ThreadedMotoServer

from pipeline.download.downloader import Deferred, Downloader, Saved
from pipeline.download.guarded_session import open_session
from pipeline.download.retry_state import DownloadLimits
from pipeline.download.verify import FileCondition, compare
from pipeline.errors import StoreError, UsageError
from pipeline.images.image_store import ImageStore
from pipeline.images.prepared import Prepared
from pipeline.storage import TransientStoreError, is_object_url, open_store
from tests.integration import faulty_file_hosts as hosts
from tests.integration.raw_server import LoopbackServer
from tests.integration.sample_videos import corrupted, make_video, padded
from tests.integration.test_download_faults import DownloadHarness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator
    from typing import BinaryIO

QUICK = DownloadLimits(
    initial_backoff_s=0.001,
    max_backoff_s=0.01,
    stall_window_s=2,
    response_timeout_s=5,
    max_unreachable_s=1,
    max_attempts=4,
)
VIDEO = padded(make_video(seconds=2), 12 * 2**20)


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadedMotoServer]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def endpoint(server: ThreadedMotoServer) -> str:
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


class Bucket:
    """What someone else sees of the bucket."""

    def __init__(self, endpoint: str) -> None:
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            config=Config(retries={"max_attempts": 1}),
        )

    def objects(self) -> dict[str, int]:
        found = self.client.list_objects_v2(Bucket="stored").get("Contents", [])
        return {entry["Key"]: entry["Size"] for entry in found}

    def uploads(self) -> list[str]:
        return [
            entry["Key"] for entry in self.client.list_multipart_uploads(Bucket="stored").get("Uploads", [])
        ]

    def read(self, key: str) -> bytes:
        data: bytes = self.client.get_object(Bucket="stored", Key=key)["Body"].read()
        return data


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    found = Bucket(endpoint)
    found.client.create_bucket(Bucket="stored")
    yield found
    for key in found.objects():
        found.client.delete_object(Bucket="stored", Key=key)
    for entry in found.client.list_multipart_uploads(Bucket="stored").get("Uploads", []):
        found.client.abort_multipart_upload(Bucket="stored", Key=entry["Key"], UploadId=entry["UploadId"])
    found.client.delete_bucket(Bucket="stored")
    found.client.close()


@asynccontextmanager
async def rig(
    folder: Path, output: str = "s3://stored/night/one", **limits: Any
) -> AsyncIterator[DownloadHarness]:
    async with open_session() as session:
        store = open_store(output)
        chosen = DownloadLimits(**limits) if limits else QUICK
        yield DownloadHarness(folder, Downloader(session=session, store=store, limits=chosen))


async def test_video_is_stored_whole_and_nothing_stays_behind(tmp_path: Path, bucket: Bucket) -> None:
    async with hosts.FileHost(VIDEO) as host, rig(tmp_path) as it:
        outcome = await it.fetch(host.url)
        assert isinstance(outcome, Saved)
    assert bucket.read("night/one/videos/row.mp4") == VIDEO
    assert sorted(bucket.objects()) == ["night/one/posters/row.jpg", "night/one/videos/row.mp4"]
    assert bucket.uploads() == []
    assert outcome.artifact.sha256 == hashlib.sha256(VIDEO).hexdigest()
    assert outcome.artifact.path == "videos/row.mp4"
    assert outcome.artifact.media is not None
    head = bucket.client.head_object(Bucket="stored", Key="night/one/videos/row.mp4")
    assert head["ContentType"] == "video/mp4"
    assert it.files() == []


async def test_a_cut_costs_the_missing_bytes_only(tmp_path: Path, bucket: Bucket) -> None:
    async with hosts.CutsEveryTransfer(VIDEO) as host, rig(tmp_path) as it:
        assert isinstance(await it.fetch(host.url), Saved)
    assert bucket.read("night/one/videos/row.mp4") == VIDEO
    assert host.sent_bytes < len(VIDEO) * 1.5
    assert bucket.uploads() == []


async def test_wrong_bytes_never_come_under_the_final_name(tmp_path: Path, bucket: Bucket) -> None:
    class Watched(hosts.ReturnsOtherFile):
        async def handle(self, ask: hosts.CdnRequest) -> None:
            assert "night/one/videos/row.mp4" not in await asyncio.to_thread(bucket.objects)
            await super().handle(ask)

    small = make_video(seconds=2)
    host = Watched(small)
    host.other = corrupted(small)
    async with host, rig(tmp_path) as it:
        assert isinstance(await it.fetch(host.url), Saved)
    assert len(host.requests) == 2
    assert bucket.read("night/one/videos/row.mp4") == small


async def test_a_run_that_is_stopped_leaves_no_upload(tmp_path: Path, bucket: Bucket) -> None:
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
            while not bucket.uploads():  # noqa: ASYNC110 - the bucket has no event to wait for
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert bucket.uploads() == []
    assert bucket.objects() == {}


class HeldRequest:
    """Before moto: the first request of one kind is held, before or after it is carried out."""

    def __init__(self, application: Any, method: str, query: str, *, carried_out: bool) -> None:
        self._application, self._method, self._query = application, method, query
        self._carried_out = carried_out
        self.arrived, self.let_go = threading.Event(), threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        of_the_kind = environ["REQUEST_METHOD"] == self._method and self._query in environ["QUERY_STRING"]
        if not of_the_kind or self.arrived.is_set():
            return self._application(environ, start_response)
        answer = self._application(environ, start_response) if self._carried_out else None
        self.arrived.set()
        assert self.let_go.wait(600)
        return self._application(environ, start_response) if answer is None else answer


@pytest.mark.parametrize("carried_out", [False, True])
@pytest.mark.parametrize(
    ("method", "query"),
    [("POST", "uploads"), ("PUT", "partNumber=1"), ("PUT", "partNumber=3"), ("POST", "uploadId")],
    ids=["begin", "first part", "last part", "complete"],
)
async def test_a_run_that_is_stopped_during_a_request_leaves_nothing(
    tmp_path: Path,
    bucket: Bucket,
    server: ThreadedMotoServer,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    query: str,
    *,
    carried_out: bool,
) -> None:
    assert server._server is not None
    held = HeldRequest(server._server.app, method, query, carried_out=carried_out)
    monkeypatch.setattr(server._server, "app", held)
    async with hosts.FileHost(VIDEO) as host, rig(tmp_path) as it, anyio.create_task_group() as tasks:
        tasks.start_soon(it.fetch, host.url)
        assert await asyncio.to_thread(held.arrived.wait, 600)
        tasks.cancel_scope.cancel()
        threading.Timer(0.2, held.let_go.set).start()
    assert bucket.uploads() == []
    assert bucket.objects() == {}


async def test_an_upload_whose_end_is_refused_is_aborted(
    tmp_path: Path, bucket: Bucket, server: ThreadedMotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server._server is not None
    serve, to_refuse = server._server.app, ["partNumber=3", "delete"]

    def refuse(environ: dict[str, Any], start_response: Any) -> Any:
        if to_refuse and environ["REQUEST_METHOD"] != "GET" and to_refuse[0] in environ["QUERY_STRING"]:
            del to_refuse[0]
            start_response("400 Bad Request", [])
            return [b""]
        return serve(environ, start_response)

    monkeypatch.setattr(server._server, "app", refuse)
    async with hosts.FileHost(VIDEO) as host, rig(tmp_path) as it:
        assert isinstance(await it.fetch(host.url), Saved)
    assert to_refuse == []
    assert bucket.read("night/one/videos/row.mp4") == VIDEO
    assert bucket.uploads() == []


class RefusedRequests:
    """Before moto: some of the requests of one kind are answered with 400, counted from 1.

    `kind` is the method, COPY for a copy inside the bucket; `name` ends the key.
    """

    def __init__(self, server: ThreadedMotoServer, monkeypatch: pytest.MonkeyPatch) -> None:
        assert server._server is not None
        self._application = server._server.app
        self._refused: dict[tuple[str, str], set[int]] = {}
        self.counts: Counter[tuple[str, str]] = Counter()
        monkeypatch.setattr(server._server, "app", self)

    def refuse(self, kind: str, name: str, *numbers: int) -> None:
        self._refused[kind, name] = set(numbers)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        kind, key = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if "HTTP_X_AMZ_COPY_SOURCE" in environ:
            kind = "COPY"
        elif environ["QUERY_STRING"] == "delete":  # of a list of keys, in the body
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            kind, key = "DELETE", body.decode().partition("</Key>")[0]
            environ["wsgi.input"] = io.BytesIO(body)
        for (refused, name), numbers in self._refused.items():
            if refused == kind and key.endswith(name):
                self.counts[kind, name] += 1
                if self.counts[kind, name] in numbers:
                    start_response("400 Bad Request", [])
                    return [b""]
        return self._application(environ, start_response)


@pytest.fixture
def refused(server: ThreadedMotoServer, monkeypatch: pytest.MonkeyPatch) -> RefusedRequests:
    return RefusedRequests(server, monkeypatch)


@pytest.mark.parametrize("number", [1, 2], ids=["before the upload", "after the copy"])
async def test_what_cannot_be_tidied_up_costs_no_clip(
    tmp_path: Path, bucket: Bucket, refused: RefusedRequests, number: int
) -> None:
    staging = "night/one/videos/row.veobatch-part"
    bucket.client.put_object(Bucket="stored", Key=staging, Body=b"of a killed run")
    refused.refuse("DELETE", staging, number)
    async with hosts.FileHost(VIDEO) as host, rig(tmp_path) as it:
        assert isinstance(await it.fetch(host.url), Saved)
    assert refused.counts["DELETE", staging] > number
    assert len(host.requests) == 1
    assert bucket.read("night/one/videos/row.mp4") == VIDEO
    assert sorted(bucket.objects()) == ["night/one/posters/row.jpg", "night/one/videos/row.mp4"]


async def test_a_poster_that_is_refused_costs_the_poster_alone(
    tmp_path: Path, bucket: Bucket, refused: RefusedRequests
) -> None:
    refused.refuse("PUT", "posters/row.jpg", *range(1, 100))
    async with hosts.FileHost(VIDEO) as host, rig(tmp_path) as it:
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, Saved)
    assert outcome.artifact.poster_path == ""
    assert "poster could not be saved" in outcome.note
    assert (len(host.requests), refused.counts["PUT", "posters/row.jpg"]) == (1, 1)
    assert list(bucket.objects()) == ["night/one/videos/row.mp4"]


@pytest.mark.parametrize("times", [1, 2])
async def test_a_doubtful_copy_that_cannot_be_set_aside_yet_is_set_aside_later(
    tmp_path: Path, bucket: Bucket, refused: RefusedRequests, times: int
) -> None:
    small = make_video(seconds=2)
    host = hosts.ReturnsOtherFile(small)
    host.other = corrupted(small)
    refused.refuse("COPY", ".aside", *range(1, times + 1))
    async with host, rig(tmp_path) as it:
        assert isinstance(await it.fetch(host.url), Saved)
    assert refused.counts["COPY", ".aside"] == times + 1
    assert bucket.read("night/one/videos/row.mp4") == small


async def test_a_copy_that_can_never_be_set_aside_ends_the_tries(
    tmp_path: Path, bucket: Bucket, refused: RefusedRequests
) -> None:
    small = make_video(seconds=2)
    host = hosts.ReturnsOtherFile(small)
    host.other = corrupted(small)
    refused.refuse("COPY", ".aside", *range(1, 100))
    async with host, rig(tmp_path) as it:
        with pytest.raises(TransientStoreError):
            await it.fetch(host.url)
    assert (len(host.requests), refused.counts["COPY", ".aside"]) == (1, QUICK.max_attempts)
    assert bucket.objects() == {}


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_a_read_that_fails_says_nothing_of_the_video(
    tmp_path: Path, bucket: Bucket, refused: RefusedRequests, number: int
) -> None:
    refused.refuse("GET", "row.veobatch-part", number)
    async with hosts.FileHost(VIDEO) as host, rig(tmp_path) as it:
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, Saved)
    assert outcome.artifact.warnings == ()
    assert refused.counts["GET", "row.veobatch-part"] > number
    assert (len(host.requests), len(it.refreshed_at)) == (2, 0)
    assert bucket.read("night/one/videos/row.mp4") == VIDEO


async def test_reads_that_always_fail_make_no_video_unplayable(
    tmp_path: Path, bucket: Bucket, refused: RefusedRequests
) -> None:
    refused.refuse("GET", "row.veobatch-part", *range(1, 100))
    async with hosts.FileHost(VIDEO) as host, rig(tmp_path) as it:
        with pytest.raises(TransientStoreError):
            await it.fetch(host.url)
    assert bucket.objects() == {}


async def test_what_a_killed_run_left_goes_when_the_row_is_tried_again(
    tmp_path: Path, bucket: Bucket
) -> None:
    mine, other = "night/one/videos/row.veobatch-part", "night/one/videos/other.veobatch-part"
    bucket.client.create_multipart_upload(Bucket="stored", Key=mine)
    bucket.client.create_multipart_upload(Bucket="stored", Key=other)
    bucket.client.put_object(Bucket="stored", Key=mine, Body=b"staged, never published")
    async with hosts.FileHost(VIDEO) as host, rig(tmp_path) as it:
        assert isinstance(await it.fetch(host.url), Saved)
    assert bucket.uploads() == [other]
    assert mine not in bucket.objects()


async def test_uploads_below_a_prefix_with_a_space_are_found(tmp_path: Path, bucket: Bucket) -> None:
    mine = "my films/é/videos/row.veobatch-part"
    bucket.client.create_multipart_upload(Bucket="stored", Key=mine)
    async with hosts.FileHost(VIDEO) as host, rig(tmp_path, "s3://stored/my%20films/é") as it:
        assert isinstance(await it.fetch(host.url), Saved)
    assert bucket.uploads() == []
    assert sorted(bucket.objects()) == ["my films/é/posters/row.jpg", "my films/é/videos/row.mp4"]


async def test_an_object_that_is_not_ours_is_left_alone(tmp_path: Path, bucket: Bucket) -> None:
    bucket.client.put_object(Bucket="stored", Key="night/one/videos/row.mp4", Body=b"someone else's")
    async with hosts.FileHost(VIDEO) as host, rig(tmp_path) as it:
        first = await it.fetch(host.url)
        second = await it.fetch(host.url)
    assert isinstance(first, Saved)
    assert isinstance(second, Saved)
    assert "saved as row.new-1.mp4" in first.note
    assert "was there already" in second.note
    assert first.artifact.path == second.artifact.path == "videos/row.new-1.mp4"
    assert bucket.read("night/one/videos/row.mp4") == b"someone else's"
    assert bucket.read("night/one/videos/row.new-1.mp4") == VIDEO
    assert not any("veobatch-part" in key for key in bucket.objects())


async def test_an_older_object_of_ours_is_moved_aside(bucket: Bucket) -> None:
    store = open_store("s3://stored/night")
    await store.write_bytes("videos/row.mp4", b"older")
    async with store.stage("videos/row") as part:
        await part.restart("tag")
        await part.write([VIDEO])
        await part.inspect(len_of)
        published = await part.publish("videos/row.mp4", replaces=True)
    assert "now row.kept-1.mp4" in published.note
    assert bucket.read("night/videos/row.kept-1.mp4") == b"older"
    assert bucket.read("night/videos/row.mp4") == VIDEO


def len_of(source: Path | BinaryIO) -> int:
    return 0 if isinstance(source, Path) else len(source.read())


async def test_an_altered_or_missing_object_is_noticed_by_listing(tmp_path: Path, bucket: Bucket) -> None:
    small = make_video(seconds=2)
    async with hosts.FileHost(small) as host, rig(tmp_path) as it:
        outcome = await it.fetch(host.url)
        assert isinstance(outcome, Saved)
        stamps = await it.downloader.store.stamps([outcome.artifact.path])
        assert compare(outcome.artifact, stamps[outcome.artifact.path]) is FileCondition.UNTOUCHED
        bucket.client.put_object(Bucket="stored", Key="night/one/videos/row.mp4", Body=corrupted(small))
        stamps = await it.downloader.store.stamps([outcome.artifact.path])
        assert compare(outcome.artifact, stamps[outcome.artifact.path]) is FileCondition.UNREAD
        bucket.client.delete_object(Bucket="stored", Key="night/one/videos/row.mp4")
        assert await it.downloader.store.stamps([outcome.artifact.path]) == {}


async def test_what_was_set_aside_comes_back(bucket: Bucket) -> None:
    async with open_store("s3://stored/night").stage("a") as part:
        await part.restart("first")
        await part.write([VIDEO])
        await part.inspect(len_of)
        await part.set_aside()
        await part.restart("second")
        await part.write([b"half"])
        assert await part.restore()
        assert part.tag == "first"
        await part.publish("a.mp4", replaces=False)
    assert bucket.read("night/a.mp4") == VIDEO
    assert list(bucket.objects()) == ["night/a.mp4"]


class DamagedThenGone(hosts.FileHost):
    """Sends a damaged film once, and then nothing but errors."""

    async def handle(self, ask: hosts.CdnRequest) -> None:
        if self.take_fault():
            await self.send_response(ask, 200, {}, corrupted(self.data))
        else:
            await self.send_response(ask, 404, {}, b"gone")


async def test_a_damaged_copy_is_kept_for_a_later_run(tmp_path: Path, bucket: Bucket) -> None:
    small = make_video(seconds=2)
    async with DamagedThenGone(small) as host, rig(tmp_path) as it:
        for _ in range(2):
            assert isinstance(await it.fetch(host.url, final=False), Deferred)
            assert "night/one/videos/row.veobatch-part.aside" in bucket.objects()
        outcome = await it.fetch(host.url, final=True)
    assert isinstance(outcome, Saved)
    assert any("frames" in warning for warning in outcome.artifact.warnings)
    assert outcome.artifact.sha256 == hashlib.sha256(corrupted(small)).hexdigest()
    assert bucket.read("night/one/videos/row.mp4") == corrupted(small)
    assert sorted(bucket.objects()) == ["night/one/posters/row.jpg", "night/one/videos/row.mp4"]


async def test_a_damaged_copy_of_another_generation_is_not_kept(tmp_path: Path, bucket: Bucket) -> None:
    small = make_video(seconds=2)
    async with DamagedThenGone(small) as host, hosts.FileHost(small) as other, rig(tmp_path) as it:
        assert isinstance(await it.fetch(host.url, final=False), Deferred)
        assert "night/one/videos/row.veobatch-part.whose" in bucket.objects()
        assert isinstance(await it.fetch(host.url, generation="another"), Deferred)
        assert isinstance(await it.fetch(other.url, generation="another"), Saved)
    assert bucket.read("night/one/videos/row.mp4") == small
    assert sorted(bucket.objects()) == ["night/one/posters/row.jpg", "night/one/videos/row.mp4"]


@pytest.mark.parametrize("note", [b"", b"[1]", b'{"size_bytes": 1}', b"\xff"])
async def test_a_copy_aside_that_nobody_noted_is_not_taken_for_the_video(
    tmp_path: Path, bucket: Bucket, note: bytes
) -> None:
    staging = "night/one/videos/row.veobatch-part"
    bucket.client.put_object(Bucket="stored", Key=f"{staging}.aside", Body=make_video(seconds=2))
    bucket.client.put_object(Bucket="stored", Key=f"{staging}.whose", Body=note)
    async with DamagedThenGone(VIDEO, faults=0) as host, rig(tmp_path) as it:
        assert isinstance(await it.fetch(host.url), Deferred)


async def test_a_note_of_another_copy_is_not_this_ones(bucket: Bucket) -> None:
    """A kill between the copy and its note."""
    store = open_store("s3://stored/night")
    async with store.stage("a") as part:
        await part.restart("first")
        await part.write([VIDEO])
        await part.inspect(len_of)
        await part.set_aside()
        bucket.client.put_object(Bucket="stored", Key="night/a.veobatch-part.aside", Body=VIDEO[::-1])
        assert not await part.restore()


async def test_a_bucket_that_is_not_there_stops_the_run(tmp_path: Path, bucket: Bucket) -> None:
    async with hosts.FileHost(VIDEO) as host, rig(tmp_path, "s3://no-such-films/x") as it:
        with pytest.raises(StoreError, match="no-such-films"):
            await it.fetch(host.url)


async def test_small_files_are_written_with_their_type(bucket: Bucket) -> None:
    store = open_store("s3://stored/night")
    await store.write_bytes("results.csv", b"id,status\n")
    await store.write_bytes("results.csv", b"id,status\na,done\n")
    assert await store.read_bytes("results.csv") == b"id,status\na,done\n"
    assert await store.read_bytes("none.csv") is None
    assert bucket.client.head_object(Bucket="stored", Key="night/results.csv")["ContentType"].startswith(
        "text/csv"
    )


async def cancel_while_held(held: HeldRequest, work: Coroutine[Any, Any, object]) -> None:
    """Cancel `work` while a request of its is held, and let the request go a little later."""
    task = asyncio.ensure_future(work)
    assert await asyncio.to_thread(held.arrived.wait, 600)
    task.cancel()
    threading.Timer(0.2, held.let_go.set).start()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_large_table_that_is_stopped_leaves_no_upload(
    bucket: Bucket, server: ThreadedMotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server._server is not None
    held = HeldRequest(server._server.app, "PUT", "", carried_out=False)
    monkeypatch.setattr(server._server, "app", held)
    store, table = open_store("s3://stored/night"), bytes(12 * 2**20)
    await cancel_while_held(held, store.write_bytes("results.csv", table))
    assert bucket.uploads() == []
    await store.write_bytes("results.csv", table)
    assert bucket.read("night/results.csv") == table


def film_to_link(folder: Path, size_bytes: int) -> Prepared:
    path = folder / "film.mp4"
    path.write_bytes(data := bytes(size_bytes))
    return Prepared(path, hashlib.sha256(data).hexdigest(), size_bytes, "video/mp4", "mp4")


FILM_BYTES = 30 * 2**20


@pytest.mark.parametrize("carried_out", [False, True])
@pytest.mark.parametrize(
    ("method", "query"),
    [("POST", "uploads"), ("PUT", "partNumber=1"), ("PUT", "partNumber=4"), ("POST", "uploadId")],
    ids=["begin", "first part", "last part", "complete"],
)
async def test_a_picture_whose_upload_is_stopped_leaves_no_upload(
    tmp_path: Path,
    bucket: Bucket,
    server: ThreadedMotoServer,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    query: str,
    *,
    carried_out: bool,
) -> None:
    assert server._server is not None
    held = HeldRequest(server._server.app, method, query, carried_out=carried_out)
    monkeypatch.setattr(server._server, "app", held)
    store = ImageStore("s3://stored/stills", 3600, public=False)
    await cancel_while_held(held, store.upload(film_to_link(tmp_path, FILM_BYTES), tmp_path))
    assert bucket.uploads() == []


async def test_a_picture_that_a_killed_run_began_leaves_no_upload(tmp_path: Path, bucket: Bucket) -> None:
    film = film_to_link(tmp_path, FILM_BYTES)
    mine, other = f"stills/{film.sha256}.mp4", "stills/other.mp4"
    bucket.client.create_multipart_upload(Bucket="stored", Key=mine)
    bucket.client.create_multipart_upload(Bucket="stored", Key=other)
    store = ImageStore("s3://stored/stills", 3600, public=False)
    assert await store.upload(film, tmp_path) == f"{film.sha256}.mp4"
    assert bucket.uploads() == [other]
    assert bucket.read(mine) == film.path.read_bytes()
    assert bucket.client.head_object(Bucket="stored", Key=mine)["ContentType"] == "video/mp4"


async def test_a_picture_that_another_run_uploads_at_once_is_there(
    tmp_path: Path, bucket: Bucket, server: ThreadedMotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = film_to_link(tmp_path, FILM_BYTES)
    assert server._server is not None
    held = HeldRequest(server._server.app, "PUT", "partNumber=4", carried_out=False)
    monkeypatch.setattr(server._server, "app", held)
    slower, faster = (ImageStore("s3://stored/stills", 3600, public=False) for _ in range(2))
    task = asyncio.ensure_future(slower.upload(film, tmp_path))
    assert await asyncio.to_thread(held.arrived.wait, 600)
    assert await faster.upload(film, tmp_path) == f"{film.sha256}.mp4"
    held.let_go.set()
    assert await task == f"{film.sha256}.mp4"
    assert bucket.uploads() == []


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
    tmp_path: Path, bucket: Bucket, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cutter = ConnectionCuttingProxy(endpoint, cuts=2)
    async with cutter, hosts.FileHost(VIDEO) as host:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{cutter.port}")
        async with rig(tmp_path) as it:
            assert isinstance(await it.fetch(host.url), Saved)
    assert cutter.made == 2
    assert bucket.read("night/one/videos/row.mp4") == VIDEO
    assert bucket.uploads() == []


@pytest.mark.parametrize("url", ["s3://", "ftp://host/x", "nonsense://x", "s3://[x/y", "file://[x/y"])
def test_a_url_that_no_store_serves_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="--output"):
        open_store(url)


def test_an_endpoint_that_is_no_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://[x")
    with pytest.raises(UsageError, match="--output s3://bucket/x"):
        open_store("s3://bucket/x")


def test_which_outputs_are_object_stores() -> None:
    assert is_object_url("s3://stored/x")
    assert not is_object_url("output/films")
    assert not is_object_url("file:///tmp/films")
