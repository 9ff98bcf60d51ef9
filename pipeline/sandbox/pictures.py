"""Pictures that come with a create: read as the vendor reads them, and kept small for the clip.

`data:` URIs are decoded; links are fetched only where the options say so, since the sandbox is offline.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
from typing import TYPE_CHECKING, Any, Final

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Mapping

MIN_SHORT_SIDE_PX: Final = 720
MAX_PICTURE_BYTES: Final = 32 * 1024 * 1024
_KEPT_SIDE_PX: Final = 320
_PREFIX: Final = "data:image/jpeg;base64,"


class PictureRefusedError(ValueError):
    """A picture that no clip can be made of; the message names the field."""


async def with_small_pictures(body: Mapping[str, Any], *, fetches_links: bool) -> dict[str, Any]:
    """Return a create's body with its pictures made small.

    Raises `PictureRefusedError` for one that cannot be read or has a short side of less than 720 pixels.
    """
    small = dict(body)
    for name, value in body.items():
        if not (isinstance(value, str) and "image" in name):
            continue
        if value.startswith("data:"):
            small[name] = await asyncio.to_thread(_small, name, _decoded(name, value))
        elif fetches_links and value.startswith("http"):
            small[name] = await asyncio.to_thread(_small, name, await _fetched(name, value))
    return small


def picture_of(body: Mapping[str, Any]) -> bytes:
    """Return the small JPEG that a body was left with, b"" when it has none."""
    value = str(body.get("image_url", ""))
    return base64.b64decode(value.removeprefix(_PREFIX)) if value.startswith(_PREFIX) else b""


def _decoded(name: str, value: str) -> bytes:
    head, _, data = value.partition(",")
    try:
        return base64.b64decode(data if head.endswith(";base64") else "%", validate=True)
    except (binascii.Error, ValueError) as error:
        raise PictureRefusedError(f"{name} must be a valid Base64-encoded image") from error


async def _fetched(name: str, url: str) -> bytes:
    try:
        timeout = aiohttp.ClientTimeout(20)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
            if response.status != 200:
                raise PictureRefusedError(f"{name} could not be downloaded: HTTP {response.status}")
            data = bytearray()
            async for chunk in response.content.iter_any():
                data += chunk
                if len(data) > MAX_PICTURE_BYTES:
                    raise PictureRefusedError(f"{name} is larger than {MAX_PICTURE_BYTES // 2**20} MB")
            return bytes(data)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise PictureRefusedError(f"{name} could not be downloaded: {type(error).__name__}") from error


def _small(name: str, data: bytes) -> str:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            if min(width, height) < MIN_SHORT_SIDE_PX:
                raise PictureRefusedError(f"{name} is {width}x{height}: it must be 720p or more")
            image.draft("RGB", (_KEPT_SIDE_PX, _KEPT_SIDE_PX))
            picture = image.convert("RGB")  # EXIF is not heeded: what arrives turned is shown turned
    except (OSError, SyntaxError) as error:
        raise PictureRefusedError(f"{name} could not be read as an image") from error
    picture.thumbnail((_KEPT_SIDE_PX, _KEPT_SIDE_PX))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=75)
    return _PREFIX + base64.b64encode(file.getvalue()).decode("ascii")
