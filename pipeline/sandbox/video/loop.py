"""Encodes the moving part of a clip once for all clips of its size.

The body is the loop's first frame as a picture and all later frames as packets that predict only from
the frame before. A clip is then one freshly encoded first frame, with its own words in the band, followed
by those same packets: they say of the band nothing but "as before", so the words stand still through the
loop, and a clip costs one encoded frame instead of two hundred.

From the body's second frame on, the band's source is what a decoder makes of the first, so nothing is
left to correct in it. The quantiser is constant and all look-ahead off, so the rows above the band are
encoded alike whatever the band holds. And as a precaution the body's band is full of noise, in which a
motion vector finds nothing but itself. Measured over a loop at 1080p: the words do not change at all, the
band's first 16 rows, which are kept blank, by 2 luma steps at most (5 without the noise).
"""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

import av
from PIL import Image

from pipeline.sandbox.video.packets import EncodedPacket, open_discarded_container, to_packets
from pipeline.sandbox.video.scene import LOOP_S, paint_scene

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

    from pipeline.sandbox.video.shape import FrameFormat

X264_PARAMS: Final = ":".join(
    (
        "qp=21:ipratio=1.4:bframes=0:ref=1:scenecut=0:keyint=infinite:min-keyint=1:weightp=0",
        "aq-mode=0:mbtree=0:rc-lookahead=0:sync-lookahead=0:psy=0:sliced-threads=0:threads=2",
        "colorprim=bt709:transfer=bt709:colormatrix=bt709",
    )
)


@dataclass(frozen=True, slots=True)
class EncodedLoop:
    """The loop's first frame without its band, and the packets of all later frames."""

    first_frame: av.VideoFrame
    later_packets: tuple[EncodedPacket, ...]


def add_video_stream(container: OutputContainer, picture: FrameFormat) -> VideoStream:
    """A stream whose encoder makes frames that fit a body of that picture."""
    stream = container.add_stream("libx264", rate=picture.fps)
    stream.width, stream.height = picture.width, picture.height
    stream.pix_fmt = "yuv420p"
    stream.time_base = Fraction(1, picture.fps)
    stream.codec_context.time_base = Fraction(1, picture.fps)
    stream.options = {"preset": "veryfast", "x264-params": X264_PARAMS}
    return stream


def encode_loop(picture: FrameFormat) -> EncodedLoop:
    """Paint and encode one loop. Takes a second or two at 1080p: call it in a thread."""
    first_frame = _scene_frame(picture, 0.0)
    noisy_frame = compose_frame(picture, first_frame, _noise_band(picture))
    caption_band = _crop_band(_encode_and_decode(noisy_frame, picture), picture)
    stream = add_video_stream(open_discarded_container(), picture)
    frames = LOOP_S * picture.fps
    packets = to_packets(stream.encode(noisy_frame))
    for index in range(1, frames):
        frame = compose_frame(picture, _scene_frame(picture, index / frames), caption_band)
        frame.pts = index
        packets += to_packets(stream.encode(frame))
    packets += to_packets(stream.encode(None))
    return EncodedLoop(first_frame, tuple(packets[1:]))


def to_frame(image: Image.Image, width: int, height: int) -> av.VideoFrame:
    """The image in the encoder's own format, brought to that size, with HD colours."""
    rgb: av.VideoFrame = av.VideoFrame.from_image(image)  # type: ignore[no-untyped-call]  # PyAV has no stub for it
    return rgb.reformat(width, height, "yuv420p", dst_colorspace="ITU709")


def compose_frame(picture: FrameFormat, scene: av.VideoFrame, band: av.VideoFrame | None) -> av.VideoFrame:
    """A whole frame: the scene above, the band (if the picture has one) below. Its `pts` is 0."""
    whole = av.VideoFrame(picture.width, picture.height, "yuv420p")
    _copy_rows(scene, whole, 0, 0, picture.band_top)
    if band is not None:
        _copy_rows(band, whole, 0, picture.band_top, band.height)
    whole.pts = 0
    return whole


def _scene_frame(picture: FrameFormat, phase: float) -> av.VideoFrame:
    """The scene, painted at half size and brought up: a quarter of the work, and edges without steps."""
    half = paint_scene(picture.width // 2, picture.band_top // 2, phase)
    return to_frame(half, picture.width, picture.band_top)


def _noise_band(picture: FrameFormat) -> av.VideoFrame | None:
    width, height = picture.width, picture.height - picture.band_top
    if height == 0:
        return None
    data = random.Random(7).randbytes((width // 2) * (height // 2))
    small = Image.frombytes("L", (width // 2, height // 2), data)
    return to_frame(small.resize((width, height), Image.Resampling.NEAREST).convert("RGB"), width, height)


def _encode_and_decode(frame: av.VideoFrame, picture: FrameFormat) -> av.VideoFrame:
    """What a decoder makes of the frame as a clip's first."""
    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as container:
        stream = add_video_stream(container, picture)
        container.mux([*stream.encode(frame), *stream.encode(None)])
    memory.seek(0)
    with av.open(memory, "r") as container:
        return next(container.decode(video=0))


def _crop_band(whole: av.VideoFrame, picture: FrameFormat) -> av.VideoFrame | None:
    height = picture.height - picture.band_top
    if height == 0:
        return None
    band = av.VideoFrame(picture.width, height, "yuv420p")
    _copy_rows(whole, band, picture.band_top, 0, height)
    return band


def _copy_rows(source: av.VideoFrame, target: av.VideoFrame, top: int, to: int, height: int) -> None:
    """Copy `height` rows from row `top` of one frame to row `to` of another of its width; all are even."""
    for index, (one, other) in enumerate(zip(source.planes, target.planes, strict=True)):
        scale = 1 if index == 0 else 2
        give, take = memoryview(one), memoryview(other)
        rows = zip(
            range(top // scale, (top + height) // scale),
            range(to // scale, (to + height) // scale),
            strict=True,
        )
        for row, to_row in rows:
            start, to_start = row * one.line_size, to_row * other.line_size
            take[to_start : to_start + other.width] = give[start : start + other.width]
