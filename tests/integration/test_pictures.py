"""Pictures on their way to the vendor: by value, by links into a bucket that really are fetched, by place."""

from __future__ import annotations

import base64
import json
import random
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import botocore.session
import obstore
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from moto.server import ThreadedMotoServer

from pipeline.batch.pictures import FOLDER_NAME, open_pictures
from pipeline.images.delivery import PictureDelivery, Pictures
from pipeline.images.image_store import ImageStore
from pipeline.images.normalize import prepare
from pipeline.images.prepared import Fit, PictureError, PictureFault, Prepared
from pipeline.manifest import load
from pipeline.manifest.fields import MediaKind
from pipeline.manifest.local_files import LocalFile, LocalFiles, image_sha256
from pipeline.plan import new_record
from pipeline.settings import Settings
from tests.unit.pictures import write_picture

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.model import Record

ROWS_A_PICTURE = 20
STAMP = "%Y%m%dT%H%M%SZ"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in (
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    client = botocore.session.get_session().create_client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="stills")
    return "s3://stills/some/prefix"


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The objects that were sent, one entry a time."""
    sent: list[str] = []
    put = obstore.put_async

    async def counted(store: Any, path: str, *args: Any, **options: Any) -> Any:
        sent.append(path)
        return await put(store, path, *args, **options)

    monkeypatch.setattr(obstore, "put_async", counted)
    return sent


def batch(
    folder: Path, settings: Settings, *, by_value: bool = False
) -> tuple[list[Record], PictureDelivery]:
    """Rows over three pictures, of which one has to be converted, and how they travel."""
    for name, kind in (("a.jpg", "jpeg"), ("b.jpg", "turned-6"), ("c.png", "png")):
        write_picture(folder / "stills" / name, kind)
    rows = [
        {"image": f"stills/{name}", "prompt": f"{number}"}
        for number in range(ROWS_A_PICTURE)
        for name in ("a.jpg", "b.jpg", "c.png")
    ]
    path = folder / "batch.json"
    path.write_text(json.dumps(rows))
    manifest = load(path)
    records = [new_record(job, job.id) for job in manifest.jobs]
    return records, PictureDelivery.of(manifest.files, settings, any_by_value=by_value)


async def image_url(pictures: Pictures, record: Record) -> str:
    async with pictures.body(record) as body:
        value = json.loads(body)["image_url"]
    assert isinstance(value, str)
    return value


def as_prepared(delivery: PictureDelivery, record: Record, folder: Path) -> bytes:
    sha256 = json.loads(record.body)["image_url"].removeprefix("sha256:")
    return prepare(delivery.files[sha256], folder).path.read_bytes()


async def prepared_ahead(pictures: Pictures, records: list[Record]) -> None:
    """Let the pictures of all rows be prepared, none of which is submitted yet."""
    pictures.expect(records)
    while await pictures.prepare_next():
        pass


def texts_on_disk(folder: Path) -> str:
    return "".join(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())


async def test_each_link_leads_to_the_picture_as_prepared_and_each_is_uploaded_once(
    bucket: str, uploads: list[str], tmp_path: Path
) -> None:
    records, delivery = batch(tmp_path, Settings(image_store=bucket, image_link_life=3600))
    async with aiohttp.ClientSession() as session:
        for _ in range(2):  # the second time as another run: what is in the bucket is not sent again
            pictures = Pictures(delivery, tmp_path / "made", session)
            links = [await image_url(pictures, record) for record in records]
        for record, link in zip(records, links, strict=True):
            assert "X-Amz-Signature" in link
            async with session.get(link) as response:
                assert response.status == 200
                assert await response.read() == as_prepared(delivery, record, tmp_path / "expected")
    assert len(uploads) == len(set(uploads)) == 3
    assert not list((tmp_path / "made").iterdir()), "what was uploaded does not stay"
    assert "X-Amz" not in texts_on_disk(tmp_path)


async def test_a_link_is_made_when_the_row_is_submitted(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    records, delivery = batch(tmp_path, Settings(image_store=bucket))
    lives: list[float] = []
    sign = obstore.sign

    def signed(store: Any, method: Any, paths: Any, expires_in: Any) -> Any:
        lives.append(expires_in.total_seconds())
        return sign(store, method, paths, expires_in)

    monkeypatch.setattr(obstore, "sign", signed)
    async with aiohttp.ClientSession() as session:
        pictures = Pictures(delivery, tmp_path / "made", session)
        await prepared_ahead(pictures, records)
        made_early = len(lives)
        await image_url(pictures, records[0])
    assert len(lives) == made_early + 1, "preparing ahead signs nothing"
    assert lives[-1] > Settings().timeout, "it outlives the deadline"


async def test_links_work_at_submission_after_an_hours_wait(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The signing clock is given, and the vendor heeds a link's age before it fetches it, as S3 does."""
    records, delivery = batch(tmp_path, Settings(image_store=bucket, image_link_life=600))
    now, sign = datetime(2026, 1, 1, tzinfo=UTC), obstore.sign

    def signed_now(store: Any, method: Any, paths: Any, expires_in: Any) -> str:
        return re.sub(
            r"X-Amz-Date=[0-9TZ]+", f"X-Amz-Date={now:{STAMP}}", sign(store, method, paths, expires_in)
        )

    async def fetched(link: str) -> bytes | None:
        query = parse_qs(urlsplit(link).query)
        began = datetime.strptime(query["X-Amz-Date"][0], STAMP).replace(tzinfo=UTC)
        if not 0 <= (now - began).total_seconds() <= float(query["X-Amz-Expires"][0]):
            return None
        async with session.get(link) as response:
            return await response.read() if response.status == 200 else None

    monkeypatch.setattr(obstore, "sign", signed_now)
    async with aiohttp.ClientSession() as session:
        pictures = Pictures(delivery, tmp_path / "made", session)
        await prepared_ahead(pictures, records)
        first = await image_url(pictures, records[0])
        for record in (*records[:4], records[0]):  # the first one comes back, too
            now += timedelta(hours=1)
            link = await image_url(pictures, record)
            assert await fetched(link) == as_prepared(delivery, record, tmp_path / "expected")
        assert await fetched(first) is None, "the vendor does look at a link's age"


