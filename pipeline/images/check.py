"""Asks for the first bytes of every image that the jobs name, and says what is wrong with it.

Each URL is asked once, many at a time, and not again for a day. Unreachable, no image or smaller than
720p is a problem; a shape far from the one asked is a warning, since the vendor crops.
"""

from __future__ import annotations

import json
import math
import os
import ssl
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import urljoin, urlsplit

import aiohttp
import anyio
from anyio import to_thread
from yarl import URL

from pipeline.images.header import Head, NotAnImageError, read_head
from pipeline.manifest.fields import Words
from pipeline.manifest.problems import Problem, show
from pipeline.net.address_guard import (
    THROUGH_A_PROXY,
    PrivateAddressError,
    PublicResolver,
    refuse_private_literal,
)
from pipeline.net.proxy import proxy_for, way_through

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from pipeline.model import Job

SHORT_SIDE: Final = 720
"""The vendor's schema: "Should be 720p or higher resolution"."""

HEAD_BYTES: Final = 1024 * 1024
"""A JPEG's size may stand behind a large EXIF block and a colour profile; beyond this it is given up."""

AT_ONCE: Final = 16
KEPT_S: Final = 24 * 3600.0
_REDIRECTS: Final = 5
_FIRST_BYTES: Final = 64 * 1024
_ASPECTS: Final = {"16:9": 16 / 9, "9:16": 9 / 16}
_FAR: Final = math.log(1.35)
"""A 3:2 photo is near 16:9; a square and a portrait are not."""
_COMMON: Final = frozenset({"jpeg", "png", "webp"})

Look: TypeAlias = Head | Words
"""What was found at a URL: an image, or the words for why not."""


@dataclass(frozen=True, slots=True)
class ImageFindings:
    """All that is wrong with the images, at the places of the rows that name them; `bad` holds their ids."""

    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    bad: frozenset[str]


async def check_images(
    jobs: Sequence[Job],
    file: str,
    *,
    allow_private: bool = False,
    cache_file: Path | None = None,
    timeout_s: float = 20.0,
) -> ImageFindings:
    """Look at the image of each job; `file` is the manifest's name for the places.

    Good images are remembered in `cache_file` for a day. `timeout_s` bounds each image. Raises nothing
    for the network's sake.
    """
    kept = await to_thread.run_sync(_read_kept, cache_file)
    urls = {job.image_url for job in jobs if job.image_url}
    looks: dict[str, Look] = {url: head for url, head in kept.items() if url in urls}
    looks |= await _look_at_all(urls - looks.keys(), allow_private, timeout_s)
    await to_thread.run_sync(_keep, cache_file, looks)
    return _findings(jobs, file, looks)


def _findings(jobs: Iterable[Job], file: str, looks: Mapping[str, Look]) -> ImageFindings:
    problems: list[Problem] = []
    warnings: list[Problem] = []
    bad: set[str] = set()
    for job in jobs:
        look = looks.get(job.image_url)
        if look is None:
            continue
        words = _trouble(look)
        if words is not None:
            problems.append(
                Problem(file, job.line, job.column, f"image {show(job.image_url)}: {words[0]}", *words[1:])
            )
            bad.add(job.id)
        elif isinstance(look, Head):
            doubts = _doubts(look, job.body.get("aspect_ratio"))
            warnings += [
                Problem(file, job.line, job.column, f"image {show(job.image_url)}: {d[0]}", *d[1:])
                for d in doubts
            ]
    return ImageFindings(tuple(problems), tuple(warnings), frozenset(bad))


def _trouble(look: Look) -> Words | None:
    if not isinstance(look, Head):
        return look
    if min(look.width, look.height) < SHORT_SIDE:
        size = f"it is {look.width}x{look.height}"
        return (
            size,
            "the model needs 720p or more",
            f"give one with a short side of {SHORT_SIDE} pixels or more",
        )
    return None


def _doubts(head: Head, asked: object) -> list[Words]:
    doubts: list[Words] = []
    wanted = _ASPECTS.get(asked) if isinstance(asked, str) else None
    if wanted is not None and abs(math.log(head.width / head.height / wanted)) > _FAR:
        what = f"it is {head.width}x{head.height}, far from {asked}"
        doubts.append((what, "much of it will be cut off", "crop it, or ask for the other aspect_ratio"))
    if head.kind not in _COMMON:
        doubts.append((f"it is {head.kind.upper()}", "the vendor may not read that", "give a JPEG or PNG"))
    return doubts


