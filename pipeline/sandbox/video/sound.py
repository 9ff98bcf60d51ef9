"""Plays the clip's sound: a soft chord that swells, synthesised and encoded once a length."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import av
import av.filter

from pipeline.sandbox.video.packets import EncodedPacket, open_discarded_container, to_packets

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import OutputContainer

SAMPLE_RATE_HZ: Final = 48_000
CHORD_HZ: Final = (110.0, 164.81, 220.0, 277.18, 329.63)
"""A major, spread over two octaves; each voice is detuned between left and right."""


def add_audio_stream(container: OutputContainer, bit_rate: int) -> AudioStream:
    """A stream whose encoder makes, and whose header fits, the packets of `soundtrack`."""
    stream = container.add_stream("aac", rate=SAMPLE_RATE_HZ)
    stream.bit_rate = bit_rate
    stream.layout = "stereo"
    return stream


def encode_soundtrack(seconds: float, bit_rate: int) -> tuple[EncodedPacket, ...]:
    """AAC packets, stereo at 48 kHz, that last `seconds` and fade in and out."""
    stream = add_audio_stream(open_discarded_container(), bit_rate)
    pieces: list[EncodedPacket] = []
    for frame in _frames(seconds):
        pieces += to_packets(stream.encode(frame))
    pieces += to_packets(stream.encode(None))
    return tuple(pieces)


def _frames(seconds: float) -> list[AudioFrame]:
    graph = av.filter.Graph()
    fade = min(0.8, seconds / 4)
    chain = [
        graph.add(
            "aevalsrc",
            f"exprs={_channel_expression(0.0)}|{_channel_expression(0.7)}:s={SAMPLE_RATE_HZ}:d={seconds:.6f}",
        ),
        graph.add("lowpass", "f=1400"),
        graph.add("afade", f"t=in:d={fade:.3f}"),
        graph.add("afade", f"t=out:st={seconds - fade:.3f}:d={fade:.3f}"),
        graph.add("aformat", f"sample_fmts=fltp:sample_rates={SAMPLE_RATE_HZ}:channel_layouts=stereo"),
        graph.add("asetnsamples", "n=1024:p=0"),
        graph.add("abuffersink"),
    ]
    for one, following in pairwise(chain):
        one.link_to(following)
    graph.configure()
    return _pull_frames(graph)


def _pull_frames(graph: av.filter.Graph) -> list[AudioFrame]:
    frames: list[AudioFrame] = []
    while True:
        try:
            frame = graph.pull()
        except (av.EOFError, av.BlockingIOError):
            return frames
        frame.time_base = Fraction(1, SAMPLE_RATE_HZ)
        frames.append(frame)  # type: ignore[arg-type]


def _channel_expression(detune_hz: float) -> str:
    """One channel as an ffmpeg expression of `t`; commas are escaped for the filter's own parser."""
    notes = (
        f"{0.09 / (1 + index * 0.35):.4f}*sin(2*PI*{hertz + detune_hz * (index % 2):.2f}*t)"
        f"*(0.6+0.4*sin(2*PI*{0.25 + 0.0625 * index:.4f}*t+{index}))"
        for index, hertz in enumerate(CHORD_HZ)
    )
    return "+".join(notes)
