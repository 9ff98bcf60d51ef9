"""The poster: which frame is too dark for one, and its JPEG. Blocks."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

POSTER_WIDTH: Final = 480


def mean_luma(frame: VideoFrame) -> float:
    """Return a frame's mean luma (0 to 255); 0.0 for one of a pixel format that is not converted here."""
    try:
        return _mean_luma(frame)
    except Exception:  # a clip that plays is a clip, whatever its poster is like
        return 0.0


def _mean_luma(frame: VideoFrame) -> float:
    small = frame.reformat(width=32, height=18, format="gray", interpolation="FAST_BILINEAR", threads=1)
    luma_bytes = bytes(small.planes[0])
    return sum(luma_bytes) / len(luma_bytes)


def encode_jpeg(frame: VideoFrame, rotation: int) -> bytes:
    """Make a JPEG that is 480 px wide once turned by `rotation` (degrees, counterclockwise).

    Return b"" for a frame that none can be made of, such as a very tall one.
    """
    try:
        return _encode_jpeg(frame, rotation)
    except Exception:  # a clip that plays is a clip, whatever its poster is like
        return b""


def _encode_jpeg(frame: VideoFrame, rotation: int) -> bytes:
    from PIL import Image

    shown_width = frame.height if rotation % 180 else frame.width
    width, height = (
        max(2, round(side * POSTER_WIDTH / shown_width / 2) * 2) for side in (frame.width, frame.height)
    )
    small = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA", threads=1)
    plane = small.planes[0]
    image = Image.frombuffer("RGB", (width, height), bytes(plane), "raw", "RGB", plane.line_size, 1)
    if rotation:
        image = image.rotate(rotation, expand=True)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=82)
    return out.getvalue()
