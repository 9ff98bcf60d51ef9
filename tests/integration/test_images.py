"""Looking at images over real sockets: few bytes, each once, never inside the own network."""

from __future__ import annotations

import asyncio
import io
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from PIL import Image

from pipeline.errors import UsageError
from pipeline.images import check as check_module
from pipeline.images import check_images
from pipeline.images.header import ImageInfo, NotAnImageError, read_image_info
from pipeline.model import Job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pipeline.images import ImageFindings

FORMATS = {"PNG": "png", "JPEG": "jpeg", "GIF": "gif", "WEBP": "webp", "BMP": "bmp", "AVIF": "avif"}


def image_bytes(kind: str, width: int = 1280, height: int = 720, **more: Any) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(out, kind, **more)
    return out.getvalue()


@pytest.mark.parametrize(("kind", "name"), FORMATS.items())
def test_type_and_size_are_read_from_the_first_bytes(kind: str, name: str) -> None:
    data = image_bytes(kind, 1000, 600)
    assert read_image_info(data) == ImageInfo(name, 1000, 600)
    needed = next(n for n in range(len(data) + 1) if read_image_info(data[:n]) is not None)
    assert needed < 1000


@pytest.mark.parametrize("more", [{"lossless": True}, {"exif": b"Exif\0\0" + b"x" * 100}])
def test_every_kind_of_webp(more: dict[str, Any]) -> None:
    assert read_image_info(image_bytes("WEBP", 1000, 600, **more)) == ImageInfo("webp", 1000, 600)


def test_a_jpeg_with_much_in_front_of_its_size() -> None:
    data = image_bytes("JPEG", progressive=True, icc_profile=b"p" * 200_000)
    assert read_image_info(data[:65536]) is None
    assert read_image_info(data) == ImageInfo("jpeg", 1280, 720)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\n<svg xmlns='http://www.w3.org/2000/svg'>", "an SVG"),
        (b'{"error": "not found"}', "JSON"),
        (b"%PDF-1.7 ........", "a PDF"),
        (b"\0\0\0\x18ftypmp42........", "a video"),
        (b"x" * 100, "no image"),
        (b"\xff\xd8\xff\xe0\0\x04ab" + b"x" * 20, "damaged"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, words: str) -> None:
    with pytest.raises(NotAnImageError, match=words):
        read_image_info(data)


@dataclass
class ImageHost:
    """An image host; `sent` counts the bytes that left it, `asked` the requests by path."""

    base: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    request_counts: dict[str, int] = field(default_factory=dict)
    sent_bytes: int = 0
    ranges: bool = True
    active: int = 0
    peak: int = 0
    barrier_size: int = 1
    barrier: asyncio.Event = field(default_factory=asyncio.Event)
    headers: dict[str, str] = field(default_factory=dict)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.request_counts[request.path] = self.request_counts.get(request.path, 0) + 1
        if request.path in self.redirects:
            raise web.HTTPFound(self.redirects[request.path])
        data = self.files.get(request.path)
        if data is None:
            raise web.HTTPNotFound
        self.active += 1
        self.peak = max(self.peak, self.active)
        if self.active >= self.barrier_size:
            self.barrier.set()
        try:
            await self.barrier.wait()
            return await self._send(request, data)
        finally:
            self.active -= 1

    async def _send(self, request: web.Request, data: bytes) -> web.StreamResponse:
        status = 200
        if self.ranges and request.http_range.stop is not None:
            data, status = data[: request.http_range.stop], 206
        response = web.StreamResponse(
            status=status, headers={**self.headers, "Content-Length": str(len(data))}
        )
        await response.prepare(request)
        for start in range(0, len(data), 16384):
            await response.write(data[start : start + 16384])
            self.sent_bytes += 16384
        return response


