"""Pictures as they come from cameras and phones -> what vendors take: an upright RGB JPEG or PNG.

Blocking; to be called in a worker thread. The original is only read. A picture that is right already is
taken as it is, byte for byte.
"""

from __future__ import annotations

import hashlib
import io
import re
import threading
from contextlib import contextmanager, nullcontext
from typing import IO, TYPE_CHECKING, Final

from PIL import Image, UnidentifiedImageError

from pipeline.errors import StoreError
from pipeline.extras import install_command
from pipeline.images.convert import (
    LARGE_PX,
    MAX_IMAGE_BYTES,
    MAX_SIDE_PX,
    ORIENTATION,
    convert,
    needed_ratio,
)
from pipeline.images.header import ImageInfo, NotAnImageError, read_image_info
from pipeline.images.prepared import (
    Fit,
    PictureError,
    PictureFault,
    Prepared,
    changed_meanwhile,
    unreadable,
)
from pipeline.manifest.fields import MediaKind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.manifest.local_files import LocalFile

MAX_PIXELS: Final = 400_000_000
Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow's own limit, a warning, is 89 megapixels
_PICTURE_TYPES: Final = {"JPEG": ("image/jpeg", "jpg"), "PNG": ("image/png", "png")}
_LARGE_LOCK: Final = threading.Lock()


def read_info(file: LocalFile) -> ImageInfo:
    """Return the type of a picture and its size as it is shown, from its header alone.

    Raises `PictureError` for what is no picture. A JPEG or PNG that ends too early is found here, too.
    """
    with _opened(file) as image:
        _check_end(file, image.format or "")
        width, height = image.size
        orientation = _orientation(image)
        if 5 <= orientation <= 8:  # these are turned by a quarter
            width, height = height, width
        return ImageInfo((image.format or "").lower(), width, height, upright=not 2 <= orientation <= 8)


def prepare(file: LocalFile, folder: Path, fit: Fit | None = None) -> Prepared:
    """Return the picture as it is sent; a converted one is written into `folder`.

    Raises `PictureError` for one that is broken, and for a file that is not what the manifest named any more,
    and `StoreError` when a converted one cannot be written.
    """
    # By its source: two pictures may become the same bytes, and each is removed when its own rows are sent.
    made = folder / f"{file.sha256}{_fit_suffix(fit) if fit else ''}"
    with _unchanged(file) as (source, size_bytes):
        if file.kind is MediaKind.VIDEO:
            found: tuple[str, str] | bytes = _video_type(source.read(64))
        else:
            with _opened(file, source) as image, _few_large(image):
                found = _as_it_is(image, size_bytes, fit) or convert(image, fit)
        if isinstance(found, tuple):
            path = file.path or _write(made, file.read())
            return Prepared(path, file.sha256, size_bytes, *found)
    _write(made, found)
    return Prepared(made, hashlib.sha256(found).hexdigest(), len(found), "image/jpeg", "jpg")


def _fit_suffix(fit: Fit) -> str:
    """Return what a file's name says of a fit; the aspect ratio is any text that the manifest has."""
    return f"-{fit.how}-{re.sub(r'[^A-Za-z0-9]', 'x', fit.aspect_ratio)[:20]}"


def thumbnail(file: LocalFile, side_px: int) -> bytes:
    """Return a small upright JPEG of a picture. Raises `PictureError` as `prepare` does."""
    with _unchanged(file) as (source, _), _opened(file, source) as image, _few_large(image):
        return convert(image, None, side_px)


@contextmanager
def _unchanged(file: LocalFile) -> Iterator[tuple[IO[bytes], int]]:
    """Open a file for reading, with its size; raise when it is not, or does not stay, what it was."""
    try:
        with file.path.open("rb") if file.path is not None else io.BytesIO(file.read()) as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
            size_bytes = source.tell()
            before = file.path.stat() if file.path is not None else None
            source.seek(0)
            if digest != file.sha256:
                raise changed_meanwhile()
            yield source, size_bytes
            if file.path is not None and before is not None:
                after = file.path.stat()
                if (after.st_mtime_ns, after.st_size) != (before.st_mtime_ns, before.st_size):
                    raise changed_meanwhile()
    except OSError as error:
        raise unreadable(error) from error


