"""Tiny playable MP4s, each carrying its prompt in a box of its own, so that a swapped file is found."""

from __future__ import annotations

import io
from functools import cache

import av
from av.video.frame import VideoFrame


@cache
def _base_video() -> bytes:
    """One second of H.264, 64 by 64."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=4)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for number in range(4):
            frame = VideoFrame(64, 64, "rgb24")
            frame.planes[0].update(bytes([40 * number + 60]) * frame.planes[0].buffer_size)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def make_video(prompt: str, padding: int = 0) -> bytes:
    """A playable film of at least `padding` bytes that is like no other prompt's."""
    marker = prompt.encode()
    return _base_video() + _free_box(bytes(padding)) + _free_box(marker)


def _free_box(content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + b"free" + content
