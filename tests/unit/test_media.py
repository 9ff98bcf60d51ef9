"""What probing a file finds: facts, damage and a poster."""

from __future__ import annotations

import errno
import io
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from pipeline.media import UnplayableVideo, examine, with_mismatch_warnings
from pipeline.media.expectations import find_mismatches
from pipeline.media.mp4 import check_structure, nal_length_bytes, nal_units_fit
from pipeline.media.probe import preload_decoders, probe_video
from pipeline.model import Media
from tests.integration.sample_videos import corrupted, make_video, padded

if TYPE_CHECKING:
    from pathlib import Path

VIDEO = make_video(seconds=2)


def write_video(folder: Path, data: bytes) -> Path:
    path = folder / "film.mp4"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("faststart", [True, False])
@pytest.mark.parametrize("size", [0, 6 * 2**20], ids=["short", "large"])
def test_facts(tmp_path: Path, faststart: bool, size: int) -> None:
    data = make_video(seconds=2, width=180, height=320, faststart=faststart)
    data = padded(data, size) if size else data
    expected = Media(2.0, 180, 320, 24.0, True, "h264", "aac")
    found = probe_video(write_video(tmp_path, data))
    assert found.media == expected
    assert found.defects == ""
    assert probe_video(io.BytesIO(data)).media == expected
    check_structure(io.BytesIO(data), len(data))


def test_video_without_sound(tmp_path: Path) -> None:
    media = probe_video(write_video(tmp_path, make_video(seconds=2, sound=False))).media
    assert (media.has_audio, media.audio_codec) == (False, "")


@pytest.mark.parametrize("size", [0, 6 * 2**20], ids=["short", "large"])
@pytest.mark.parametrize("dark", [0, 20, 30])
def test_the_poster_is_480_wide_and_not_black(tmp_path: Path, dark: int, size: int) -> None:
    data = make_video(seconds=2, dark_frames=dark)
    picture = Image.open(
        io.BytesIO(probe_video(write_video(tmp_path, padded(data, size) if size else data)).poster)
    )
    assert picture.format == "JPEG"
    assert picture.size == (480, 270)
    assert len(set(picture.convert("L").tobytes())) > 40


def test_black_video_still_has_a_poster(tmp_path: Path) -> None:
    assert probe_video(write_video(tmp_path, make_video(seconds=2, dark_frames=48))).poster


def test_a_clip_of_which_no_poster_can_be_made_is_a_clip(tmp_path: Path) -> None:
    """480 pixels wide it would be taller than any JPEG."""
    data = make_video(seconds=1, width=16, height=4096, sound=False)
    found = probe_video(write_video(tmp_path, data))
    assert (found.media.width, found.media.height, found.poster) == (16, 4096, b"")


def test_an_error_that_examining_meets_is_no_proof_against_a_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("pipeline.media.probe._media_info", broken)
    data = make_video(seconds=1)
    found = examine(io.BytesIO(data), len(data), decode=True)
    assert found.extension == "mp4"
    assert found.media is not None
    assert any("not checked" in warning for warning in found.media.warnings)


def test_poster_of_portrait_video(tmp_path: Path) -> None:
    data = make_video(seconds=2, width=180, height=320)
    assert Image.open(io.BytesIO(probe_video(write_video(tmp_path, data)).poster)).size == (480, 854)


@pytest.mark.parametrize("start", [0.0, 0.2, 0.4, 0.6, 0.8])
@pytest.mark.parametrize("size", [0, 6 * 2**20], ids=["short", "large"])
def test_damage_is_found(tmp_path: Path, start: float, size: int) -> None:
    data = make_video(seconds=4, bit_rate=1_000_000)
    first = data.index(b"mdat") + 4
    at = first + int((len(data) - first - 61_000) * start)
    spoiled = data[:at] + bytes(60_000) + data[at + 60_000 :]
    spoiled = padded(spoiled, size) if size else spoiled
    assert probe_video(write_video(tmp_path, spoiled)).defects


def test_many_a_single_flipped_byte_is_found(tmp_path: Path) -> None:
    dice = random.Random(3)
    first = VIDEO.index(b"mdat") + 4
    found = 0
    for _ in range(20):
        at = dice.randrange(first, len(VIDEO))
        spoiled = bytearray(VIDEO)
        spoiled[at] ^= dice.randrange(1, 256)
        found += bool(probe_video(write_video(tmp_path, bytes(spoiled))).defects)
    assert found >= 10


def test_noise_in_the_pictures_is_found(tmp_path: Path) -> None:
    assert probe_video(write_video(tmp_path, corrupted(VIDEO))).defects


