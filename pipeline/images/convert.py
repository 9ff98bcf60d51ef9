"""A picture's pixels -> an upright 8-bit RGB JPEG, small enough for vendors, in the clip's shape if asked.

It must not know where a picture comes from, or what becomes of it.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageCms, ImageOps

if TYPE_CHECKING:
    from pipeline.images.prepared import Fit

MAX_IMAGE_BYTES: Final = 8_000_000
"""The lowest limit among those behind Veo: fal.ai's schema of Veo 3.1 says "up to 8MB"."""

MAX_SIDE_PX: Final = 4096
"""More than any model renders (1080p); a larger picture only costs time on the way."""

ENOUGH_PX: Final = 1440
"""What a picture that is converted keeps at least on either side, if it has that: clips have 1080."""

LARGE_PX: Final = 32_000_000
"""A picture with more pixels is converted by itself, and a band at a time."""

ORIENTATION: Final = 0x0112
_BAND_PX: Final = 256
_QUALITIES: Final = (95, 88, 80, 70)
ASPECT_RATIOS: Final = {"16:9": 16 / 9, "9:16": 9 / 16, "1:1": 1.0, "4:3": 4 / 3, "3:4": 3 / 4}
_SAME_SHAPE: Final = 0.01


def convert(image: Image.Image, fit: Fit | None, most_px: int | None = None) -> bytes:
    """Return the picture as a JPEG; it has not been decoded yet. Raises what its decoder raises."""
    image.seek(0)
    most_px = most_px or MAX_SIDE_PX
    enough_px = min(ENOUGH_PX, most_px)
    image.draft("RGB", (enough_px, enough_px))  # a JPEG of 12 megapixels takes a quarter of the memory
    picture = _upright_rgb(image)
    picture.thumbnail((most_px, most_px), reducing_gap=3.0)
    ratio = needed_ratio(picture.size, fit)
    if ratio is not None and fit is not None:
        picture = _fitted(picture, ratio, fit.how)
    for quality in _QUALITIES:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality, icc_profile=picture.info.get("icc_profile"))
        if file.tell() <= MAX_IMAGE_BYTES:
            break
    return file.getvalue()


def _upright_rgb(image: Image.Image) -> Image.Image:
    """Return a picture in 8-bit RGB, turned upright; a large one is halved, or more, a band at a time.

    A copy of all its pixels would double the memory: 100 megapixels take 400 MB once they are decoded.
    """
    scale = _grey_scale(image)
    factor = -(-max(image.size) // MAX_SIDE_PX)
    if image.width * image.height <= LARGE_PX or factor < 2:
        return _to_rgb(ImageOps.exif_transpose(image), scale)
    small = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    for top in range(0, image.height, _BAND_PX * factor):
        band = image.crop((0, top, image.width, min(image.height, top + _BAND_PX * factor)))
        band.info = image.info
        made = _to_rgb(band, scale)
        small.paste(made.reduce(factor), (0, top // factor))
    small.info = made.info
    small.getexif()[ORIENTATION] = image.getexif().get(ORIENTATION, 1)
    return ImageOps.exif_transpose(small)


def _grey_scale(image: Image.Image) -> float:
    """Return what takes a grey picture of more than 8 bits to 8: by its brightest pixel, 1.0 for others."""
    if not image.mode.startswith(("I", "F")):
        return 1.0
    bands = range(0, image.height, _BAND_PX)
    extrema = [
        image.crop((0, top, image.width, min(image.height, top + _BAND_PX))).convert("F").getextrema()
        for top in bands
    ]
    most = max(high for _, high in extrema if isinstance(high, float))
    return 255 / (65535.0 if most > 255 else 255.0 if most > 1 else 1.0)


def _to_rgb(image: Image.Image, scale: float) -> Image.Image:
    """Return a picture in 8-bit RGB: what is transparent becomes white, CMYK is translated."""
    if image.mode.startswith(("I", "F")):
        return image.convert("F").point(lambda value: value * scale + 0.0).convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    profile = image.info.get("icc_profile")
    if image.mode in ("CMYK", "LAB") and profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            made = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except ImageCms.PyCMSError:
            made = None
        if made is not None:
            made.info.pop("icc_profile", None)
            return made
    converted = image.convert("RGB")
    if image.mode not in ("RGB", "P"):
        converted.info.pop("icc_profile", None)  # it describes the colours of before
    return converted


def _fitted(picture: Image.Image, ratio: float, how: str) -> Image.Image:
    width, height = picture.size
    wider = width / height > ratio
    if how == "crop":
        size = (round(height * ratio), height) if wider else (width, round(width / ratio))
        return ImageOps.fit(picture, size)
    size = (width, round(width / ratio)) if wider else (round(height * ratio), height)
    return ImageOps.pad(picture, size)


def needed_ratio(size: tuple[int, int], fit: Fit | None) -> float | None:
    """Return the shape that a picture has to be brought to, None when it has it."""
    ratio = ASPECT_RATIOS.get(fit.aspect_ratio) if fit is not None else None
    return None if ratio is None or abs(size[0] / size[1] / ratio - 1) <= _SAME_SHAPE else ratio
