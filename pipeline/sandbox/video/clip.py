"""Makes one clip's file: its own first frame, the body's packets, the sound, and its label as metadata."""

from __future__ import annotations

import heapq
import io
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av

from pipeline.sandbox.video.caption import draw_caption
from pipeline.sandbox.video.loop import add_video_stream, compose_frame, to_frame
from pipeline.sandbox.video.packets import EncodedPacket, to_packets
from pipeline.sandbox.video.scene import LOOP_S
from pipeline.sandbox.video.sound import SAMPLE_RATE_HZ, add_audio_stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from av.stream import Stream
    from av.video.stream import VideoStream

    from pipeline.sandbox.video.loop import EncodedLoop
    from pipeline.sandbox.video.shape import ClipLabel, ClipShape


def make_clip(shape: ClipShape, label: ClipLabel, loop: EncodedLoop, sound: Sequence[EncodedPacket]) -> bytes:
    """The bytes of an MP4 with its index in front; the same arguments give the same bytes."""
    memory = io.BytesIO()
    options = {"moov_size": str(_moov_bytes(shape, label, sound))}
    with av.open(memory, "w", format="mp4", options=options) as container:
        container.metadata["title"] = label.prompt
        container.metadata["comment"] = f"generation_id={label.generation_id}"
        container.metadata["description"] = f"{label.model} {label.details}".strip()
        video = add_video_stream(container, shape.frame_format)
        audio = add_audio_stream(container, shape.frame_format.audio_bit_rate) if sound else None
        first = _encode_first_frame(video, shape, label, loop)
        frame, tick = Fraction(1, shape.frame_format.fps), Fraction(1, SAMPLE_RATE_HZ)
        pictures = (
            _packet(piece, video, frame) for piece in _looped_packets(first, loop.later_packets, shape)
        )
        sounds = (_packet(piece, audio, tick) for piece in sound) if audio is not None else ()
        for packet in heapq.merge(pictures, sounds, key=_dts_s):
            container.mux(packet)
    return memory.getvalue()


def _moov_bytes(shape: ClipShape, label: ClipLabel, sound: Sequence[EncodedPacket]) -> int:
    """Room for the index, which is written in front of the data; what is left over stays a free box."""
    words = len(f"{label.prompt}{label.generation_id}{label.model}{label.details}".encode())
    return 4096 + words + 32 * (shape.frames + len(sound))


def _dts_s(packet: av.Packet[Any]) -> float:
    return float((packet.dts or 0) * packet.time_base)


def _encode_first_frame(
    video: VideoStream, shape: ClipShape, label: ClipLabel, loop: EncodedLoop
) -> EncodedPacket:
    picture = shape.frame_format
    caption_frame = None
    if picture.has_caption:
        height = picture.height - picture.band_top
        caption_frame = to_frame(draw_caption(picture.width, height, label), picture.width, height)
    frame = compose_frame(picture, loop.first_frame, caption_frame)
    (piece,) = to_packets([*video.encode(frame), *video.encode(None)])
    return piece


def _looped_packets(
    first: EncodedPacket, later_packets: Sequence[EncodedPacket], shape: ClipShape
) -> Iterator[EncodedPacket]:
    loop = (first, *later_packets)
    frames = LOOP_S * shape.frame_format.fps
    for index in range(shape.frames):
        piece = loop[index % frames]
        yield EncodedPacket(piece.data, index, 1, is_keyframe=index % frames == 0)


def _packet(piece: EncodedPacket, stream: Stream, time_base: Fraction) -> av.Packet[Any]:
    packet = av.Packet(piece.data)
    packet.stream = stream
    packet.time_base = time_base
    packet.pts = packet.dts = piece.pts
    packet.duration = piece.duration
    packet.is_keyframe = piece.is_keyframe
    return packet
