"""Small real MP4s, and ways to spoil them. Rendered once a process."""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import av


@lru_cache
def make_video(
    seconds: int = 2,
    width: int = 320,
    height: int = 180,
    *,
    sound: bool = True,
    dark_frames: int = 0,
    seed: int = 1,
    faststart: bool = True,
    bit_rate: int = 400_000,
) -> bytes:
    """An H.264 (and AAC) film of moving noise; the first `dark_frames` are black."""
    dice = random.Random(seed)
    noise = [dice.randbytes(width * height) for _ in range(4)]
    black = bytes([16]) * (width * height)
    options = {"movflags": "faststart"} if faststart else {}
    with TemporaryDirectory() as folder:  # moving the index to the front takes a file with a name
        path = Path(folder, "film.mp4")
        with av.open(str(path), "w", options=options) as container:
            video = container.add_stream("libx264", rate=24, options={"preset": "ultrafast", "g": "24"})
            video.width, video.height, video.pix_fmt, video.bit_rate = width, height, "yuv420p", bit_rate
            audio = container.add_stream("aac", rate=48000, layout="mono") if sound else None
            for number in range(seconds * 24):
                frame = av.VideoFrame(width, height, "yuv420p")
                _fill(frame.planes[0], black if number < dark_frames else noise[number % 4], width)
                for plane in frame.planes[1:]:
                    plane.update(bytes([128]) * plane.buffer_size)
                frame.pts = number
                container.mux(video.encode(frame))
            container.mux(video.encode())
            if audio is not None:
                _add_silence(container, audio, seconds)
        return path.read_bytes()


def _add_silence(container: av.container.OutputContainer, audio: av.AudioStream, seconds: int) -> None:
    for number in range(seconds * 48000 // 1024):
        frame = av.AudioFrame("fltp", "mono", 1024)
        frame.planes[0].update(bytes(frame.planes[0].buffer_size))
        frame.sample_rate, frame.pts = 48000, number * 1024
        container.mux(audio.encode(frame))
    container.mux(audio.encode())


def corrupted(data: bytes, seed: int = 7) -> bytes:
    """The right length and the wrong bytes: a block in the middle of the pictures is noise."""
    start = data.index(b"mdat") + 400
    return data[:start] + random.Random(seed).randbytes(2000) + data[start + 2000 :]


def padded(data: bytes, size_bytes: int) -> bytes:
    """The same film, made as long as asked by a box that players skip."""
    missing = size_bytes - len(data)
    return data + missing.to_bytes(4, "big") + b"free" + bytes(missing - 8)


def _fill(plane: av.video.plane.VideoPlane, luma: bytes, width: int) -> None:
    rows = [luma[start : start + width] for start in range(0, len(luma), width)]
    plane.update(b"".join(row.ljust(plane.line_size, b"\0") for row in rows))
