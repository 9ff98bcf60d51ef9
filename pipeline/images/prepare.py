"""Pictures as they come from cameras and phones -> what vendors take: an upright RGB JPEG or PNG.

Blocking; to be called in a worker thread. The original is only read. A picture that is right already is
taken as it is, byte for byte.
"""

from __future__ import annotations

import hashlib
import io
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from pipeline.extras import install_command
from pipeline.images.header import ImageInfo, NotAnImageError, read_image_info
from pipeline.images.prepared import Fit, PictureError, PictureTrouble, Prepared
from pipeline.manifest.fields import MediaKind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.manifest.local_files import LocalFile

MAX_IMAGE_BYTES: Final = 8_000_000
"""The lowest limit among those behind Veo: fal.ai's schema of Veo 3.1 says "up to 8MB"."""

MAX_SIDE_PX: Final = 4096
"""More than any model renders (1080p); a larger picture only costs time on the way."""

_ENOUGH_PX: Final = 1440
"""What a picture that is converted keeps at least on either side, if it has that: clips have 1080."""

MAX_PIXELS: Final = 400_000_000
Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow's own limit, a warning, is 89 megapixels
_QUALITIES: Final = (95, 88, 80, 70)
_PICTURE_TYPES: Final = {"JPEG": ("image/jpeg", "jpg"), "PNG": ("image/png", "png")}
ASPECT_RATIOS: Final = {"16:9": 16 / 9, "9:16": 9 / 16, "1:1": 1.0, "4:3": 4 / 3, "3:4": 3 / 4}
_SAME_SHAPE: Final = 0.01


def read_info(file: LocalFile) -> ImageInfo:
    """Return the type of a picture and its size as it is shown, from its header alone.

    Raises `PictureError` for what is no picture. A JPEG or PNG that ends too early is found here, too.
    """
    with _opened(file) as image:
        _check_end(file, image.format or "")
        width, height = image.size
        if image.getexif().get(0x0112, 1) >= 5:  # EXIF orientations 5 to 8 are turned by a quarter
            width, height = height, width
        return ImageInfo((image.format or "").lower(), width, height)


def prepare(file: LocalFile, folder: Path, fit: Fit | None = None) -> Prepared:
    """Return the picture as it is sent; a converted one is written into `folder`.

    Raises `PictureError` for one that is broken, and for a file that is not what the manifest named any more.
    """
    data = _read_unchanged(file)
    # By its source: two pictures may become the same bytes, and each is removed when its own rows are sent.
    made = folder / f"{file.sha256}{f'-{fit.how}-{fit.aspect_ratio}'.replace(':', 'x') if fit else ''}"
    if file.kind is MediaKind.VIDEO:
        content_type, extension = _video_type(data)
        return _keep(file.path or made, data, content_type, extension)
    with _opened(file, data) as image:
        if _is_fine(image, len(data), fit):
            content_type, extension = _PICTURE_TYPES[image.format or ""]
            _decode_small(image)
            return _keep(file.path or made, data, content_type, extension)
        data = _convert(image, fit)
    return _keep(made, data, "image/jpeg", "jpg")


def _read_unchanged(file: LocalFile) -> bytes:
    try:
        data = file.read()
    except OSError as error:
        raise PictureError(f"it cannot be read: {error.strerror}", PictureTrouble.TRANSIENT) from error
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise PictureError("it was changed while the run was going on", PictureTrouble.TRANSIENT)
    return data


def _video_type(data: bytes) -> tuple[str, str]:
    if data[4:8] == b"ftyp":
        return "video/mp4", "mp4"
    if data.startswith(b"\x1aE\xdf\xa3"):
        return "video/webm", "webm"
    raise PictureError("it is no video that is known here (MP4, MOV or WebM)")


