"""Videos that players show and a strict reader might refuse: kept, with a warning where one is due."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.media import Examination, UnplayableVideo, examine, with_mismatch_warnings
from tests.integration.sample_videos import make_video, padded

if TYPE_CHECKING:
    from pipeline.model import Media

VIDEO = make_video(seconds=2)


def examined(data: bytes, *, decode: bool = True) -> Examination:
    return examine(io.BytesIO(data), len(data), decode=decode)


def media_of(data: bytes) -> Media:
    found = examined(data).media
    assert found is not None
    return found


def renamed(old: bytes, new: bytes) -> bytes:
    assert old in VIDEO
    return VIDEO.replace(old, new)


def with_handler_name(name: bytes) -> bytes:
    return renamed(b"VideoHandler", name.ljust(12, b"_"))


def with_display_matrix(*matrix: int) -> bytes:
    at = VIDEO.index(b"tkhd") + 4 + 4 + 20 + 16
    return VIDEO[:at] + struct.pack(">9i", *matrix) + VIDEO[at + 36 :]


def with_edit_list(media_time: int, duration: int) -> bytes:
    at = VIDEO.index(b"elst") + 12
    return VIDEO[:at] + struct.pack(">ii", duration, media_time) + VIDEO[at + 8 :]


def in_container(name: str, codec: str, options: dict[str, str] | None = None) -> bytes:
    """A short film in another container, without sound."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "film")
        with av.open(str(path), "w", format=name, options=options or {}) as container:
            stream = container.add_stream(codec, rate=24)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for number in range(24):
                frame = av.VideoFrame(64, 48, "yuv420p")
                for plane in frame.planes:
                    plane.update(bytes([40 + number * 5]) * plane.buffer_size)
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path.read_bytes()


@pytest.mark.parametrize("name", [b"Vid\xe9o\xffHandle", b"\xff\xfe\x00V", b"\x80" * 12])
def test_names_in_another_encoding_do_no_harm(name: bytes) -> None:
    media = media_of(with_handler_name(name))
    assert (media.width, media.height, media.warnings) == (320, 180, ())


@pytest.mark.parametrize("tail", [b"x", b"trailing text", bytes(100), b"\0\0\0\x03abcd", b"\xff" * 50])
@pytest.mark.parametrize("decode", [True, False])
def test_bytes_after_the_last_box_are_a_warning(tail: bytes, decode: bool) -> None:
    found = examined(VIDEO + tail, decode=decode)
    assert found.extension == "mp4"
    assert found.defects == ""
    if found.media is not None:
        assert found.media.warnings == (f"{len(tail)} bytes follow the end of the video",)


def test_padding_that_is_cut_off_is_a_defect() -> None:
    found = examined(padded(VIDEO, len(VIDEO) + 5000)[:-1000])
    assert found.defects == "1000 bytes are missing at its end"


@pytest.mark.parametrize("sound", [b"ac-4", b"mha1", b"zzzz"])
def test_sound_without_a_decoder_is_no_fault_of_the_video(sound: bytes) -> None:
    found = examined(renamed(b"mp4a", sound))
    assert found.media is not None
    assert (found.media.width, found.media.has_audio) == (320, True)
    assert found.poster


@pytest.mark.parametrize("codec", [b"av99", b"vvc9", b"encv"])
def test_a_video_without_a_decoder_is_kept_unchecked(codec: bytes) -> None:
    found = examined(renamed(b"avc1", codec))
    assert found.media is not None
    assert (found.media.width, found.media.height, found.media.duration_s) == (320, 180, 2.0)
    assert any("not checked" in warning for warning in found.media.warnings)
    assert (found.poster, found.defects) == (b"", "")


def test_an_encrypted_video_is_kept_unchecked() -> None:
    """Common encryption: the format is known, and its samples are noise without the key."""
    keys = {"encryption_key": "00112233445566778899aabbccddeeff", "encryption_kid": "ab" * 16}
    data = in_container("mp4", "libx264", {"encryption_scheme": "cenc-aes-ctr", **keys})
    found = examined(data)
    assert found.media is not None
    assert (found.media.width, found.media.height) == (64, 48)
    assert "not checked: the video is encrypted" in found.media.warnings
    assert found.defects == ""


