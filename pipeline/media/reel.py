"""Several clips joined to one MP4: pictures copied where the clips agree, else encoded; sound joined anew.

A clip is as long as its pictures. Sound is cut or filled to that length sample by sample, so that nothing
that one clip lacks, or has too much of, moves the sound of those after it. Blocks.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from numpy import ndarray
    from PIL.Image import Image

SAMPLE_RATE: Final = 48_000
SLATE_S: Final = 2
_MAX_FPS: Final = 60
_X264_OPTIONS: Final = {"crf": "17", "preset": "veryfast"}
_BLOCK_SAMPLES: Final = 48_000


@dataclass(frozen=True, slots=True)
class Shape:
    """What the reel's pictures are like; `copied` when every clip has exactly these."""

    width: int
    height: int
    fps: Fraction
    has_audio: bool
    copied: bool


@dataclass(frozen=True, slots=True)
class ReelClip:
    """A file of the reel, and what draws the slate to show before it, when there is one.

    Slates are drawn when they are written: a thousand of them would fill the memory.
    """

    path: Path
    slate: Callable[[], Image] | None = None


def join_clips(clips: Sequence[ReelClip], target: Path) -> Shape:
    """Write the clips to `target`, one after the other; return what the reel is like.

    Raises `av.FFmpegError` for a clip that cannot be read.
    """
    import av

    shape = find_shape(clips)
    with av.open(str(target), "w", format="mp4", options={"movflags": "faststart"}) as output:
        _Reel(output, shape, clips[0]).write(clips)
    return shape


def find_shape(clips: Sequence[ReelClip]) -> Shape:
    """Return what a reel of these clips is like: the size of most of them, the highest rate."""
    import av

    sizes: Counter[tuple[int, int]] = Counter()
    rates, kinds, has_audio = [], set(), False
    for clip in clips:
        with av.open(str(clip.path), metadata_errors="replace") as source:
            stream = source.streams.video[0]
            turned, context = _rotation(source, stream), stream.codec_context
            width, height = context.width, context.height
            sizes[(height, width) if turned % 180 else (width, height)] += 1
            rates.append(stream.average_rate or Fraction(24))
            coding = (context.name, context.extradata, context.pix_fmt, stream.time_base)
            kinds.add((coding, width, height, turned))
            has_audio = has_audio or bool(_sound(source))
    (width, height), _ = max(sizes.items(), key=lambda size: (size[1], size[0][0] * size[0][1]))
    # A display matrix does not come along with copied packets: turned clips are encoded upright.
    alike = len(kinds) == 1 and not any(turned for *_, turned in kinds)
    copied = alike and not any(clip.slate for clip in clips)
    fps = min(max(rates), Fraction(_MAX_FPS))
    return Shape(width - width % 2, height - height % 2, fps, has_audio, copied)


def _rotation(source: InputContainer, stream: VideoStream) -> int:
    """Return by how many degrees the first frame is turned when shown."""
    frame = next(source.decode(stream), None)
    source.seek(0)
    return frame.rotation if frame is not None else 0


def _sound(source: InputContainer) -> AudioStream | None:
    context: object = source.streams.audio[0].codec_context if source.streams.audio else None
    return source.streams.audio[0] if context is not None else None


def length_of(stream: VideoStream, source: InputContainer) -> Fraction:
    """Return how long a clip's pictures last, in seconds."""
    if stream.duration is not None and stream.time_base is not None:
        return stream.duration * stream.time_base
    return Fraction(source.duration or 0, 1_000_000)


