"""Asks for the first bytes of every image that the jobs name, and says what is wrong with it.

Each URL is asked once, many at a time, and not again for a day. Unreachable, no image or smaller than
720p is a problem; a shape far from the one asked is a warning, since the vendor crops.
"""

from __future__ import annotations

import math
import os
import ssl
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import urljoin, urlsplit

import aiohttp
import anyio
from anyio import to_thread
from yarl import URL

from pipeline import clocks
from pipeline.errors import UsageError
from pipeline.images.header import ImageInfo, NotAnImageError, read_image_info
from pipeline.manifest.problems import Problem, ProblemText, format_value
from pipeline.net.http_session import make_session
from pipeline.net.json_cache import read_json, write_json
from pipeline.net.proxy import proxy_for, proxy_request_options
from pipeline.net.public_resolver import (
    RESOLVING_PROXY_HOST,
    PrivateAddressError,
    PublicResolver,
    reject_private_literal,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from pipeline.model import Job

MIN_SHORT_SIDE_PX: Final = 720
"""The vendor's schema: "Should be 720p or higher resolution"."""

MAX_HEADER_BYTES: Final = 1024 * 1024
"""A JPEG's size may stand behind a large EXIF block and a colour profile; beyond this it is given up."""

MAX_CONCURRENT_REQUESTS: Final = 16
CACHE_TTL_S: Final = 24 * 3600.0
_MAX_REDIRECTS: Final = 5
_FIRST_REQUEST_BYTES: Final = 64 * 1024
_ASPECT_RATIOS: Final = {"16:9": 16 / 9, "9:16": 9 / 16}
_MAX_ASPECT_LOG_RATIO: Final = math.log(1.35)
"""A 3:2 photo is near 16:9; a square and a portrait are not."""
_COMMON_FORMATS: Final = frozenset({"jpeg", "png", "webp"})

ImageResult: TypeAlias = ImageInfo | ProblemText
"""What was found at a URL: an image, or the problem text for why not."""


@dataclass(frozen=True, slots=True)
class ImageFindings:
    """All problems of the images, at the positions of the rows that name them; `bad` holds their ids."""

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
    """Check the image of each job; `file` is the manifest's name in messages.

    Good images are cached in `cache_file` for a day. `timeout_s` bounds each image. Raises nothing
    for the network's sake, and `UsageError` for a proxy that cannot be used.
    """
    cached = await to_thread.run_sync(_read_cache, cache_file)
    urls = {job.manifest_image for job in jobs if job.manifest_image}
    results: dict[str, ImageResult] = {url: head for url, head in cached.items() if url in urls}
    results |= await _fetch_all(urls - results.keys(), allow_private, timeout_s)
    await to_thread.run_sync(_write_cache, cache_file, results)
    return _collect_findings(jobs, file, results)


def _collect_findings(jobs: Iterable[Job], file: str, results: Mapping[str, ImageResult]) -> ImageFindings:
    problems: list[Problem] = []
    warnings: list[Problem] = []
    bad: set[str] = set()
    for job in jobs:
        result = results.get(job.manifest_image)
        if result is None:
            continue
        message = _find_problem(result)
        if message is not None:
            problems.append(
                Problem(
                    file,
                    job.line,
                    job.column,
                    f"image {format_value(job.manifest_image)}: {message[0]}",
                    *message[1:],
                )
            )
            bad.add(job.id)
        elif isinstance(result, ImageInfo):
            mismatches = find_warnings(result, job.body.get("aspect_ratio"))
            warnings += [
                Problem(
                    file, job.line, job.column, f"image {format_value(job.manifest_image)}: {d[0]}", *d[1:]
                )
                for d in mismatches
            ]
    return ImageFindings(tuple(problems), tuple(warnings), frozenset(bad))


def _find_problem(result: ImageResult) -> ProblemText | None:
    if not isinstance(result, ImageInfo):
        return result
    return size_problem(result)


def size_problem(info: ImageInfo) -> ProblemText | None:
    """Say that an image is too small, when it is."""
    if min(info.width, info.height) >= MIN_SHORT_SIDE_PX:
        return None
    size = f"it is {info.width}x{info.height}"
    instead = f"give one with a short side of {MIN_SHORT_SIDE_PX} pixels or more"
    return size, "the model needs 720p or more", instead


def find_warnings(info: ImageInfo, requested_ratio: object, *, converted: bool = False) -> list[ProblemText]:
    """Say what is odd about an image; one that will be `converted` may be of any format."""
    warnings: list[ProblemText] = []
    expected_ratio = _ASPECT_RATIOS.get(requested_ratio) if isinstance(requested_ratio, str) else None
    if (
        expected_ratio is not None
        and abs(math.log(info.width / info.height / expected_ratio)) > _MAX_ASPECT_LOG_RATIO
    ):
        what = f"it is {info.width}x{info.height}, far from {requested_ratio}"
        instead = "use --fit pad or --fit crop" if converted else "crop it, or ask for the other aspect_ratio"
        warnings.append((what, "much of it will be cut off", instead))
    if not converted and info.kind not in _COMMON_FORMATS:
        warnings.append((f"it is {info.kind.upper()}", "the vendor may not read that", "give a JPEG or PNG"))
    return warnings


async def _fetch_all(urls: Iterable[str], allow_private: bool, timeout_s: float) -> dict[str, ImageResult]:
    results: dict[str, ImageResult] = {}
    limiter = anyio.CapacityLimiter(MAX_CONCURRENT_REQUESTS)
    connector = aiohttp.TCPConnector(
        limit=MAX_CONCURRENT_REQUESTS, resolver=None if allow_private else PublicResolver()
    )
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    headers = {"User-Agent": "veobatch", "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}

    async def fetch_one(url: str) -> None:
        async with limiter:
            results[url] = await _fetch_image_info(session, url, allow_private)

    try:
        async with (
            make_session(headers, connector=connector, timeout=timeout) as session,
            anyio.create_task_group() as group,
        ):
            for url in urls:
                group.start_soon(fetch_one, url)
    except ExceptionGroup as errors:
        match errors.exceptions:
            case (UsageError() as error, *_):  # a proxy that cannot be used
                raise error from None
        raise
    return results


async def _fetch_image_info(session: aiohttp.ClientSession, url: str, allow_private: bool) -> ImageResult:
    """Return the image's header, or the problem text for why there is none."""
    try:
        for _ in range(_MAX_REDIRECTS + 1):
            result = await _request(session, url, allow_private)
            if not isinstance(result, str):
                return result
            url = result
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
        private_error = _private_cause(error)
        if private_error is not None:
            return (
                str(private_error),
                "images are fetched from the public web",
                "upload it, or use --allow-private-images",
            )
        return (
            f"it cannot be reached ({type(error).__name__})",
            str(error)[:200],
            "check the URL in a browser",
        )
    return f"more than {_MAX_REDIRECTS} redirects", "it leads nowhere", "give the image's own URL"


def _private_cause(error: BaseException) -> PrivateAddressError | None:
    """Return the refusal that aiohttp wrapped into a connection error."""
    cause: BaseException | None = error
    for _ in range(5):
        if isinstance(cause, PrivateAddressError):
            return cause
        cause = getattr(cause, "os_error", None) or (cause.__cause__ if cause is not None else None)
    return None


async def _request(session: aiohttp.ClientSession, url: str, allow_private: bool) -> ImageResult | str:
    """Return what stands at `url`, or the URL it sends us to."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return f"it leads to {format_value(url)}", "that is not on the web", "give the image's own URL"
    if not allow_private:
        reject_private_literal(parts.hostname)
    headers = {"Range": f"bytes=0-{_FIRST_REQUEST_BYTES - 1}"}
    proxy = proxy_for(URL(url), os.environ)
    RESOLVING_PROXY_HOST.set(proxy is not None)
    options = proxy_request_options(proxy)
    async with session.get(url, headers=headers, allow_redirects=False, **options) as response:
        location = response.headers.get("Location")
        if response.status in {301, 302, 303, 307, 308} and location:
            return urljoin(url, location)
        if response.status not in {200, 206}:
            return (
                f"HTTP {response.status}",
                "the vendor will not get it either",
                "check the URL in a browser",
            )
        info, received_bytes = await _read_header(response)
    if info is None and response.status == 206 and received_bytes >= _FIRST_REQUEST_BYTES:
        headers = {"Range": f"bytes=0-{MAX_HEADER_BYTES - 1}"}
        async with session.get(url, headers=headers, allow_redirects=False, **options) as response:
            info, _ = await _read_header(response)
    return info or ("its size is not in its first bytes", "the file may be cut short", "check the image")


async def _read_header(response: aiohttp.ClientResponse) -> tuple[ImageInfo | None, int]:
    """Return the head as soon as the bytes that came so far show it, and how many those were."""
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        info = read_image_info(bytes(data))
        if info is not None or len(data) >= MAX_HEADER_BYTES:
            return info, len(data)
    if not data:
        raise NotAnImageError("an empty file")
    if len(data) < 12:
        raise NotAnImageError("no image that is known here")
    return None, len(data)


def _read_cache(file: Path | None) -> dict[str, ImageInfo]:
    if file is None:
        return {}
    rows: Any = read_json(file)
    try:
        fresh = {url: row for url, row in rows.items() if 0 <= clocks.wall() - row["at"] < CACHE_TTL_S}
        return {url: ImageInfo(row["kind"], row["width"], row["height"]) for url, row in fresh.items()}
    except (KeyError, TypeError, AttributeError):
        return {}


def _write_cache(file: Path | None, results: Mapping[str, ImageResult]) -> None:
    """Remember the images that were found, for a day."""
    if file is None:
        return
    rows = {
        url: {**asdict(info), "at": clocks.wall()}
        for url, info in results.items()
        if isinstance(info, ImageInfo)
    }
    write_json(file, rows)