async def test_a_public_bucket_needs_no_signature(bucket: str, tmp_path: Path) -> None:
    records, delivery = batch(tmp_path, Settings(image_store=bucket, image_store_public=True))
    async with aiohttp.ClientSession() as session:
        link = await image_url(Pictures(delivery, tmp_path / "made", session), records[0])
    assert urlsplit(link).query == ""


@pytest.mark.parametrize("same_size", [True, False])
async def test_an_original_that_is_written_over_before_it_is_uploaded_leaves_no_object(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, same_size: bool
) -> None:
    """As a renderer does that writes the same still again and again."""
    records, delivery = batch(tmp_path, Settings(image_store=f"{bucket}/{same_size}"))
    still, sha256 = tmp_path / "stills" / "a.jpg", image_sha256(records[0].body)
    before = still.read_bytes()
    head = obstore.head_async

    async def written_over(store: Any, path: str, **options: Any) -> Any:
        if sha256 in path:
            still.write_bytes(before[:-1000] + bytes(1000) if same_size else before + b"more")
        return await head(store, path, **options)

    monkeypatch.setattr(obstore, "head_async", written_over)
    async with aiohttp.ClientSession() as session:
        pictures = Pictures(delivery, tmp_path / "made", session)
        with pytest.raises(PictureError, match="changed while the run was going on") as caught:
            await image_url(pictures, records[0])
        assert caught.value.kind is PictureFault.TRANSIENT
        monkeypatch.setattr(obstore, "head_async", head)
        store = pictures._store
        assert store is not None
        assert not [entry async for batch in obstore.list(store._backend) for entry in batch]
        still.write_bytes(before)
        async with session.get(await image_url(pictures, records[0])) as response:
            assert await response.read() == before
    assert not list((tmp_path / "made").iterdir())


