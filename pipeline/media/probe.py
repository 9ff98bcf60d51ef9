"""Probe a file's streams with libav: facts, damage, poster.

How much is decoded depends on the size. A short clip is decoded from end to end. Of a large one the
packets' structure is checked and one key frame is decoded, since decoding 16 MiB takes a second of CPU,
more than fetching them did.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from pipeline.media.mp4 import UnplayableVideo, nal_length_bytes, nal_units_fit
from pipeline.media.poster import encode_jpeg, mean_luma
from pipeline.model import Media

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

FAST_OPEN_OPTIONS: Final = {"skip_frame": "all", "probesize": "65536"}
"""Without these, opening decodes frames to learn what the index says already: 150 ms in place of 2."""

FULL_DECODE_MAX_BYTES: Final = 4 * 1024 * 1024
FULL_DECODE_MAX_S: Final = 0.2
PACKET_CHECK_MAX_BYTES: Final = 256 * 1024 * 1024
_DECODE_S_PER_PIXEL: Final = 0.6e-9
_DECODE_S_PER_BYTE: Final = 80e-9
"""What H.264 costs to decode on one core of a 2020s server: measured with x264 clips of 0.02 to 17 MB."""

MISSING_END_S: Final = 0.5

_DARK_LUMA: Final = 32.0
"""Mean luma (0-255) under which a frame counts as black; video black is 16."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What probing found. `poster` is a JPEG, or b"". `container` is libav's name for the format.

    `defects` is "" for a sound file, else it says what is damaged in a file that plays all the same.
    """

    media: Media
    poster: bytes = b""
    defects: str = ""
    container: str = ""


class UndecodableVideo(UnplayableVideo):
    """There is a video stream, and no decoder for it here. `media` holds what the container says."""

    def __init__(self, message: str, media: Media) -> None:
        super().__init__(message)
        self.media = media


def preload_decoders() -> None:
    """Import what probing needs. Loading libav holds the GIL for 100 ms: do it before the work."""
    import av  # noqa: F401
    from PIL import Image

    Image.preinit()


def probe_video(source: Path | BinaryIO) -> ProbeResult:
    """Probe a file or a seekable file object in one pass. Blocks.

    A path is read to its end; of a file object (each read of which may be a request) a large file is only
    sampled. Raises `UndecodableVideo` for a stream without a decoder, `UnplayableVideo` for no video, and
    OSError when this process or machine has too many files open.
    """
    import av

    try:
        if not isinstance(source, Path):
            source.seek(0)
        name = str(source) if isinstance(source, Path) else source
        # Metadata in another encoding than UTF-8 is common, and no player minds it.
        with av.open(name, "r", options=dict(FAST_OPEN_OPTIONS), metadata_errors="replace") as container:
            return _VideoProbe(container, check_all_packets=isinstance(source, Path)).run()
    except (av.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise  # libav reports EIO and ENOMEM for damaged files, too
        raise UnplayableVideo(f"no player can read it: {error}") from error
    except UnplayableVideo:
        raise
    except Exception as error:  # no proof against a video that is paid for
        nothing = Media(0.0, 0, 0, 0.0, has_audio=False)
        raise UndecodableVideo(f"examining it failed ({type(error).__name__}: {error})", nothing) from error


class _VideoProbe:
    """The state of one probe: the best picture so far, and what was found damaged."""

    def __init__(self, container: InputContainer, *, check_all_packets: bool) -> None:
        # libav calls a lone picture a video, too: its demuxers are named image2 and png_pipe.
        picture = any(part in container.format.name for part in ("_pipe", "image2"))
        if picture or not container.streams.video:
            raise UnplayableVideo("it has no video stream")
        self.container, self.check_all_packets = container, check_all_packets
        self.stream = container.streams.video[0]
        if not _has_decoder(self.stream):
            raise UndecodableVideo("its video has no decoder here", _media_info(container, self.stream, 0))
        self.stream.codec_context.skip_frame = "DEFAULT"
        self.stream.codec_context.thread_count = 1
        self.poster_frame: VideoFrame | None = None
        self.poster_luma = -1.0
        self.end = 0
        self.defects: list[str] = []

    def run(self) -> ProbeResult:
        if self._decode_cost_s() <= FULL_DECODE_MAX_S and self.container.size <= FULL_DECODE_MAX_BYTES:
            self._decode_all()
        else:
            self._decode_sample()
        if self.poster_frame is None:
            raise UnplayableVideo("not one frame of it can be decoded")
        defects = ", ".join(self.defects)
        rotation = self.poster_frame.rotation
        return ProbeResult(
            _media_info(self.container, self.stream, rotation),
            encode_jpeg(self.poster_frame, rotation),
            defects,
            self.container.format.name.partition(",")[0],
        )

    def _decode_cost_s(self) -> float:
        """About how long decoding everything would take."""
        codec = self.stream.codec_context
        count = self.stream.frames or round(_duration_s(self.container, self.stream) * 30)
        return (
            count * codec.width * codec.height * _DECODE_S_PER_PIXEL
            + self.container.size * _DECODE_S_PER_BYTE
        )

    def _decode_all(self) -> None:
        """Decode video and sound from the first to the last packet."""
        import av

        damaged = 0
        audio_streams = _decodable(self.container.streams.audio)
        for audio in audio_streams:
            audio.codec_context.skip_frame = "DEFAULT"
        for packet in self.container.demux(self.stream, *audio_streams):
            self._note_end(packet)
            try:
                for frame in packet.decode():
                    if isinstance(frame, av.VideoFrame | av.AudioFrame):
                        damaged += frame.is_corrupt
                    if isinstance(frame, av.VideoFrame):
                        self._update_poster_frame(frame)
            except av.FFmpegError:
                damaged += 1
        if damaged:
            self.defects.append(f"{damaged} frames cannot be decoded cleanly")
        self._check_end()

    def _decode_sample(self) -> None:
        """Check the structure if reading is cheap, decode one key frame, and more only while it is dark."""
        keyframes = (
            self._check_packets()
            if self.check_all_packets and self.container.size <= PACKET_CHECK_MAX_BYTES
            else []
        )
        for at in _keyframe_order(keyframes) or [int(self.stream.duration or 0) // 2, 0]:
            self._decode_keyframe(at)
            if self.poster_luma >= _DARK_LUMA:
                return
        self._decode_until_bright()

    def _check_packets(self) -> list[tuple[int, int]]:
        """Read every packet; return (time, bytes) of the video's key frames."""
        length_bytes = nal_length_bytes(self.stream.codec_context.name, self.stream.codec_context.extradata)
        broken, count, keyframes = 0, 0, []
        for packet in self.container.demux():
            if packet.stream is not self.stream or not packet.size:
                continue
            count += 1
            self._note_end(packet)
            if packet.is_corrupt or (length_bytes and not nal_units_fit(memoryview(packet), length_bytes)):
                broken += 1
            if packet.is_keyframe and packet.pts is not None:
                keyframes.append((packet.pts, packet.size))
        if broken:
            self.defects.append(f"{broken} of {count} frames are damaged")
        self._check_end()
        return keyframes

    def _note_end(self, packet: Packet[Any]) -> None:
        if packet.stream is self.stream and packet.pts is not None:
            self.end = max(self.end, packet.pts + (packet.duration or 0))

    def _check_end(self) -> None:
        """Compare the last packet with the duration; frames that an edit list hides are not missing."""
        if self.stream.duration is None or self.stream.time_base is None:
            return
        end = (self.stream.start_time or 0) + self.stream.duration
        missing_s = float((end - self.end) * self.stream.time_base)
        if missing_s > MISSING_END_S:
            self.defects.append(f"the last {missing_s:.1f} s are missing")

    def _decode_keyframe(self, at: int) -> None:
        """Decode the one key frame at or before `at`, in the stream's time base."""
        self.container.seek(at, stream=self.stream)
        for packet in self.container.demux(self.stream):
            if packet.is_keyframe and packet.size:
                self._decode_packet(packet)
                return

    def _decode_packet(self, packet: Packet[VideoStream]) -> None:
        """Send one packet and flush: a decoder holds frames back for those that follow otherwise."""
        import av

        codec = self.stream.codec_context
        try:
            for frame in codec.decode(packet) + codec.decode(None):
                if frame.is_corrupt:
                    self.defects.append(f"the frame at {frame.time or 0:.1f} s is damaged")
                self._update_poster_frame(frame)
        except av.FFmpegError as error:
            self.defects.append(f"a frame cannot be decoded ({error.strerror})")
        codec.flush_buffers()

    def _decode_until_bright(self) -> None:
        """Every key frame was dark: a fade-in, perhaps. Go on frame by frame for some seconds."""
        import av

        self.container.seek(0, stream=self.stream)
        try:
            for number, frame in enumerate(self.container.decode(self.stream)):
                self._update_poster_frame(frame)
                if self.poster_luma >= _DARK_LUMA or number >= 240:
                    return
        except av.FFmpegError as error:
            self.defects.append(f"a frame cannot be decoded ({error.strerror})")

    def _update_poster_frame(self, frame: VideoFrame) -> None:
        """Keep the first frame that is not dark, else the brightest of the dark ones."""
        if self.poster_luma >= _DARK_LUMA:
            return
        luma = mean_luma(frame)
        if luma > self.poster_luma:
            self.poster_frame, self.poster_luma = frame, luma


