"""Encodes the moving part of a clip once for all clips of its size.

The body is the loop's first frame as a picture and all later frames as packets that predict only from
the frame before. A clip is then one freshly encoded first frame, with its own words in the band, followed
by those same packets: they say of the band nothing but "as before", so the words stand still through the
loop, and a clip costs one encoded frame instead of two hundred.

That holds because of three choices. While the body is encoded the band is full of noise, so no motion
vector finds anything in it but itself. From the second frame on its source is what a decoder makes of the
first, so nothing is left to correct. And the quantiser is constant with all look-ahead off, so the rows above
the band are encoded alike whatever the band holds.
"""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

import av
from PIL import Image

from pipeline.sandbox.film.packets import Piece, open_scratch, pieces_of
from pipeline.sandbox.film.scene import LOOP_S, paint

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

    from pipeline.sandbox.film.shape import Picture

X264: Final = ":".join(
    (
        "qp=21:ipratio=1.4:bframes=0:ref=1:scenecut=0:keyint=infinite:min-keyint=1:weightp=0",
        "aq-mode=0:mbtree=0:rc-lookahead=0:sync-lookahead=0:psy=0:sliced-threads=0:threads=2",
        "colorprim=bt709:transfer=bt709:colormatrix=bt709",
    )
)


@dataclass(frozen=True, slots=True)
class Body:
    """The loop's first frame as RGB (its band is still empty) and the packets of all later frames."""

    opening: Image.Image
    later: tuple[Piece, ...]


def add_video_stream(container: OutputContainer, picture: Picture) -> VideoStream:
    """A stream whose encoder makes frames that fit a body of that picture."""
    stream = container.add_stream("libx264", rate=picture.fps)
    stream.width, stream.height = picture.width, picture.height
    stream.pix_fmt = "yuv420p"
    stream.time_base = Fraction(1, picture.fps)
    stream.codec_context.time_base = Fraction(1, picture.fps)
    stream.options = {"preset": "veryfast", "profile": "high", "x264-params": X264}
    return stream


def encode_body(picture: Picture) -> Body:
    """Paint and encode one loop. Takes a second or two at 1080p: call it in a thread."""
    first = _scene(picture, 0.0)
    opening = Image.new("RGB", (picture.width, picture.height))
    opening.paste(first)
    noisy = opening.copy()
    if picture.captioned:
        noisy.paste(_noise(picture.width, picture.height - picture.band_top), (0, picture.band_top))
    return Body(opening, tuple(_later_pieces(picture, noisy)))


def _later_pieces(picture: Picture, noisy: Image.Image) -> list[Piece]:
    still = _as_decoded(noisy, picture)
    stream = add_video_stream(open_scratch(), picture)
    frames = LOOP_S * picture.fps
    pieces = pieces_of(stream.encode(to_frame(noisy, 0)))
    for index in range(1, frames):
        canvas = Image.new("RGB", (picture.width, picture.height))
        canvas.paste(_scene(picture, index / frames))
        frame = to_frame(canvas, index)
        _copy_band(still, frame, picture)
        pieces += pieces_of(stream.encode(frame))
    pieces += pieces_of(stream.encode(None))
    return pieces[1:]


def to_frame(image: Image.Image, pts: int) -> av.VideoFrame:
    """The picture as a frame in the encoder's own format, with HD colours."""
    rgb: av.VideoFrame = av.VideoFrame.from_image(image)  # type: ignore[no-untyped-call]  # PyAV has no stub for it
    frame = rgb.reformat(format="yuv420p", dst_colorspace="ITU709")
    frame.pts = pts
    return frame


def _scene(picture: Picture, phase: float) -> Image.Image:
    """The scene at half size, brought up smoothly: a quarter of the painting, and edges without steps."""
    width, height = picture.width, picture.band_top
    half = paint(width // 2, height // 2, phase)
    return half.resize((width, height), Image.Resampling.BILINEAR)


def _noise(width: int, height: int) -> Image.Image:
    data = random.Random(7).randbytes((width // 2) * (height // 2))
    small = Image.frombytes("L", (width // 2, height // 2), data)
    return small.resize((width, height), Image.Resampling.NEAREST).convert("RGB")


def _as_decoded(image: Image.Image, picture: Picture) -> av.VideoFrame:
    """What a decoder makes of the picture as a clip's first frame."""
    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as container:
        stream = add_video_stream(container, picture)
        container.mux([*stream.encode(to_frame(image, 0)), *stream.encode(None)])
    memory.seek(0)
    with av.open(memory, "r") as container:
        return next(container.decode(video=0))


def _copy_band(source: av.VideoFrame, target: av.VideoFrame, picture: Picture) -> None:
    for index, (one, other) in enumerate(zip(source.planes, target.planes, strict=True)):
        top = picture.band_top if index == 0 else picture.band_top // 2
        width = picture.width if index == 0 else picture.width // 2
        give, take = memoryview(one), memoryview(other)
        for row in range(top, other.height):
            start = row * other.line_size
            take[start : start + width] = give[row * one.line_size : row * one.line_size + width]
