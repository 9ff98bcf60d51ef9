"""Encodes one clip: two seconds of moving picture, repeated to its length, with caption, sound and metadata.

Only those two seconds are encoded; their packets are muxed again and again.
"""

from __future__ import annotations

import heapq
import io
from fractions import Fraction
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import av
import av.filter

from pipeline.sandbox.video.caption import draw_caption
from pipeline.sandbox.video.scene import LOOKS, paint_scene, show_picture
from pipeline.sandbox.video.shape import ClipLabel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.video.stream import VideoStream
    from PIL import Image

    from pipeline.sandbox.video.shape import ClipShape

Packets = tuple[bytes, ...]

LOOP_S: Final = 2
PAINTED_SIDE: Final = 640
SAMPLE_RATE_HZ: Final = 48_000
SAMPLES_PER_PACKET: Final = 1024
CHORD_HZ: Final = (110.0, 164.81, 220.0, 277.18, 329.63)
# Constant quantiser, one reference and no look-ahead: quick, and the same bytes in every process.
X264_PARAMS: Final = (
    "qp=23:bframes=0:ref=1:scenecut=0:keyint=infinite:rc-lookahead=0:sliced-threads=0:threads=2"
    ":colorprim=bt709:transfer=bt709:colormatrix=bt709"
)