async def test_an_original_that_is_gone_before_it_is_uploaded_is_no_fault_of_the_store(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    records, delivery = batch(tmp_path, Settings(image_store=f"{bucket}/gone"))
    head = obstore.head_async

    async def removed(store: Any, path: str, **options: Any) -> Any:
        (tmp_path / "stills" / "a.jpg").unlink()
        return await head(store, path, **options)

    monkeypatch.setattr(obstore, "head_async", removed)
    async with aiohttp.ClientSession() as session:
        with pytest.raises(PictureError, match="cannot be read") as caught:
            await image_url(Pictures(delivery, tmp_path / "made", session), records[0])
    assert caught.value.kind is PictureFault.TRANSIENT


async def test_a_large_video_arrives_whole_with_its_type(bucket: str, tmp_path: Path) -> None:
    video = b"\0\0\0\x18ftypmp42" + random.Random(1).randbytes(12_000_000)
    (tmp_path / "clip.mp4").write_bytes(video)
    found = LocalFiles(tmp_path).read("video_url", "clip.mp4", MediaKind.VIDEO, 1)
    assert isinstance(found, LocalFile)
    store = ImageStore(f"{bucket}/videos", 3600.0, public=False)
    name = await store.upload(prepare(found, tmp_path / "made"), tmp_path / "made")
    async with aiohttp.ClientSession() as session, session.get(store.link(name)) as response:
        assert response.content_type == "video/mp4"
        assert await response.read() == video


async def test_a_store_that_is_away_is_no_fault_of_the_row(
    bucket: str, uploads: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    records, delivery = batch(tmp_path, Settings(image_store=f"{bucket.replace('stills', 'nobody')}"))
    async with aiohttp.ClientSession() as session:
        with pytest.raises(PictureError) as caught:
            await image_url(Pictures(delivery, tmp_path / "made", session), records[0])
    assert caught.value.kind is PictureFault.STORE
    assert "?" not in str(caught.value)


async def test_by_value_the_picture_is_in_the_request_and_nothing_is_left(tmp_path: Path) -> None:
    records, delivery = batch(tmp_path, Settings(), by_value=True)
    async with aiohttp.ClientSession() as session:
        pictures = Pictures(delivery, tmp_path / "made", session)
        await prepared_ahead(pictures, records)
        for record in records:
            head, _, data = (await image_url(pictures, record)).partition(";base64,")
            assert head in ("data:image/jpeg", "data:image/png")
            assert base64.b64decode(data) == as_prepared(delivery, record, tmp_path / "expected")
    assert {path.name for path in (tmp_path / "made").iterdir()} <= {
        json.loads(record.body)["image_url"].removeprefix("sha256:") for record in records
    }


async def test_an_original_that_is_written_over_after_it_was_prepared_is_not_sent(tmp_path: Path) -> None:
    records, delivery = batch(tmp_path, Settings(), by_value=True)
    async with aiohttp.ClientSession() as session:
        pictures = Pictures(delivery, tmp_path / "made", session)
        await prepared_ahead(pictures, records)
        write_picture(tmp_path / "stills" / "a.jpg", "png")
        with pytest.raises(PictureError, match="changed") as caught:
            await image_url(pictures, records[0])
    assert caught.value.kind is PictureFault.TRANSIENT


async def test_what_somebody_put_beside_the_converted_pictures_stays(tmp_path: Path) -> None:
    records, delivery = batch(tmp_path, Settings(fit="pad"), by_value=True)
    converted = tmp_path / FOLDER_NAME
    foreign = converted / "night.mp4"
    converted.mkdir()
    leftovers = [f"{'a' * 64}", f"{'b' * 64}-pad-16x9", f"{'c' * 64}-crop-9x16.139847"]
    for path in (foreign, *(converted / name for name in leftovers)):
        path.write_bytes(b"a clip")
    async with aiohttp.ClientSession() as session:
        async with open_pictures(delivery, tmp_path, session) as pictures:
            assert pictures is not None
            assert list(converted.iterdir()) == [foreign]
            await prepared_ahead(pictures, records)
            assert len(list(converted.iterdir())) > 1
        assert [path.read_bytes() for path in converted.iterdir()] == [b"a clip"]
        foreign.unlink()
        async with open_pictures(delivery, tmp_path, session) as pictures:
            assert pictures is not None
            await prepared_ahead(pictures, records)
        assert not converted.exists()


async def test_whatever_preparing_meets_is_left_to_the_row(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(file: LocalFile, folder: Path, fit: Fit | None) -> Prepared:
        if file.written == "stills/a.jpg":
            raise ZeroDivisionError("a bug")
        return prepare(file, folder, fit)

    monkeypatch.setattr("pipeline.images.normalize.prepare", broken)
    records, delivery = batch(tmp_path, Settings(), by_value=True)
    async with aiohttp.ClientSession() as session:
        pictures = Pictures(delivery, tmp_path / "made", session)
        await prepared_ahead(pictures, records)
        with pytest.raises(ZeroDivisionError):
            await image_url(pictures, records[0])
        assert (await image_url(pictures, records[1])).startswith("data:image/jpeg")


async def test_a_published_picture_that_is_gone_from_the_disk_waits_for_the_next_run(tmp_path: Path) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=b"a picture")

    app = web.Application()
    app.router.add_get("/{name:.*}", answer)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        records, delivery = batch(tmp_path, Settings(image_base_url=str(server.make_url("/"))))
        (tmp_path / "stills" / "a.jpg").unlink()
        with pytest.raises(PictureError, match="cannot be read") as caught:
            await image_url(Pictures(delivery, tmp_path / "made", session), records[0])
    assert caught.value.kind is PictureFault.TRANSIENT


async def test_submission_never_waits_for_preparation_once_it_has_begun(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each row finds its picture prepared, also one that did not stay on the disk since its last row."""
    monkeypatch.setattr("pipeline.images.delivery.MIN_ROWS_AHEAD", 4)
    monkeypatch.setattr("pipeline.images.delivery._MAX_SPARE", 2)
    monkeypatch.setattr("pipeline.images.delivery.MAX_KEPT_BYTES", 0)
    made: list[str] = []

    def prepare_and_note(file: LocalFile, folder: Path, fit: Fit | None) -> Prepared:
        made.append(file.sha256)
        return prepare(file, folder, fit)

    monkeypatch.setattr("pipeline.images.normalize.prepare", prepare_and_note)
    for number in range(12):
        write_picture(tmp_path / f"{number}.jpg", "turned-3", (16, 16 + number))
    (tmp_path / "batch.json").write_text(
        json.dumps([{"image": f"{number % 12}.jpg", "prompt": f"{number}"} for number in range(24)])
    )
    manifest = load(tmp_path / "batch.json")
    records = [new_record(job, job.id) for job in manifest.jobs]
    delivery = PictureDelivery.of(manifest.files, Settings(concurrency=1), any_by_value=True)
    async with aiohttp.ClientSession() as session:
        pictures = Pictures(delivery, tmp_path / "made", session)
        pictures.expect(records)
        for number, record in enumerate(records):
            while await pictures.prepare_next():
                pass
            assert len(made) == min(24, number + 4), "as far ahead as was asked, and no further"
            async with pictures.body(record) as body:
                assert "data:image/jpeg" in body
            assert len(made) == min(24, number + 4), "nothing was prepared while the row waited"
    assert len(list((tmp_path / "made").iterdir())) <= 2 + 4, "what no row needs soon does not stay"


async def test_by_place_each_address_is_asked_and_another_file_there_is_refused(tmp_path: Path) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        path = tmp_path / "stills" / request.match_info["name"]
        if request.match_info["name"] == "c.png":
            return web.Response(body=b"another")
        return web.FileResponse(path) if path.exists() else web.Response(status=404)

    app = web.Application()
    app.router.add_get("/static/stills/{name}", answer)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        base = str(server.make_url("/static/stills/"))
        records, delivery = batch(tmp_path, Settings(image_base_url=base))
        pictures = Pictures(delivery, tmp_path / "made", session)
        assert await image_url(pictures, records[0]) == f"{base}a.jpg"
        with pytest.raises(PictureError, match="has 7 bytes"):
            await image_url(pictures, records[2])
        records, delivery = batch(tmp_path, Settings(image_base_url=str(server.make_url("/elsewhere"))))
        with pytest.raises(PictureError, match="not published"):
            await image_url(Pictures(delivery, tmp_path / "made", session), records[0])