async def _look_at_all(urls: Iterable[str], allow_private: bool, timeout_s: float) -> dict[str, Look]:
    looks: dict[str, Look] = {}
    limiter = anyio.CapacityLimiter(AT_ONCE)
    connector = aiohttp.TCPConnector(limit=AT_ONCE, resolver=None if allow_private else PublicResolver())
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    headers = {"User-Agent": "veobatch", "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}
    jar = aiohttp.DummyCookieJar()

    async def look(url: str) -> None:
        async with limiter:
            looks[url] = await _look_at(session, url, allow_private)

    async with (
        aiohttp.ClientSession(
            connector=connector, timeout=timeout, headers=headers, cookie_jar=jar
        ) as session,
        anyio.create_task_group() as group,
    ):
        for url in urls:
            group.start_soon(look, url)
    return looks


async def _look_at(session: aiohttp.ClientSession, url: str, allow_private: bool) -> Look:
    """Return the image's head, or the words for why there is none."""
    try:
        for _ in range(_REDIRECTS + 1):
            found = await _ask(session, url, allow_private)
            if not isinstance(found, str):
                return found
            url = found
    except PrivateAddressError as error:
        return (
            str(error),
            "images are fetched from the public web",
            "upload it, or use --allow-private-images",
        )
    except NotAnImageError as error:
        return f"it is {error}", "a JPEG, PNG or WebP is needed", "check the URL in a browser"
    except TimeoutError:
        return "no answer in time", "the vendor may not get it either", "check the URL in a browser"
    except (aiohttp.ClientError, ssl.SSLError, OSError, ValueError) as error:
        inner = _private_cause(error)
        if inner is not None:
            return (
                str(inner),
                "images are fetched from the public web",
                "upload it, or use --allow-private-images",
            )
        return (
            f"it cannot be reached ({type(error).__name__})",
            str(error)[:200],
            "check the URL in a browser",
        )
    return f"more than {_REDIRECTS} redirects", "it leads nowhere", "give the image's own URL"


def _private_cause(error: BaseException) -> PrivateAddressError | None:
    """Return the refusal that aiohttp wrapped into a connection error."""
    cause: BaseException | None = error
    for _ in range(5):
        if isinstance(cause, PrivateAddressError):
            return cause
        cause = getattr(cause, "os_error", None) or (cause.__cause__ if cause is not None else None)
    return None


async def _ask(session: aiohttp.ClientSession, url: str, allow_private: bool) -> Look | str:
    """Return what stands at `url`, or the URL it sends us to."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return f"it leads to {show(url)}", "that is not on the web", "give the image's own URL"
    if not allow_private:
        refuse_private_literal(parts.hostname)
    headers = {"Range": f"bytes=0-{_FIRST_BYTES - 1}"}
    proxy = proxy_for(URL(url), os.environ)
    THROUGH_A_PROXY.set(proxy is not None)
    way = way_through(proxy)
    async with session.get(url, headers=headers, allow_redirects=False, **way) as response:
        location = response.headers.get("Location")
        if response.status in {301, 302, 303, 307, 308} and location:
            return urljoin(url, location)
        if response.status not in {200, 206}:
            return (
                f"HTTP {response.status}",
                "the vendor will not get it either",
                "check the URL in a browser",
            )
        head, seen = await _read(response)
    if head is None and response.status == 206 and seen >= _FIRST_BYTES:
        headers = {"Range": f"bytes=0-{HEAD_BYTES - 1}"}
        async with session.get(url, headers=headers, allow_redirects=False, **way) as response:
            head, _ = await _read(response)
    return head or ("its size is not in its first bytes", "the file may be cut short", "check the image")


async def _read(response: aiohttp.ClientResponse) -> tuple[Head | None, int]:
    """Return the head as soon as the bytes that came so far show it, and how many those were."""
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        head = read_head(bytes(data))
        if head is not None or len(data) >= HEAD_BYTES:
            return head, len(data)
    if not data:
        raise NotAnImageError("an empty file")
    if len(data) < 12:
        raise NotAnImageError("no image that is known here")
    return None, len(data)


def _read_kept(file: Path | None) -> dict[str, Head]:
    if file is None:
        return {}
    try:
        rows = json.loads(file.read_bytes())
        fresh = {url: row for url, row in rows.items() if 0 <= time.time() - row["at"] < KEPT_S}
        return {url: Head(row["kind"], row["width"], row["height"]) for url, row in fresh.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _keep(file: Path | None, looks: Mapping[str, Look]) -> None:
    """Remember the good ones; a cache that cannot be written is no one's trouble."""
    if file is None:
        return
    rows = {url: {**asdict(look), "at": time.time()} for url, look in looks.items() if isinstance(look, Head)}
    part = file.with_suffix(f".{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(rows), encoding="utf-8")
        part.replace(file)
    except OSError:
        return