def make_clip(shape: ClipShape, label: ClipLabel) -> bytes:
    """The bytes of an MP4 with its index in front; the same arguments give the same bytes."""
    loop = (
        _encode_loop(shape, label)
        if shape.has_caption or label.picture
        else _plain_loop(shape, label.look % LOOKS)
    )
    pictures = (loop * (shape.frames // len(loop) + 1))[: shape.frames]
    sound = encode_sound(shape.seconds) if shape.audio else ()
    texts = f"{label.prompt}{label.generation_id}{label.model}{label.details}"
    # Room for the index in front of the data; what is left over stays a free box.
    moov_bytes = 4096 + len(texts.encode()) + 32 * (len(pictures) + len(sound))
    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4", options={"moov_size": str(moov_bytes)}) as container:
        container.metadata["title"] = label.prompt
        container.metadata["comment"] = f"generation_id={label.generation_id}"
        container.metadata["description"] = f"{label.model} {label.details}".strip()
        tracks = [_packets(pictures, _add_video(container, shape), Fraction(1, shape.fps), len(loop))]
        if sound:
            tick = Fraction(SAMPLES_PER_PACKET, SAMPLE_RATE_HZ)
            tracks.append(_packets(sound, _add_audio(container), tick, 1))
        for _, packet in heapq.merge(*tracks, key=itemgetter(0)):
            container.mux(packet)
    return memory.getvalue()


def _encode_loop(shape: ClipShape, label: ClipLabel) -> Packets:
    height = shape.height - shape.band_top
    band = _to_frame(draw_caption(shape.width, height, label), shape.width, height) if height else None
    stream = _add_video(_unwritten_container(), shape)
    # Painted small and enlarged: at 1080p that is a ninth of the work.
    scale = min(1.0, PAINTED_SIDE / max(shape.width, shape.height))
    packets: list[bytes] = []
    for index in range(LOOP_S * shape.fps):
        phase = index / (LOOP_S * shape.fps)
        size = round(shape.width * scale), round(shape.band_top * scale)
        picture = label.picture
        scene = show_picture(picture, size, phase) if picture else paint_scene(*size, phase, label.look)
        frame = _stack(_to_frame(scene, shape.width, shape.band_top), band)
        frame.pts = index
        packets += map(bytes, stream.encode(frame))
    return (*packets, *map(bytes, stream.encode(None)))


@lru_cache(maxsize=4 * LOOKS)
def _plain_loop(shape: ClipShape, look: int) -> Packets:
    """The loop without a caption, which all clips of a shape and look share."""
    return _encode_loop(shape, ClipLabel("", "", "", look=look))


@lru_cache(maxsize=16)
def encode_sound(seconds: float) -> Packets:
    """A soft chord as AAC packets, stereo, that last `seconds` and fade in and out."""
    fade = min(0.8, seconds / 4)
    graph = av.filter.Graph()
    # `sine` reads a table: a tenth of the time that evaluating the sines takes.
    chord = graph.add("amix", f"inputs={len(CHORD_HZ)}:normalize=0")
    for number, hertz in enumerate(CHORD_HZ):
        note = graph.add("sine", f"f={hertz}:r={SAMPLE_RATE_HZ}:d={seconds:.6f}")
        note.link_to(chord, 0, number)
    graph.link_nodes(
        chord,
        graph.add("volume", "0.8"),
        graph.add("afade", f"t=in:d={fade:.3f}"),
        graph.add("afade", f"t=out:st={seconds - fade:.3f}:d={fade:.3f}"),
        graph.add("aformat", f"sample_fmts=fltp:sample_rates={SAMPLE_RATE_HZ}:channel_layouts=stereo"),
        graph.add("asetnsamples", f"n={SAMPLES_PER_PACKET}"),
        graph.add("abuffersink"),
    ).configure()
    stream = _add_audio(_unwritten_container())
    packets: list[bytes] = []
    while True:
        try:
            frame = graph.pull()
        except (av.EOFError, av.BlockingIOError):
            return (*packets, *map(bytes, stream.encode(None)))
        packets += map(bytes, stream.encode(frame))  # type: ignore[arg-type]  # the graph has audio only


def _add_video(container: OutputContainer, shape: ClipShape) -> VideoStream:
    stream = container.add_stream("libx264", rate=shape.fps)
    stream.width, stream.height, stream.pix_fmt = shape.width, shape.height, "yuv420p"
    stream.time_base = stream.codec_context.time_base = Fraction(1, shape.fps)
    stream.options = {"preset": "veryfast", "x264-params": X264_PARAMS}
    return stream


def _add_audio(container: OutputContainer) -> AudioStream:
    stream = container.add_stream("aac", rate=SAMPLE_RATE_HZ)
    stream.bit_rate, stream.layout = 48_000, "stereo"
    stream.options = {"aac_coder": "fast"}
    return stream


def _unwritten_container() -> OutputContainer:
    """Encoders need a container to know that their headers go there and not into the packets."""
    return av.open(io.BytesIO(), "w", format="mp4")


def _to_frame(image: Image.Image, width: int, height: int) -> av.VideoFrame:
    """The image in the encoder's format and HD colours, brought to that size."""
    rgb: av.VideoFrame = av.VideoFrame.from_image(image)  # type: ignore[no-untyped-call]  # no stub
    return rgb.reformat(width, height, "yuv420p", dst_colorspace="ITU709", interpolation="BICUBIC")


def _stack(scene: av.VideoFrame, band: av.VideoFrame | None) -> av.VideoFrame:
    """The scene above the band; frames of one width have lines of one length, so whole planes are copied."""
    if band is None:
        return scene
    whole = av.VideoFrame(scene.width, scene.height + band.height, "yuv420p")
    for target, top, bottom in zip(whole.planes, scene.planes, band.planes, strict=True):
        rows = memoryview(target)
        rows[: top.buffer_size] = memoryview(top)
        rows[top.buffer_size : top.buffer_size + bottom.buffer_size] = memoryview(bottom)
    return whole


def _packets(
    pieces: Packets, stream: VideoStream | AudioStream, tick: Fraction, keyframe_every: int
) -> Iterator[tuple[float, av.Packet[Any]]]:
    """Yield the packets of a track, each with its time in seconds."""
    tick_s = float(tick)
    for index, data in enumerate(pieces):
        packet: av.Packet[Any] = av.Packet(data)
        packet.stream, packet.time_base = stream, tick
        packet.pts = packet.dts = index
        packet.duration, packet.is_keyframe = 1, index % keyframe_every == 0
        yield index * tick_s, packet
