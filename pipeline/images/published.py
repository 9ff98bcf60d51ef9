"""Pictures that are on the web already: where each is, below the address that the user gives."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import aiohttp

from pipeline.images.prepared import PictureError, PictureFault, unreadable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.manifest.local_files import LocalFile


async def find_published(session: aiohttp.ClientSession, base_url: str, file: LocalFile) -> str:
    """Return the address at which a HEAD finds a file of the same size.

    Raises `PictureError` when there is none, or when another file is there.
    """
    if not file.relative:
        raise PictureError("it is no file of its own: it has no place below --image-base-url")
    urls = published_urls(base_url, file.relative)
    if file.shared_folder:
        urls += published_urls(base_url, f"{file.shared_folder}/{file.relative}")
    answers = []
    for url in dict.fromkeys(urls):
        status, size_bytes = await _head(session, url)
        if 200 <= status < 300:
            actual = _size_on_disk(file.path) if file.path is not None else size_bytes
            if size_bytes is not None and size_bytes != actual:
                raise PictureError(f"{url} has {size_bytes:,} bytes, the file {actual:,}: publish it again")
            return url
        answers.append(f"{url} answers {status}")
    raise PictureError(f"it is not published: {', '.join(answers)}")


def _size_on_disk(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise unreadable(error) from error


def with_places(files: Mapping[str, LocalFile]) -> Mapping[str, LocalFile]:
    """Return the files, those outside the manifest's folder with their paths from the folder they share.

    That is how they are published, such as the pictures of `veobatch run FOLDER`, whose manifest is kept
    elsewhere.
    """
    outside = {
        sha256: file.path.resolve()
        for sha256, file in files.items()
        if file.path is not None and not file.relative
    }
    try:
        folder = Path(os.path.commonpath([path.parent for path in outside.values()]))
    except ValueError:  # there are none, or they are on several drives
        return files
    found = {
        sha256: replace(
            files[sha256], relative=path.relative_to(folder).as_posix(), shared_folder=folder.name or "/"
        )
        for sha256, path in outside.items()
    }
    return {**files, **found}


def published_urls(base_url: str, relative: str) -> list[str]:
    """Return where a path may be below a base: as it is, or without the folders that the base ends with."""
    base, parts = base_url.rstrip("/"), relative.split("/")
    ends = [number for number in range(1, len(parts)) if base.endswith("/" + quote("/".join(parts[:number])))]
    skipped = [*reversed(ends), 0]
    return [f"{base}/{quote('/'.join(parts[number:]))}" for number in skipped]


async def _head(session: aiohttp.ClientSession, url: str) -> tuple[int, int | None]:
    """Return the status and the size that a HEAD answers with, None for a size that is not said."""
    try:
        headers = {"Accept-Encoding": "identity"}
        async with session.head(url, allow_redirects=True, headers=headers) as response:
            return response.status, response.content_length
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        message = f"{url} cannot be reached: {type(error).__name__}"
        raise PictureError(message, PictureFault.TRANSIENT) from error