@asynccontextmanager
async def running(host: ImageHost) -> AsyncIterator[ImageHost]:
    app = web.Application()
    app.router.add_get("/{any:.*}", host.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host.base = "http://{}:{}".format(*runner.addresses[0])
    try:
        yield host
    finally:
        await runner.cleanup()


def job(url: str, line: int = 3, **body: Any) -> Job:
    return Job(f"row-{line}", "f", 0, "m", {"image_url": url, **body}, line, 5)


async def check(*jobs: Job, allow_private: bool = True, cache_file: Path | None = None) -> ImageFindings:
    return await check_images(
        jobs, "batch.yaml", allow_private=allow_private, cache_file=cache_file, timeout_s=10
    )


async def test_good_images_are_asked_once_and_remembered(tmp_path: Path) -> None:
    host = ImageHost(files={"/a.png": image_bytes("PNG"), "/b.jpg": image_bytes("JPEG", 720, 1280)})
    async with running(host):
        jobs = [job(f"{host.base}/{name}", line) for line, name in enumerate(["a.png", "b.jpg", "a.png"])]
        for _ in range(2):
            found = await check(*jobs, cache_file=tmp_path / "images.json")
            assert (found.problems, found.warnings, found.bad) == ((), (), frozenset())
    assert host.request_counts == {"/a.png": 1, "/b.jpg": 1}


async def test_each_image_problem_has_message_and_position() -> None:
    host = ImageHost(
        files={
            "/small.png": image_bytes("PNG", 640, 480),
            "/page": b"<html><body>gone</body></html>",
            "/empty": b"",
            "/cut.jpg": image_bytes("JPEG")[:30],
        },
        redirects={"/loop": "/loop", "/out": "ftp://example.com/x"},
    )
    async with running(host):
        names = ["small.png", "page", "empty", "cut.jpg", "missing", "loop", "out"]
        jobs = [job(f"{host.base}/{name}", line) for line, name in enumerate(names, 1)]
        closed = job("http://127.0.0.1:9/x.png", 8)
        found = await check(*jobs, closed)
    words = [str(problem) for problem in found.problems]
    assert len(words) == 8
    expected = [
        "640x480",
        "a web page",
        "an empty file",
        "first bytes",
        "HTTP 404",
        "redirects",
        "ftp",
        "reached",
    ]
    for line, (word, message) in enumerate(zip(expected, words, strict=True), 1):
        assert message.startswith(f"batch.yaml:{line}:5: image ")
        assert word in message
    assert found.bad == {f"row-{line}" for line in range(1, 9)}


async def test_a_shape_far_from_the_one_asked_is_a_warning() -> None:
    host = ImageHost(
        files={"/square.png": image_bytes("PNG", 1000, 1000), "/wide.gif": image_bytes("GIF", 1500, 1000)}
    )
    async with running(host):
        square, wide = f"{host.base}/square.png", f"{host.base}/wide.gif"
        found = await check(job(square, aspect_ratio="16:9"), job(square), job(wide, aspect_ratio="16:9"))
    assert found.problems == ()
    assert ["far from 16:9" in str(w) for w in found.warnings] == [True, False]
    assert "it is GIF" in str(found.warnings[1])


@pytest.mark.parametrize("ranges", [True, False])
async def test_only_the_bytes_of_the_head_are_read(ranges: bool) -> None:
    large = image_bytes("PNG") + b"\0" * 50_000_000
    host = ImageHost(files={"/large.png": large}, ranges=ranges)
    async with running(host):
        assert (await check(job(f"{host.base}/large.png"))).problems == ()
    assert host.sent_bytes < 10_000_000


async def test_a_late_size_is_fetched_with_a_second_request() -> None:
    host = ImageHost(files={"/late.jpg": image_bytes("JPEG", icc_profile=b"p" * 200_000)})
    async with running(host):
        assert (await check(job(f"{host.base}/late.jpg"))).problems == ()
    assert host.request_counts["/late.jpg"] == 2


async def test_many_at_once_and_not_too_many() -> None:
    host = ImageHost(files={f"/{n}.png": image_bytes("PNG", 720, 720) for n in range(60)}, barrier_size=8)
    async with running(host):
        assert (await check(*(job(f"{host.base}/{n}.png") for n in range(60)))).problems == ()
    assert 8 <= host.peak <= check_module.MAX_CONCURRENT_REQUESTS


@pytest.mark.parametrize(
    "headers",
    [{f"X-Trace-{number}": "x" for number in range(300)}, {"Content-Security-Policy": "x" * 20_000}],
    ids=["many", "long"],
)
async def test_an_image_behind_a_long_head_is_an_image(headers: dict[str, str]) -> None:
    host = ImageHost(files={"/a.png": image_bytes("PNG")}, headers=headers)
    async with running(host):
        assert (await check(job(f"{host.base}/a.png"))).problems == ()


async def test_a_proxy_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:1080")
    with pytest.raises(UsageError, match=r"https_proxy names a socks5:// proxy"):
        await check(*(job(f"https://images.vendor.test/{number}.png", number) for number in range(3)))


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]", "0x7f000001", "[::ffff:127.0.0.1]"])
async def test_private_hosts_are_not_asked(name: str) -> None:
    host = ImageHost(files={"/a.png": image_bytes("PNG")})
    async with running(host):
        port = host.base.rpartition(":")[2]
        found = await check(job(f"http://{name}:{port}/a.png"), allow_private=False)
    assert "private address" in str(found.problems[0])
    assert host.request_counts == {}


async def test_a_redirect_does_not_lead_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    public = "pipeline.net.public_resolver.is_public"
    monkeypatch.setattr(public, lambda address: address == "127.0.0.1")
    host = ImageHost(
        redirects={"/a.png": "http://169.254.169.254/latest/meta-data", "/b.png": "http://[::1]:1/x"}
    )
    async with running(host):
        found = await check(job(f"{host.base}/a.png"), job(f"{host.base}/b.png"), allow_private=False)
    assert [("private address" in str(problem)) for problem in found.problems] == [True, True]
    assert host.request_counts == {"/a.png": 1, "/b.png": 1}


async def test_an_image_is_asked_for_through_the_proxy_and_nothing_inside_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The proxy may be anywhere, since the user chose it; an address in a manifest may not."""
    asked: list[str] = []

    async def forward(request: web.Request) -> web.Response:
        asked.append(str(request.url))
        return web.Response(body=image_bytes("PNG"))

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", forward)
    async with TestServer(app) as proxy:
        monkeypatch.setenv("http_proxy", f"http://localhost:{proxy.port}")
        good, inside = "http://images.vendor.test/a.png", "http://10.1.2.3/a.png"
        found = await check(job(good, 1), job(inside, 2), allow_private=False)
    assert asked == [good]
    assert found.bad == {"row-2"}