class _Reel:
    """The reel under way: where the next clip begins, in seconds."""

    def __init__(self, output: OutputContainer, shape: Shape, first: ReelClip) -> None:
        import av

        self._output = output
        self._shape = shape
        self._at = Fraction(0)
        self._frame_count = 0
        self._sample_count = 0
        if shape.copied:
            with av.open(str(first.path), metadata_errors="replace") as source:
                self._video: VideoStream = output.add_stream_from_template(source.streams.video[0])
        else:
            video = output.add_stream("libx264", rate=shape.fps, options=_X264_OPTIONS)
            video.width, video.height, video.pix_fmt = shape.width, shape.height, "yuv420p"
            self._video = video
        self._audio = output.add_stream("aac", rate=SAMPLE_RATE, layout="stereo") if shape.has_audio else None

    def write(self, clips: Sequence[ReelClip]) -> None:
        import av

        for clip in clips:
            if clip.slate is not None:
                self._write_slate(clip.slate())
            with av.open(str(clip.path), metadata_errors="replace") as source:
                stream = source.streams.video[0]
                self._at += length_of(stream, source)
                start = stream.start_time or 0
                if self._shape.copied:
                    self._copy_pictures(source, stream)
                else:
                    self._encode_pictures(source, stream)
                source.seek(0)
                start_s = start * (stream.time_base or Fraction(1))
                self._write_sound(_samples(source, _sound(source), start_s))
        if not self._shape.copied:
            self._output.mux(self._video.encode(None))
        if self._audio is not None:
            self._output.mux(self._audio.encode(None))

    def _copy_pictures(self, source: InputContainer, stream: VideoStream) -> None:
        base = stream.time_base or Fraction(1, 90_000)
        offset = round((self._at - length_of(stream, source)) / base) - (stream.start_time or 0)
        for packet in source.demux(stream):
            if packet.dts is None or packet.pts is None:
                continue
            packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
            packet.stream = self._video
            self._output.mux(packet)

    def _encode_pictures(self, source: InputContainer, stream: VideoStream) -> None:
        """Encode a clip's frames up to its end on the reel; the last one stays when there are too few."""
        last: VideoFrame | None = None
        end = round(self._at * self._shape.fps)
        for frame in self._fitted(source, stream):
            if self._frame_count < end:
                self._encode(frame)
            last = frame
        while last is not None and self._frame_count < end:
            self._encode(last)

    def _encode(self, frame: VideoFrame) -> None:
        frame.pts, frame.time_base = self._frame_count, 1 / self._shape.fps
        frame.pict_type = 0  # the source's key frames are none of the reel's
        self._frame_count += 1
        self._output.mux(self._video.encode(frame))

    def _fitted(self, source: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        """Yield the frames at the reel's size, with bars where the shape differs, and at its rate."""
        from av.filter import Graph

        graph: Any = None
        for frame in source.decode(stream):
            if graph is None:
                graph = Graph()
                chain = [graph.add_buffer(template=stream), *self._filters(graph, frame.rotation)]
                chain.append(graph.add("buffersink"))
                graph.link_nodes(*chain).configure()
            graph.push(frame)
            yield from _pulled(graph)
        if graph is not None:
            graph.push(None)
            yield from _pulled(graph)

    def _filters(self, graph: Any, rotation: int) -> list[Any]:
        width, height = self._shape.width, self._shape.height
        turns = {90: ["cclock"], -90: ["clock"], 180: ["clock", "clock"], -180: ["clock", "clock"]}
        turned = [graph.add("transpose", turn) for turn in turns.get(rotation, [])]
        fit = f"w={width}:h={height}:force_original_aspect_ratio=decrease:force_divisible_by=2"
        return [
            *turned,
            graph.add("scale", fit),
            graph.add("pad", f"w={width}:h={height}:x=(ow-iw)/2:y=(oh-ih)/2"),
            graph.add("setsar", "1"),
            graph.add("fps", str(self._shape.fps)),
            graph.add("format", "yuv420p"),
        ]

    def _write_slate(self, image: Image) -> None:
        import numpy as np
        from av import VideoFrame

        self._at += SLATE_S
        picture = VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
        while self._frame_count < round(self._at * self._shape.fps):
            self._encode(picture.reformat(format="yuv420p"))
        self._write_sound(None)

    def _write_sound(self, samples: ndarray[Any, Any] | None) -> None:
        """Write sound up to where the pictures end: what there is, cut or followed by silence."""
        import numpy as np
        from av import AudioFrame

        if self._audio is None:
            return
        wanted = round(self._at * SAMPLE_RATE) - self._sample_count
        whole = np.zeros((2, wanted), dtype=np.float32)
        if samples is not None:
            length = min(wanted, samples.shape[1])
            whole[:, :length] = samples[:, :length]
        for begin in range(0, wanted, _BLOCK_SAMPLES):
            block = np.ascontiguousarray(whole[:, begin : begin + _BLOCK_SAMPLES])
            frame = AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = SAMPLE_RATE, self._sample_count
            frame.time_base = Fraction(1, SAMPLE_RATE)
            self._sample_count += block.shape[1]
            self._output.mux(self._audio.encode(frame))


def _pulled(graph: Any) -> Iterator[VideoFrame]:
    import av

    while True:
        try:
            yield graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return


def _samples(
    source: InputContainer, stream: AudioStream | None, start_s: Fraction
) -> ndarray[Any, Any] | None:
    """Return a clip's sound as (2, n) at `SAMPLE_RATE`, from the first picture on; None when it is silent."""
    import numpy as np
    from av import AudioResampler

    if stream is None:
        return None
    resampler = AudioResampler(format="fltp", layout="stereo", rate=SAMPLE_RATE)
    blocks, first_s = [], None
    for frame in source.decode(stream):
        if first_s is None and frame.pts is not None and frame.time_base is not None:
            first_s = frame.pts * frame.time_base
        blocks += [block.to_ndarray() for block in resampler.resample(frame)]
    blocks += [block.to_ndarray() for block in resampler.resample(None)]
    if not blocks:
        return None
    samples = np.concatenate(blocks, axis=1)
    late = round(((first_s or Fraction(0)) - start_s) * SAMPLE_RATE)
    return np.pad(samples, ((0, 0), (late, 0))) if late > 0 else samples[:, -late:]
