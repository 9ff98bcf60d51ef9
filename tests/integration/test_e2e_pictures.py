"""From a folder of pictures to a folder of clips, through the real command; killed on the way, too."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import aiohttp
import botocore.session
import pytest
from moto.server import ThreadedMotoServer
from PIL import Image

from tests.integration.vendor_double import vendor_and_workspace, wait_until
from tests.unit.pictures import KINDS, are_alike, corners_of, write_picture

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.vendor_double import VendorDouble, Workspace

COUNT = 60
SHAPES = ((1280, 720), (720, 1280))


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


def make_pictures(folder: Path) -> list[str]:
    """Pictures of all kinds, landscape and portrait, with names that clash, blanks and other scripts."""
    colour_kinds = [kind for kind in KINDS if kind not in ("grey", "grey-16", "bilevel", "transparent")]
    stems = ["cat", "Cat", "my cat", "écolier", "猫", "it's (1)", "a.b.c"]
    names = []
    for number in range(COUNT):
        stem = stems[number] if number < len(stems) else f"still {number}"
        suffix = (".jpg", ".png", ".HEIC", ".tif")[number % 4]
        kind = colour_kinds[number % len(colour_kinds)]
        write_picture(folder / f"{stem}{suffix}", kind, SHAPES[number % 2])
        names.append(f"{stem}{suffix}")
    return names


async def fetched(vendor: VendorDouble) -> list[bytes]:
    """What the vendor gets at the link of each create."""
    async with aiohttp.ClientSession() as session:
        found = []
        for generation in vendor.generations:
            async with session.get(generation.body["image_url"]) as response:
                assert response.status == 200
                found.append(await response.read())
    return found


async def test_sixty_pictures_become_sixty_clips_named_after_them(
    environment: dict[str, str], tmp_path: Path
) -> None:
    names = await asyncio.to_thread(make_pictures, tmp_path / "stills")
    async with vendor_and_workspace(tmp_path, render_s=0.05) as (vendor, desk):
        desk.environment = environment
        made = await desk.command(
            "init", str(tmp_path / "stills"), "-o", str(tmp_path / "stills.yaml"), "--prompt", "{stem}"
        )
        assert made.code == 0, made.output
        first = await desk.run("--limit", "3", "--image-store", STORE, manifest="stills.yaml")
        assert first.code == 0, first.output
        assert "57 rows" in first.output
        assert len(vendor.generations) == 3
        second = await desk.run("--image-store", STORE, manifest="stills.yaml")
        assert second.code == 0, second.output
        assert len(vendor.generations) == COUNT
        pictures = await fetched(vendor)
        again = await desk.run("--image-store", STORE, manifest="stills.yaml")
        assert again.code == 0
        assert len(vendor.generations) == COUNT, "a second run sends nothing"
    sizes = Counter()  # type: Counter[tuple[int, int]]
    for data in pictures:
        with Image.open(io.BytesIO(data)) as image:
            assert image.format in ("JPEG", "PNG")
            sizes[image.size] += 1
            assert are_alike(corners_of(image), within=80), "upright, in its colours"
    assert sizes == dict.fromkeys(SHAPES, COUNT // 2)
    videos = {path.name for path in (tmp_path / "output" / "stills" / "videos").iterdir()}
    assert len(videos) == COUNT
    assert {"écolier.mp4", "猫.mp4", "a.b.c.mp4"} <= videos
    assert len(names) == COUNT
    assert_no_link_on_disk(tmp_path)


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


async def killed_when(desk: Workspace, condition: Any, *args: str) -> None:
    process = await desk.start(*args)
    await wait_until(lambda: condition() or process.returncode is not None)
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.communicate()


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
        await killed_when(desk, lambda: len(uploads.counts) >= 2, *arguments)
        await killed_when(desk, lambda: len(vendor.generations) >= 3, *arguments)
        await killed_when(desk, lambda: len(vendor.generations) >= 9, *arguments)
        ended = await desk.run(*arguments)
        assert ended.code == 0, ended.output
        assert len(vendor.generations) == len(rows)
        assert set(vendor.paid_counts().values()) == {1}
        hashes = {hashlib.sha256(data).hexdigest() for data in await fetched(vendor)}
    assert uploads.counts == {f"pictures/{sha256}.jpg": 1 for sha256 in hashes}
    assert len(hashes) == 8
    assert_no_link_on_disk(tmp_path)