UNPLAYABLE = {
    "empty": b"",
    "text": b"not a film at all, whatever its name says",
    "picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "head": VIDEO[:40],
    "half": VIDEO[: len(VIDEO) // 2],
    "one byte short": VIDEO[:-1],
    "zeros": bytes(1000),
    "no index": VIDEO[VIDEO.index(b"mdat") - 4 :],
    "a box without end": VIDEO[:32] + b"\0\0\0\3moov",
}


@pytest.mark.parametrize("data", UNPLAYABLE.values(), ids=UNPLAYABLE.keys())
def test_incomplete_video_is_detected_from_structure(data: bytes) -> None:
    with pytest.raises(UnplayableVideo):
        check_structure(io.BytesIO(data), len(data))


@pytest.mark.parametrize("name", ["empty", "text", "picture", "head", "zeros", "no index"])
def test_what_does_not_play_is_said_in_words(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnplayableVideo, match=r".{10}"):
        probe_video(write_video(tmp_path, UNPLAYABLE[name]))


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    """A WAV header: libav opens it, and there is nothing to see."""
    wav = (
        b"RIFF\x24\x08\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0data\0\x08\0\0"
        + bytes(2048)
    )
    with pytest.raises(UnplayableVideo, match="no video"):
        probe_video(write_video(tmp_path, wav))


def test_units_inside_a_packet() -> None:
    good = b"\0\0\0\2\x65\1\0\0\0\1\x41"
    assert nal_units_fit(memoryview(good), 4)
    assert not nal_units_fit(memoryview(good[:-1]), 4)
    assert not nal_units_fit(memoryview(bytes(20)), 4)
    assert not nal_units_fit(memoryview(b"\0\0\0\2\xe5\1"), 4)
    assert nal_length_bytes("h264", b"\1\x64\0\x1f\xff") == 4
    assert nal_length_bytes("hevc", b"\1" + bytes(20) + b"\3") == 4
    assert nal_length_bytes("vp9", b"\1\x64\0\x1f\xff") == 0
    assert nal_length_bytes("h264", None) == 0


VEO = {"model": "google/veo-3.1-i2v-fast"}
AS_ASKED = Media(8.0, 1920, 1080, 24.0, True)

DIFFERENCES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (VEO, {}, ""),
    (VEO, {"duration_s": 8.5}, ""),
    (VEO, {"duration_s": 7.4}, "7.4 s long, 8 s asked"),
    (VEO, {"width": 1280, "height": 720}, "1280x720, 1080p asked"),
    (VEO, {"width": 1080, "height": 1920}, ""),
    (VEO, {"has_audio": False}, "no sound, sound asked"),
    ({**VEO, "generate_audio": False}, {}, "with sound, none asked"),
    ({**VEO, "aspect_ratio": "9:16"}, {}, "1920x1080, 9:16 asked"),
    ({**VEO, "aspect_ratio": "16:9"}, {}, ""),
    ({**VEO, "duration": 4}, {"duration_s": 4.0}, ""),
    ({"model": "other"}, {"duration_s": 3.0, "has_audio": False, "width": 10, "height": 20}, ""),
    ({"model": "other", "duration": "5"}, {"duration_s": 5.2}, ""),
    ({"model": "other", "duration": "long", "resolution": "fine", "aspect_ratio": "auto"}, {}, ""),
    ({"model": "other", "resolution": "4k"}, {}, "1920x1080, 4k asked"),
    ({"model": "other", "resolution": None, "aspect_ratio": None, "duration": None}, {}, ""),
    ({"model": "other", "aspect_ratio": "1:0"}, {}, ""),
    ({"model": "other", "resolution": "²p", "aspect_ratio": "¹:²"}, {}, ""),
    ({"model": "other", "resolution": f"{'9' * 5000}p", "aspect_ratio": f"{'9' * 400}:1"}, {}, ""),
]


@pytest.mark.parametrize(("body", "found", "words"), DIFFERENCES)
def test_what_differs_from_what_was_asked(body: dict[str, Any], found: dict[str, Any], words: str) -> None:
    media = replace(AS_ASKED, **found)
    assert "; ".join(find_mismatches(media, body)) == words
    assert with_mismatch_warnings(media, body).warnings == find_mismatches(media, body)


def test_a_file_that_cannot_be_opened_for_now_is_not_called_unplayable(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = write_video(tmp_path, VIDEO)
    preload_decoders()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with path.open("rb") as file:
        free = file.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        with pytest.raises(OSError, match="open") as caught:
            probe_video(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert caught.value.errno == errno.EMFILE
    assert probe_video(path).defects == ""
