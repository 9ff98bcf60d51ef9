"""From a folder of pictures to a folder of clips, through the real command; killed on the way, too."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
import math
import re
import shutil
import unicodedata
from collections import Counter
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import aiohttp
import av
import botocore.session
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from moto.server import ThreadedMotoServer
from PIL import Image

from pipeline.results.source_thumbnails import thumbnail_path
from pipeline.sandbox import Sandbox, SandboxOptions
from tests.integration.vendor_double import Workspace, kill_when, vendor_and_workspace
from tests.unit.pictures import GREY_KINDS, KINDS, corners_of, odd_picture, scene, write_picture

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.vendor_double import VendorDouble
    from tests.integration.vendor_double.workspace import CommandResult


COUNT = 60


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


STORE = "s3://stills/pictures"


@pytest.fixture
def environment(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The variables by which the command finds the image store."""
    variables = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    botocore.session.get_session().create_client("s3", endpoint_url=endpoint).create_bucket(Bucket="stills")
    return variables


def make_pictures(folder: Path) -> dict[str, str]:
    """Pictures of all kinds, landscape and portrait, with names that clash, blanks and other scripts."""
    stems = ["cat", "Cat", "my cat", "écolier", "猫", "it's (1)", "a.b.c"]
    kinds = {}
    for number in range(COUNT):
        stem = stems[number] if number < len(stems) else f"still {number}"
        name = f"{stem}{('.jpg', '.png', '.HEIC', '.tif')[number % 4]}"
        kinds[name] = KINDS[number % len(KINDS)]
        size = (1280 + 2 * number, 720)  # no two pictures are the same
        is_portrait = (number + number // len(KINDS)) % 2  # each kind comes in both
        write_picture(folder / name, kinds[name], size[::-1] if is_portrait else size)
    return kinds


def first_frame(path: Path) -> Image.Image:
    with av.open(path) as container:
        picture: Image.Image = next(container.decode(video=0)).to_image()  # type: ignore[no-untyped-call]
        return picture


def is_upright(clip: Path, kind: str) -> bool:
    """Whether each quarter of a clip is nearest to that corner's colour, so that it stands upright."""
    found = corners_of(first_frame(clip).resize((2, 2), Image.Resampling.BOX).resize((8, 8)))
    wanted = corners_of(scene().convert("L" if kind in GREY_KINDS else "RGB"))
    return all(
        math.dist(colour, right) == min(math.dist(colour, other) for other in wanted)
        for colour, right in zip(found, wanted, strict=True)
    )


async def test_sixty_pictures_become_sixty_upright_clips_named_after_them(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """In a sandbox that fetches each link, refuses what it cannot read, and shows what it was sent."""
    kinds = await asyncio.to_thread(make_pictures, tmp_path / "stills")
    originals = {name: (tmp_path / "stills" / name).read_bytes() for name in kinds}
    options = SandboxOptions(speed=100.0, durations="fixed:5", video="small", fetch_images=True)
    async with Sandbox(options) as sandbox:
        desk = Workspace(tmp_path, sandbox.url, environment=environment)
        yaml = tmp_path / "stills.yaml"
        made = await desk.command("init", str(tmp_path / "stills"), "-o", str(yaml), "--prompt", "{stem}")
        assert made.code == 0, made.output
        estimate = await desk.command(
            "estimate", str(yaml), "--base-url", sandbox.url, "--image-store", STORE
        )
        assert estimate.code == 0, estimate.output
        assert f"60 files travel by a link into {STORE}" in estimate.output
        assert "72.00 USD  in all" in estimate.output
        first = await desk.run("--limit", "3", "--image-store", STORE, manifest="stills.yaml")
        assert first.code == 0, first.output
        assert "still pending: 57 rows" in first.output
        assert len(sandbox.state.generations) == 3
        second = await desk.run("--image-store", STORE, manifest="stills.yaml")
        assert second.code == 0, second.output
        (tmp_path / "stills" / "cat.jpg").rename(tmp_path / "kitten.jpg")
        yaml.write_text(yaml.read_text().replace('"stills/cat.jpg"', '"kitten.jpg"'))
        again = await desk.run("--image-store", STORE, manifest="stills.yaml")
        assert again.code == 0, again.output
        assert len(sandbox.state.generations) == COUNT, "a second run sends nothing, whatever was renamed"
    output = tmp_path / "output" / "stills"
    with (output / "results.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert [row["image_url"] for row in rows if row["id"] == "cat"] == ["kitten.jpg"]
    kinds["kitten.jpg"] = kinds.pop("cat.jpg")
    clips = {PurePath(row["image_url"]).name: output / row["video_path"] for row in rows}
    assert clips.keys() == kinds.keys()
    assert [name for name, kind in kinds.items() if not is_upright(clips[name], kind)] == []
    thumbnails = {thumbnail_path(row["image_sha256"]) for row in rows}
    assert {f"posters/{path.name}" for path in (output / "posters").glob("*.source.jpg")} == thumbnails
    videos = {path.name for path in (output / "videos").iterdir()}
    assert {"écolier.mp4", "猫.mp4", "a.b.c.mp4"} <= videos
    assert len({name.casefold() for name in videos}) == COUNT
    originals["kitten.jpg"] = originals.pop("cat.jpg")
    stills = [*(tmp_path / "stills").iterdir(), tmp_path / "kitten.jpg"]
    assert {path.name: path.read_bytes() for path in stills} == originals, "originals are only read"
    assert_no_link_on_disk(tmp_path)


async def fetched(vendor: VendorDouble) -> list[bytes]:
    """What the vendor gets at the link of each create."""
    async with aiohttp.ClientSession() as session:
        found = []
        for generation in vendor.generations:
            async with session.get(generation.body["image_url"]) as response:
                assert response.status == 200
                found.append(await response.read())
    return found


def assert_no_link_on_disk(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            assert not re.search(rb"stills/pictures/[0-9a-f]{64}", path.read_bytes()), path


class UploadCounter:
    """Counts, in the server itself, what was put into the bucket under each name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from moto.s3.models import S3Backend

        self.counts: Counter[str] = Counter()
        original = S3Backend.put_object

        def put_object(backend: Any, bucket_name: str, key_name: str, *args: Any, **options: Any) -> Any:
            self.counts[key_name] += 1
            return original(backend, bucket_name, key_name, *args, **options)

        monkeypatch.setattr(S3Backend, "put_object", put_object)


async def test_killed_on_the_way_nothing_is_uploaded_or_paid_twice(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        write_picture(tmp_path / f"{number}.jpg", f"turned-{number % 7 + 2}", (1280, 740 + number))
    rows = [{"image_url": f"{number % 8}.jpg", "prompt": f"{number}"} for number in range(16)]
    (tmp_path / "batch.json").write_text(json.dumps(rows))
    uploads = UploadCounter(monkeypatch)
    arguments = ("--image-store", STORE, "--concurrency", "2", "--reconcile-after", "0.1")
    async with vendor_and_workspace(tmp_path, render_s=0.05) as (vendor, desk):
        desk.environment = environment
        await kill_when(lambda: len(uploads.counts) >= 2, desk, vendor, *arguments)
        await kill_when(lambda: len(vendor.generations) >= 3, desk, vendor, *arguments)
        await kill_when(lambda: len(vendor.generations) >= 9, desk, vendor, *arguments)
        ended = await desk.run(*arguments)
        assert ended.code == 0, ended.output
        assert len(vendor.generations) == len(rows)
        assert set(vendor.paid_counts().values()) == {1}
        hashes = {hashlib.sha256(data).hexdigest() for data in await fetched(vendor)}
    assert uploads.counts == {f"pictures/{sha256}.jpg": 1 for sha256 in hashes}
    assert len(hashes) == 8
    assert_no_link_on_disk(tmp_path)


@pytest.mark.parametrize("published_as", ["/stills/", "/anywhere/"])
async def test_a_folder_that_is_published_is_run_in_one_go(published_as: str, tmp_path: Path) -> None:
    """Its manifest is kept beside the output, and the pictures' addresses count from their own folder."""
    for name in ("in/a b.jpg", "in/ö.jpg"):
        write_picture(tmp_path / "my" / "stills" / name, "jpeg", (1280, 720 + len(name)))
    app = web.Application()
    app.router.add_static(published_as, tmp_path / "my" / "stills")
    async with TestServer(app) as static, vendor_and_workspace(tmp_path, render_s=0.05) as (vendor, desk):
        base = str(static.make_url(published_as))
        folder = ("--prompt", "{stem}", "--recursive", "--image-base-url", base)
        ended = await desk.run(*folder, manifest="my/stills")
        assert ended.code == 0, ended.output
        assert (tmp_path / "output" / "stills.yaml").exists()
        assert {made.body["image_url"] for made in vendor.generations} == {
            f"{base}in/a%20b.jpg",
            f"{base}in/%C3%B6.jpg",
        }
        again = await desk.run(*folder, manifest="my/stills")
        assert again.code == 0, again.output
        assert len(vendor.generations) == 2


async def test_a_picture_of_a_folder_is_bought_once_whatever_it_is_called(tmp_path: Path) -> None:
    """Also where a folder of the same name is run: its rows are its own, or those of nobody."""
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    for number, name in enumerate((composed, "dog", "cow")):
        write_picture(tmp_path / "monday" / composed / f"{name}.jpg", "jpeg", (1280, 720 + number))
    write_picture(tmp_path / "tuesday" / composed / "t.jpg", "jpeg", (1280, 760))
    app = web.Application()
    app.router.add_static("/", tmp_path)
    async with TestServer(app) as static, vendor_and_workspace(tmp_path, render_s=0.05) as (vendor, desk):

        async def run(folder: str, *options: str) -> CommandResult:
            base = str(static.make_url(f"/{folder}/"))
            found = ("--prompt", "{stem}", "--image-base-url", base, *options)
            return await desk.run(*found, manifest=folder)

        ended = await run(f"monday/{composed}", "--limit", "2")
        assert (ended.code, len(vendor.generations)) == (0, 2), ended.output
        shutil.copytree(tmp_path / "monday", tmp_path / "copy")
        monday = (tmp_path / "monday" / composed).rename(tmp_path / "monday" / decomposed)
        (monday / f"{composed}.jpg").rename(monday / f"{decomposed}.jpg")
        shutil.copy(monday / "dog.jpg", monday / "hound.jpg")
        for other in ("tuesday", "copy"):
            refused = await run(f"{other}/{composed}", "--json")
            assert (refused.code, len(vendor.generations)) == (2, 2), refused.output
            assert "the manifest of another folder" in json.loads(refused.out)["message"]
        ended = await run(f"tuesday/{composed}", "--output", f"output/tuesday/{composed}")
        assert (ended.code, len(vendor.generations)) == (0, 3), ended.output
        ended = await run(f"monday/{decomposed}")
        assert (ended.code, len(vendor.generations)) == (0, 4), ended.output
        assert f"monday/{decomposed}/hound.jpg, the same picture as" in ended.err


async def test_a_store_that_refuses_pictures_stops_the_run_before_anything_is_bought(
    environment: dict[str, str], tmp_path: Path
) -> None:
    for number in range(3):
        write_picture(tmp_path / f"{number}.jpg", "jpeg", (1280, 720 + number))
    rows = [{"image_url": f"{number}.jpg", "prompt": f"{number}"} for number in range(3)]
    (tmp_path / "batch.json").write_text(json.dumps(rows))
    async with vendor_and_workspace(tmp_path) as (vendor, desk):
        desk.environment = environment
        ended = await desk.run("--image-store", "s3://no-such-bucket/x")
        assert ended.code == 3, ended.output
        assert "the image store takes no picture" in ended.out
        assert "once the image store takes pictures" in ended.out.splitlines()[-1]
        assert not vendor.create_counts
        assert desk.states() == {"pending": 3}
        again = await desk.run("--image-store", STORE)
        assert again.code == 0, again.output
        assert len(vendor.generations) == 3
        (tmp_path / "in_sandbox.json").write_text(json.dumps(rows))
    told = await desk.command("estimate", "in_sandbox.json", "--sandbox")
    assert "3 files travel by value" in told.output
    assert "takes only links" not in told.output


async def test_a_picture_that_no_decoder_expects_costs_its_own_row(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Its header is in order, so that it is met while the run goes on: prepared ahead, and for its row."""
    (tmp_path / "odd.jpg").write_bytes(odd_picture("resolution-unit"))
    for number in range(3):
        write_picture(tmp_path / f"{number}.jpg", "jpeg", (1280, 720 + number))
    rows = [{"image_url": name, "prompt": name} for name in ("0.jpg", "odd.jpg", "1.jpg", "2.jpg")]
    (tmp_path / "batch.json").write_text(json.dumps(rows))
    async with vendor_and_workspace(tmp_path, render_s=0.05) as (vendor, desk):
        desk.environment = environment
        ended = await desk.run("--image-store", STORE)
        assert ended.code == 1, ended.output
        assert desk.states() == {"done": 3, "failed": 1}
        assert len(vendor.generations) == 3
    assert "odd.jpg: it is damaged" in ended.output + (tmp_path / "output/batch/results.csv").read_text()


async def test_a_published_picture_that_has_no_thumbnail_is_animated_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "odd.jpg").write_bytes(odd_picture("resolution-unit"))
    write_picture(tmp_path / "good.jpg", "jpeg", (1280, 720))
    rows = [{"image_url": name, "prompt": name} for name in ("odd.jpg", "good.jpg")]
    (tmp_path / "batch.json").write_text(json.dumps(rows))
    app = web.Application()
    app.router.add_static("/stills/", tmp_path)
    async with TestServer(app) as static, vendor_and_workspace(tmp_path, render_s=0.05) as (vendor, desk):
        ended = await desk.run("--image-base-url", str(static.make_url("/stills/")))
        assert ended.code == 0, ended.output
        assert len(vendor.generations) == 2
    thumbnails = (tmp_path / "output" / "batch" / "posters").glob("*.source.jpg")
    good = hashlib.sha256((tmp_path / "good.jpg").read_bytes()).hexdigest()
    assert [path.name for path in thumbnails] == [f"{good[:32]}.source.jpg"]