@contextmanager
def _few_large(image: Image.Image) -> Iterator[None]:
    """Let one large picture at a time be in memory: 100 megapixels take 400 MB."""
    with _LARGE_LOCK if image.width * image.height > LARGE_PX else nullcontext():
        yield


def _as_it_is(image: Image.Image, size_bytes: int, fit: Fit | None) -> tuple[str, str] | None:
    """Return the type and the extension of a picture that can be sent as it is, having read all of it."""
    if not _is_fine(image, size_bytes, fit):
        return None
    _decode_small(image)
    return _PICTURE_TYPES[image.format or ""]


def _video_type(data: bytes) -> tuple[str, str]:
    if data[4:8] == b"ftyp":
        return "video/mp4", "mp4"
    if data.startswith(b"\x1aE\xdf\xa3"):
        return "video/webm", "webm"
    raise PictureError("it is no video that is known here (MP4, MOV or WebM)")


@contextmanager
def _opened(file: LocalFile, source: IO[bytes] | None = None) -> Iterator[Image.Image]:
    """Open a picture; whatever its decoder raises is a `PictureError`."""
    _register_heif()
    try:
        with Image.open(source or file.path or io.BytesIO(file.read())) as image:
            _check_size(image)
            yield image
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError(_why_unknown(file)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError("it has too many pixels: 400 megapixels are the most") from error
    except Exception as error:  # decoders raise struct.error, TypeError, ZeroDivisionError, ... for odd files
        raise _decoder_error(error) from error


def _check_size(image: Image.Image) -> None:
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise PictureError(f"it has {pixels // 1_000_000} megapixels, and 400 are the most")
    if pixels == 0:
        raise PictureError("it is damaged: it has no pixels")


def _decoder_error(error: Exception) -> PictureError:
    """Return what an error of a decoder says of the picture, or of this machine."""
    if isinstance(error, MemoryError):
        return PictureError("this machine has not enough memory for it", PictureFault.TRANSIENT)
    if isinstance(error, OSError) and error.errno is not None:  # Pillow's own have none
        return unreadable(error)
    return PictureError(f"it is damaged: {str(error)[:200] or type(error).__name__}")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 where there is none. Raises `PictureError` for one that is no number.

    Programs differ in how they show that one, and the vendor is unknown: it is not paid for.
    """
    orientation = image.getexif().get(ORIENTATION, 1)
    if not isinstance(orientation, int):
        raise PictureError(
            f"its EXIF orientation is {str(orientation)[:40]!r}, which is no number from 1 to 8"
        )
    return orientation


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
    """Find a file that was cut short: its last part lacks the end marker, and it cannot be decoded.

    A phone's motion photo has its film behind the picture, so that the marker is far from the end.
    """
    marker = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}.get(kind)
    if marker is None:
        return
    if file.path is None:
        tail = file.read()[-65_536:]
    else:
        with file.path.open("rb") as opened:
            opened.seek(max(0, file.path.stat().st_size - 65_536))
            tail = opened.read()
    if marker in tail:
        return
    try:
        with _opened(file) as image:
            _decode_small(image)
    except PictureError as error:
        if error.kind is not PictureFault.PICTURE:
            raise
        raise PictureError("it is cut short: its end is missing") from error


def _is_fine(image: Image.Image, size_bytes: int, fit: Fit | None) -> bool:
    """Return whether a picture can be sent as it is."""
    return (
        image.format in _PICTURE_TYPES
        and image.mode in ("RGB", "L")
        and _orientation(image) == 1
        and "transparency" not in image.info
        and getattr(image, "n_frames", 1) == 1
        and size_bytes <= MAX_IMAGE_BYTES
        and max(image.size) <= MAX_SIDE_PX
        and needed_ratio(image.size, fit) is None
    )


def _decode_small(image: Image.Image) -> None:
    """Read all of a picture, to know that it is whole; a JPEG at an eighth of its size."""
    image.draft("RGB", (image.width // 8, image.height // 8))
    image.load()


def _write(path: Path, data: bytes) -> Path:
    """Write what travels to `path`, whole or not at all, and return the path."""
    unfinished = path.with_name(f"{path.name}.{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(data)
        return unfinished.replace(path)
    except OSError as error:
        raise StoreError(f"a converted picture cannot be written: {error.strerror}") from error
