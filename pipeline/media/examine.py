"""Judge one downloaded file: is it a video, of which kind, and what is to be said about it.

A usual player's judgement counts: whatever it shows is a video, and anything odd about it is a warning.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from pipeline.media.containers import HEAD_BYTES, container_extension
from pipeline.media.mp4 import Structure, UnplayableVideo, check_structure, displayed_size, is_encrypted
from pipeline.media.probe import ProbeResult, UndecodableVideo, probe_video
from pipeline.model import Media

if TYPE_CHECKING:
    from collections.abc import Iterator


_EXTENSIONS: Final = {
    "mov": "mp4",
    "matroska": "mkv",
    "mpegts": "ts",
    "asf": "wmv",
    "mpeg": "mpg",
    "ogg": "ogv",
}
"""For files that begin like no known container: libav's name of the format, where it is no extension."""


@dataclass(frozen=True, slots=True)
class Examination:
    """A file that plays. `extension` is its container's; `media` is None when streams were not examined.

    `poster` is a JPEG or b"". `defects` describes damage that another fetch might mend, "" for none.
    """

    extension: str
    media: Media | None
    poster: bytes
    defects: str


def examine(source: Path | BinaryIO, size_bytes: int, *, decode: bool) -> Examination:
    """Examine a whole file. Blocks. With `decode` its streams are decoded and a poster is made.

    Raises `UnplayableVideo` for what no player shows.
    """
    with _opened(source) as file:
        file.seek(0)
        extension = container_extension(file.read(HEAD_BYTES))
        structure = check_structure(file, size_bytes) if extension in ("mp4", "mov") else Structure()
        if not decode:
            if not extension:
                raise UnplayableVideo("the file begins like no video")
            return Examination(extension, None, b"", structure.defects)
        result = _probe(source, file, size_bytes, extension)
    extension = extension or _EXTENSIONS.get(result.container, result.container)
    media = replace(result.media, warnings=(*structure.warnings, *result.media.warnings))
    defects = ", ".join(filter(None, (structure.defects, result.defects)))
    return Examination(extension, media, result.poster, defects)


def _probe(source: Path | BinaryIO, file: BinaryIO, size_bytes: int, extension: str) -> ProbeResult:
    """Probe the streams; a file that only this machine cannot decode still counts as a video."""
    is_mp4 = extension in ("mp4", "mov")
    encrypted = is_mp4 and is_encrypted(file, size_bytes)
    try:
        result = probe_video(source)
    except UnplayableVideo as error:
        if not encrypted and not (extension and isinstance(error, UndecodableVideo)):
            raise
        media = error.media if isinstance(error, UndecodableVideo) else Media(0.0, 0, 0, 0.0, has_audio=False)
        if is_mp4 and not media.width:
            width, height = displayed_size(file, size_bytes)
            media = replace(media, width=width, height=height)
        result = ProbeResult(media, container="", defects="")
        reason = "the video is encrypted" if encrypted else str(error)
    else:
        reason = "the video is encrypted" if encrypted else ""
    if not reason:
        return result
    warnings = (*result.media.warnings, f"not checked: {reason}")
    return replace(result, media=replace(result.media, warnings=warnings), defects="")


@contextmanager
def _opened(source: Path | BinaryIO) -> Iterator[BinaryIO]:
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield file
    else:
        yield source