def _keyframe_order(keyframes: list[tuple[int, int]]) -> list[int]:
    """Times of up to six key frames, the middle-sized first.

    The largest cost ten times as much to decode, and the smallest are likely to be black.
    """
    by_size = [at for at, _ in sorted(keyframes, key=lambda key: key[1])]
    middle = len(by_size) // 2
    return (by_size[middle:] + by_size[:middle][::-1])[:6]


def _decodable(streams: tuple[AudioStream, ...]) -> list[AudioStream]:
    """Those with a decoder; AC-4 and MPEG-H have none in libav, and such sound is no fault of the video."""
    return [stream for stream in streams if _has_decoder(stream)]


def _has_decoder(stream: AudioStream | VideoStream) -> bool:
    """PyAV leaves `codec_context` None where libav has no decoder; its type hints do not say so."""
    context: object = stream.codec_context
    return context is not None


def _media_info(container: InputContainer, stream: VideoStream, rotation: int) -> Media:
    """The facts of a stream, with width and height as shown: turned by the display matrix."""
    codec = stream.codec_context if _has_decoder(stream) else None
    rate = stream.average_rate or (stream.guessed_rate if codec else None)
    audio = container.streams.audio
    width, height = (codec.width, codec.height) if codec else (0, 0)
    if rotation % 180:
        width, height = height, width
    return Media(
        duration_s=round(_duration_s(container, stream), 3),
        width=width,
        height=height,
        fps=round(float(rate), 3) if rate else 0.0,
        has_audio=bool(audio),
        video_codec=codec.name if codec else "",
        audio_codec=next((sound.codec_context.name for sound in _decodable(audio)), ""),
    )


def _duration_s(container: InputContainer, stream: VideoStream) -> float:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / 1_000_000 if container.duration is not None else 0.0
