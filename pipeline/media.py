"""Is this a playable video, how long, how large, with sound; and one picture of it.

Owns everything about PyAV. It blocks: call it in a thread (libav releases the GIL while it works). It
knows no network, no rows and no file names.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from pipeline.model import Media

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

POSTER_WIDTH: Final = 480
DURATION_TOLERANCE_S: Final = 0.5
VEO: Final = "google/veo-3.1-i2v-fast"
VEO_DEFAULTS: Final = {"duration": 8, "resolution": "1080p", "generate_audio": True}
"""What the vendor makes of fields that were left out; known for this model only."""

_DARK: Final = 24.0
"""Mean luma (0-255) under which a frame counts as black; video black is 16."""
_TOP_BOXES: Final = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp", b"pnot"})


class NotPlayable(Exception):
    """The bytes are not a whole, playable video; the message says what is wrong with them."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look into a file found; `poster` is a JPEG, empty when none was asked for."""

    media: Media
    poster: bytes = b""


def outline(source: Path | BinaryIO, size_bytes: int) -> None:
    """Walk the top-level boxes of an MP4 and see that they add up to the file (ISO/IEC 14496-12, 4.2).

    Needs no decoder and reads a few bytes a box. Raises `NotPlayable` for anything but an MP4 or
    QuickTime file whose index and data are there to the last byte.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            return outline(file, size_bytes)
    seen = set()
    for kind, start, size in _boxes(source, size_bytes):
        if start + size > size_bytes:
            raise NotPlayable(
                f"the file is cut off: {start + size - size_bytes} bytes are missing at its end"
            )
        seen.add(kind)
    missing = {b"moov", b"mdat", b"moof"} - seen
    if b"moov" in missing or {b"mdat", b"moof"} <= missing:
        raise NotPlayable("the file holds no video: its index or its data is missing")
    return None


def _boxes(file: BinaryIO, size_bytes: int) -> Iterator[tuple[bytes, int, int]]:
    start = 0
    while start < size_bytes:
        file.seek(start)
        head = bytes(file.read(16))
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if start == 0 and kind not in _TOP_BOXES:
            raise NotPlayable(f"this is no MP4: it begins with {head[:12]!r}")
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        elif size == 0:
            size = size_bytes - start
        if size < 8:
            raise NotPlayable(f"the file is damaged at byte {start}")
        yield kind, start, size
        start += size


def probe(source: Path | BinaryIO) -> Media:
    """Open, index and decode enough of the file to know that it plays. Raises `NotPlayable`."""
    return look(source, poster=False).media


def poster(source: Path | BinaryIO) -> bytes:
    """A JPEG, 480 px wide, of a frame that is not black if there is one. Raises `NotPlayable`."""
    return look(source).poster


def look(source: Path | BinaryIO, *, poster: bool = True) -> Look:
    """`probe` and `poster` in one pass over the file. Raises `NotPlayable`."""
    import av

    try:
        with av.open(str(source) if isinstance(source, Path) else source, "r") as container:
            return _look(container, poster)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise NotPlayable(f"no player can read it: {error}") from error


def _look(container: InputContainer, wanted: bool) -> Look:
    if not container.streams.video:
        raise NotPlayable("it has no video stream")
    stream = container.streams.video[0]
    media = _facts(container, stream)
    best: VideoFrame | None = None
    light = -1.0
    for frame in _samples(container, stream, media.duration_s):
        brightness = _brightness(frame)
        if brightness > light:
            best, light = frame, brightness
        if light >= _DARK and wanted:
            break
    if best is None:
        raise NotPlayable("not one frame of it can be decoded")
    return Look(media, _jpeg(best) if wanted else b"")


def _facts(container: InputContainer, stream: VideoStream) -> Media:
    rate = stream.average_rate or stream.guessed_rate
    audio = container.streams.audio
    return Media(
        duration_s=round(_duration_s(container, stream), 3),
        width=stream.codec_context.width,
        height=stream.codec_context.height,
        fps=round(float(rate), 3) if rate else 0.0,
        has_audio=bool(audio),
        video_codec=stream.codec_context.name,
        audio_codec=audio[0].codec_context.name if audio else "",
    )


def _duration_s(container: InputContainer, stream: VideoStream) -> float:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / 1_000_000 if container.duration is not None else 0.0


def _samples(container: InputContainer, stream: VideoStream, duration_s: float) -> Iterator[VideoFrame]:
    """The first frame, then some from further on."""
    yield from _frame_at(container, stream, 0.0)
    for share in (0.25, 0.5, 0.75):
        yield from _frame_at(container, stream, duration_s * share)


def _frame_at(container: InputContainer, stream: VideoStream, at_s: float) -> Iterator[VideoFrame]:
    if at_s > 0:
        container.seek(int(at_s * 1_000_000))
    for frame in container.decode(stream):
        yield frame
        return


def _brightness(frame: VideoFrame) -> float:
    small = frame.reformat(width=32, height=18, format="gray")
    plane = bytes(small.planes[0])
    return sum(plane) / len(plane)


def _jpeg(frame: VideoFrame) -> bytes:
    from PIL import Image

    height = max(2, round(frame.height * POSTER_WIDTH / frame.width / 2) * 2)
    plane = frame.reformat(width=POSTER_WIDTH, height=height, format="rgb24").planes[0]
    size = (POSTER_WIDTH, height)
    image = Image.frombuffer("RGB", size, bytes(plane), "raw", "RGB", plane.line_size, 1)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=82)
    return out.getvalue()


def compare(media: Media, body: Mapping[str, Any]) -> tuple[str, ...]:
    """Say where the video differs from what `body` (the create's fields) asked for; words, not failures.

    What was left out is compared with the vendor's defaults for the model we know, and with nothing
    for any other.
    """
    asked = {**(VEO_DEFAULTS if body.get("model") == VEO else {}), **body}
    return tuple(
        words
        for words in (
            _wrong_duration(media, asked.get("duration")),
            _wrong_resolution(media, asked.get("resolution")),
            _wrong_aspect(media, asked.get("aspect_ratio")),
            _wrong_sound(media, asked.get("generate_audio")),
        )
        if words
    )


def checked(media: Media, body: Mapping[str, Any]) -> Media:
    """`media` with the warnings of `compare` added to its own."""
    return replace(media, warnings=media.warnings + compare(media, body))


def _wrong_duration(media: Media, asked: object) -> str:
    try:
        seconds = float(str(asked).removesuffix("s"))
    except ValueError:
        return ""
    if abs(media.duration_s - seconds) <= DURATION_TOLERANCE_S:
        return ""
    return f"{media.duration_s:.1f} s long, {seconds:g} s asked"


def _wrong_resolution(media: Media, asked: object) -> str:
    text = str(asked).lower()
    lines = {"2k": 1440, "4k": 2160}.get(text) or (
        int(text[:-1]) if text[:-1].isdigit() and text[-1] == "p" else 0
    )
    if not lines or min(media.width, media.height) == lines:
        return ""
    return f"{media.width}x{media.height}, {text} asked"


def _wrong_aspect(media: Media, asked: object) -> str:
    wide, colon, high = str(asked).partition(":")
    if not (colon and wide.isdigit() and high.isdigit() and int(wide) and int(high) and media.height):
        return ""
    ratio = int(wide) / int(high)
    if abs(media.width / media.height / ratio - 1) <= 0.02:
        return ""
    return f"{media.width}x{media.height}, {asked} asked"


def _wrong_sound(media: Media, asked: object) -> str:
    if not isinstance(asked, bool) or asked == media.has_audio:
        return ""
    return "no sound, sound asked" if asked else "with sound, none asked"
