"""Makes one clip's file: its own first frame, the body's packets, the sound, and its label as metadata."""

from __future__ import annotations

import heapq
import io
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av

from pipeline.sandbox.film.body import add_video_stream, stacked, to_frame
from pipeline.sandbox.film.caption import band
from pipeline.sandbox.film.packets import Piece, pieces_of
from pipeline.sandbox.film.scene import LOOP_S
from pipeline.sandbox.film.sound import RATE, add_audio_stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from av.stream import Stream
    from av.video.stream import VideoStream

    from pipeline.sandbox.film.body import Body
    from pipeline.sandbox.film.shape import Label, Shape


def make_clip(shape: Shape, label: Label, body: Body, sound: Sequence[Piece]) -> bytes:
    """The bytes of an MP4 with its index in front; the same arguments give the same bytes."""
    memory = io.BytesIO()
    options = {"moov_size": str(_index_bytes(shape, label, sound))}
    with av.open(memory, "w", format="mp4", options=options) as container:
        container.metadata["title"] = label.prompt
        container.metadata["comment"] = f"generation_id={label.generation_id}"
        container.metadata["description"] = f"{label.model} {label.details}".strip()
        video = add_video_stream(container, shape.picture)
        audio = add_audio_stream(container, shape.picture.audio_bit_rate) if sound else None
        opening = _opening(video, shape, label, body)
        frame, tick = Fraction(1, shape.picture.fps), Fraction(1, RATE)
        pictures = (_packet(piece, video, frame) for piece in _looped(opening, body.later, shape))
        sounds = (_packet(piece, audio, tick) for piece in sound) if audio is not None else ()
        for packet in heapq.merge(pictures, sounds, key=_starts_at):
            container.mux(packet)
    return memory.getvalue()


def _index_bytes(shape: Shape, label: Label, sound: Sequence[Piece]) -> int:
    """Room for the index, which is written in front of the data; what is left over stays a free box."""
    words = len(f"{label.prompt}{label.generation_id}{label.model}{label.details}".encode())
    return 4096 + words + 32 * (shape.frames + len(sound))


def _starts_at(packet: av.Packet[Any]) -> float:
    return float((packet.dts or 0) * packet.time_base)


def _opening(video: VideoStream, shape: Shape, label: Label, body: Body) -> Piece:
    picture = shape.picture
    words = None
    if picture.captioned:
        height = picture.height - picture.band_top
        words = to_frame(band(picture.width, height, label), picture.width, height)
    frame = stacked(picture, body.opening, words)
    (piece,) = pieces_of([*video.encode(frame), *video.encode(None)])
    return piece


def _looped(opening: Piece, later: Sequence[Piece], shape: Shape) -> Iterator[Piece]:
    loop = (opening, *later)
    frames = LOOP_S * shape.picture.fps
    for index in range(shape.frames):
        piece = loop[index % frames]
        yield Piece(piece.data, index, 1, key=index % frames == 0)


def _packet(piece: Piece, stream: Stream, time_base: Fraction) -> av.Packet[Any]:
    packet = av.Packet(piece.data)
    packet.stream = stream
    packet.time_base = time_base
    packet.pts = packet.dts = piece.pts
    packet.duration = piece.duration
    packet.is_keyframe = piece.key
    return packet