@contextmanager
def _opened(file: LocalFile, data: bytes | None = None) -> Iterator[Image.Image]:
    """Open a picture; whatever its decoder raises is a `PictureError`."""
    _register_heif()
    source = io.BytesIO(data) if data is not None else file.path or io.BytesIO(file.read())
    try:
        with Image.open(source) as image:
            if image.width * image.height > MAX_PIXELS:
                megapixels = image.width * image.height // 1_000_000
                raise PictureError(f"it has {megapixels} megapixels, and 400 are the most")
            yield image
    except UnidentifiedImageError as error:
        raise PictureError(_why_unknown(file)) from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        raise PictureError(f"it is damaged: {str(error)[:200]}") from error


def _register_heif() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return
    register_heif_opener()


def _why_unknown(file: LocalFile) -> str:
    head = file.read()[:64]
    try:
        info = read_image_info(head + bytes(64))
    except NotAnImageError as error:
        return f"it is {error}"
    kind = info.kind.upper() if info is not None else "HEIC" if head[4:8] == b"ftyp" else ""
    if kind in ("HEIC", "AVIF"):
        return f"reading {kind} needs more packages: {install_command('images')}"
    return "it is damaged, or no picture that is known here"


def _check_end(file: LocalFile, kind: str) -> None:
    """Find a file that was cut short, without decoding it: the end marker has to be in its last part."""
    marker = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}.get(kind)
    if marker is None:
        return
    if file.path is None:
        tail = file.read()[-65_536:]
    else:
        with file.path.open("rb") as opened:
            opened.seek(max(0, file.path.stat().st_size - 65_536))
            tail = opened.read()
    if marker not in tail:
        raise PictureError("it is cut short: its end is missing")


def _is_fine(image: Image.Image, size_bytes: int, fit: Fit | None) -> bool:
    """Tell whether a picture can be sent as it is."""
    return (
        image.format in _PICTURE_TYPES
        and image.mode in ("RGB", "L")
        and image.getexif().get(0x0112, 1) == 1
        and "transparency" not in image.info
        and getattr(image, "n_frames", 1) == 1
        and size_bytes <= MAX_IMAGE_BYTES
        and max(image.size) <= MAX_SIDE_PX
        and _needed_fit(image.size, fit) is None
    )


def _needed_fit(size: tuple[int, int], fit: Fit | None) -> float | None:
    """Return the shape that a picture has to be brought to, None when it has it."""
    ratio = ASPECT_RATIOS.get(fit.aspect_ratio) if fit is not None else None
    return None if ratio is None or abs(size[0] / size[1] / ratio - 1) <= _SAME_SHAPE else ratio


def _decode_small(image: Image.Image) -> None:
    """Read all of a picture, to know that it is whole; a JPEG at an eighth of its size."""
    image.draft("RGB", (image.width // 8, image.height // 8))
    image.load()


def _convert(image: Image.Image, fit: Fit | None) -> bytes:
    image.seek(0)
    image.draft("RGB", (_ENOUGH_PX, _ENOUGH_PX))  # a JPEG of 12 megapixels takes a quarter of the memory
    picture = _to_rgb(ImageOps.exif_transpose(image))
    picture.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), reducing_gap=3.0)
    ratio = _needed_fit(picture.size, fit)
    if ratio is not None and fit is not None:
        picture = _fitted(picture, ratio, fit.how)
    for quality in _QUALITIES:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality, icc_profile=picture.info.get("icc_profile"))
        if file.tell() <= MAX_IMAGE_BYTES:
            break
    return file.getvalue()


def _to_rgb(image: Image.Image) -> Image.Image:
    """Return a picture in 8-bit RGB: what is transparent becomes white, CMYK is translated."""
    if image.mode.startswith(("I", "F")):
        _, high = image.convert("F").getextrema()
        most = high if isinstance(high, float) else 255.0
        scale = 255 / (65535.0 if most > 255 else 255.0 if most > 1 else 1.0)
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


def _keep(path: Path, data: bytes, content_type: str, extension: str) -> Prepared:
    """Return what travels; it is written to `path` when it is not there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return Prepared(path, hashlib.sha256(data).hexdigest(), len(data), content_type, extension)