ONE, Z = 0x10000, 0x40000000
ROTATIONS = [
    ((ONE, 0, 0, 0, ONE, 0, 0, 0, Z), (320, 180)),
    ((0, ONE, 0, -ONE, 0, 0, 180 << 16, 0, Z), (180, 320)),
    ((0, -ONE, 0, ONE, 0, 0, 0, 320 << 16, Z), (180, 320)),
    ((-ONE, 0, 0, 0, -ONE, 0, 320 << 16, 180 << 16, Z), (320, 180)),
]


@pytest.mark.parametrize(("matrix", "size"), ROTATIONS)
def test_size_and_poster_follow_the_picture_as_shown(matrix: tuple[int, ...], size: tuple[int, int]) -> None:
    found = examined(with_display_matrix(*matrix))
    assert found.media is not None
    assert (found.media.width, found.media.height) == size
    poster = Image.open(io.BytesIO(found.poster))
    assert poster.size == ((480, 270) if size == (320, 180) else (480, 854))
    asked = "9:16" if size == (180, 320) else "16:9"
    assert with_mismatch_warnings(found.media, {"aspect_ratio": asked}).warnings == ()


def test_the_poster_is_turned_the_way_the_picture_is() -> None:
    """The matrix turns the picture clockwise: its left edge becomes the top."""
    plain = Image.open(io.BytesIO(examined(VIDEO).poster)).convert("L")
    turned = Image.open(io.BytesIO(examined(with_display_matrix(*ROTATIONS[1][0])).poster)).convert("L")
    expected = plain.resize((854, 480)).rotate(-90, expand=True)
    wrong = plain.resize((854, 480)).rotate(90, expand=True)
    assert _difference(turned, expected) < _difference(turned, wrong) / 2


def _difference(one: Image.Image, other: Image.Image) -> int:
    first, second = (image.resize((24, 42)).tobytes() for image in (one, other))
    return sum(abs(a - b) for a, b in zip(first, second, strict=True))


def test_frames_that_an_edit_list_hides_are_not_missing() -> None:
    found = examined(with_edit_list(media_time=12 * 512, duration=1000))
    assert found.media is not None
    assert (found.media.duration_s, found.defects) == (1.0, "")


CONTAINERS = [
    ("matroska", "mpeg4", "mkv"),
    ("webm", "libvpx", "webm"),
    ("mov", "mpeg4", "mov"),
    ("avi", "mpeg4", "avi"),
    ("mpegts", "mpeg2video", "ts"),
    ("flv", "flv", "flv"),
    ("asf", "mpeg4", "wmv"),
    ("mpeg", "mpeg2video", "mpg"),
]


@pytest.mark.parametrize(("container", "codec", "extension"), CONTAINERS)
def test_a_film_in_another_container_is_kept_under_its_right_name(
    container: str, codec: str, extension: str
) -> None:
    data = in_container(container, codec)
    found = examined(data)
    assert found.extension == extension
    assert found.media is not None
    assert (found.media.width, found.media.height) == (64, 48)
    assert found.poster
    assert examined(data, decode=False).extension == extension


def test_a_lone_picture_is_no_video() -> None:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(out, "PNG")
    with pytest.raises(UnplayableVideo):
        examined(out.getvalue())


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_the_bytes_the_answer_is_a_judgement(data: st.DataObject) -> None:
    """Any bytes flipped, cut or added: an examination or `UnplayableVideo`, never another exception."""
    spoiled = bytearray(VIDEO[: data.draw(st.integers(0, len(VIDEO)))])
    for _ in range(data.draw(st.integers(0, 20))):
        if spoiled:
            spoiled[data.draw(st.integers(0, min(len(spoiled), 4000) - 1))] = data.draw(st.integers(0, 255))
    spoiled += data.draw(st.binary(max_size=40))
    try:
        found = examined(bytes(spoiled))
    except UnplayableVideo:
        return
    assert found.extension
