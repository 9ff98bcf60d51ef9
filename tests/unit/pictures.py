"""Pictures of every kind that cameras and programs write, drawn in a moment.

Each shows the same scene: red at the top left, green at the top right, blue at the bottom left, white at the
bottom right, so that a test sees whether it came out upright and in its colours.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageCms, PngImagePlugin

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

Rgb = tuple[int, int, int]

RED: Final[Rgb] = (220, 30, 30)
GREEN: Final[Rgb] = (30, 200, 30)
BLUE: Final[Rgb] = (30, 30, 220)
WHITE: Final[Rgb] = (240, 240, 240)
CORNERS: Final = (RED, GREEN, BLUE, WHITE)


def scene(width: int = 640, height: int = 360, corners: Sequence[Rgb] = CORNERS) -> Image.Image:
    """The scene, in RGB."""
    small = Image.new("RGB", (2, 2))
    small.putdata(list(corners))
    return small.resize((width, height), Image.Resampling.NEAREST)


def corners_of(image: Image.Image) -> list[Rgb]:
    """The colours in the middle of the four quarters."""
    rgb, (width, height) = image.convert("RGB"), image.size
    places = [(x * width // 4, y * height // 4) for y in (1, 3) for x in (1, 3)]
    found: list[Rgb] = []
    for place in places:
        pixel = rgb.getpixel(place)
        assert isinstance(pixel, tuple)
        found.append((int(pixel[0]), int(pixel[1]), int(pixel[2])))
    return found


def are_alike(found: Sequence[Rgb], wanted: Sequence[Rgb] = CORNERS, within: int = 40) -> bool:
    return all(
        abs(a - b) <= within
        for one, two in zip(found, wanted, strict=True)
        for a, b in zip(one, two, strict=True)
    )


def _save(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned_jpeg(orientation: int, size: tuple[int, int] = (640, 360)) -> bytes:
    """A JPEG whose pixels lie as a camera held that way writes them, with the EXIF that says so."""
    undo: dict[int, Callable[[Image.Image], Image.Image]] = {
        1: lambda image: image,
        2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
        4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _save(undo[orientation](scene(*size)), "JPEG", exif=exif, quality=95)


def picture_bytes(kind: str, size: tuple[int, int] = (640, 360)) -> bytes:
    """The scene as a file of one of `KINDS`."""
    image = scene(*size)
    if kind.startswith("turned-"):
        return turned_jpeg(int(kind.removeprefix("turned-")), size)
    if kind == "heic":
        from pillow_heif import register_heif_opener

        register_heif_opener()
        return _save(image, "HEIF", quality=95)
    if kind == "transparent":
        alpha = Image.new("L", image.size, 255)
        alpha.paste(0, (image.width // 2, image.height // 2, image.width, image.height))
        image.putalpha(alpha)
        return _save(image, "PNG")
    if kind == "animated-gif":
        return _save(image, "GIF", save_all=True, append_images=[scene(*size, corners=[BLUE] * 4)])
    if kind == "animated-png":
        return _save(image, "PNG", save_all=True, append_images=[scene(*size, corners=[BLUE] * 4)])
    if kind == "mpo":
        return _save(image, "MPO", save_all=True, append_images=[scene(*size, corners=[BLUE] * 4)])
    if kind == "grey-16":
        return _save(
            image.convert("L").convert("I").point(lambda value: value * 257 + 0).convert("I;16"), "PNG"
        )
    if kind == "profile":
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        return _save(image, "JPEG", icc_profile=profile, quality=95)
    if kind == "text-chunk":
        info = PngImagePlugin.PngInfo()
        info.add_text("Comment", "x" * 1000)
        return _save(image, "PNG", pnginfo=info)
    saves: dict[str, tuple[Image.Image, str]] = {
        "jpeg": (image, "JPEG"),
        "png": (image, "PNG"),
        "grey": (image.convert("L"), "JPEG"),
        "webp": (image, "WEBP"),
        "avif": (image, "AVIF"),
        "tiff": (image, "TIFF"),
        "bmp": (image, "BMP"),
        "cmyk-jpeg": (image.convert("CMYK"), "JPEG"),
        "cmyk-tiff": (image.convert("CMYK"), "TIFF"),
        "palette": (image.quantize(16), "PNG"),
        "gif": (image, "GIF"),
        "bilevel": (image.convert("1"), "TIFF"),
    }
    picture, format_name = saves[kind]
    return _save(picture, format_name)


KINDS: Final = (
    *(f"turned-{orientation}" for orientation in range(2, 9)),
    "jpeg", "png", "grey", "webp", "avif", "tiff", "bmp", "cmyk-jpeg", "cmyk-tiff", "palette", "gif",
    "bilevel", "mpo", "heic", "transparent", "animated-gif", "animated-png", "grey-16", "profile",
    "text-chunk",
)  # fmt: skip

GREY_KINDS: Final = frozenset({"grey", "grey-16", "bilevel"})


def jpeg_with_exif(entries: Sequence[tuple[int, int, int, bytes]], size: tuple[int, int]) -> bytes:
    """A JPEG with EXIF entries as a program wrote them: (tag, type, count, the value's up to four bytes)."""
    packed = [struct.pack("<HHI4s", *entry) for entry in entries]
    tiff = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(packed) + struct.pack("<I", 0)
    return _save(scene(*size), "JPEG", exif=b"Exif\0\0" + tiff, quality=95)


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def odd_picture(name: str, size: tuple[int, int] = (1280, 720)) -> bytes:
    """One of `ODD_PICTURES`: files for which Pillow raises neither an `OSError` nor a `ValueError`."""
    if name == "resolution-unit":
        turned = (0x0112, 3, 1, struct.pack("<H", 6))
        return jpeg_with_exif([turned, (0x0128, 4, 1, struct.pack("<I", 70_000))], size)
    if name == "orientation-text":
        return jpeg_with_exif([(0x0112, 2, 2, b"6\0")], size)
    png = _save(scene(*size), "PNG")
    if name == "short-exif":
        at = png.index(b"IDAT") - 4
        return png[:at] + _png_chunk(b"eXIf", b"II*\0\x08") + png[at:]
    side = {"huge": (40_000, 30_000), "empty": (0, 720)}[name]
    return png[:8] + _png_chunk(b"IHDR", struct.pack(">IIBBBBB", *side, 8, 2, 0, 0, 0)) + png[33:]


ODD_PICTURES: Final = ("resolution-unit", "orientation-text", "huge", "short-exif", "empty")
ODD_HEADERS: Final = ODD_PICTURES[1:]
"""Those of which the header alone shows that they will not do."""


def write_picture(path: Path, kind: str = "jpeg", size: tuple[int, int] = (640, 360)) -> Path:
    """Write the scene to `path`, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture_bytes(kind, size))
    return path
