"""Films that play and look odd: fetched once, kept as they came, with a warning where one is due."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from pipeline.download.download_result import Saved
from tests.integration import faulty_file_hosts as hosts
from tests.integration.sample_videos import make_video
from tests.integration.test_download_faults import download_harness
from tests.unit.test_media_oddities import in_container

if TYPE_CHECKING:
    from pathlib import Path

FILM = make_video(seconds=1)


def box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(data), kind) + data


LATIN_1_COMMENT = box(b"udta", box(b"\xa9cmt", b"\0\3\0\0caf\xe9"))
ODD_FILMS: dict[str, tuple[bytes, str, str]] = {
    "a comment in Latin-1": (FILM + LATIN_1_COMMENT, "mp4", ""),
    "a handler in Latin-1": (FILM.replace(b"VideoHandler", b"Vid\xe9oHandle\xff"), "mp4", ""),
    "a few bytes behind": (FILM + b"\r\n", "mp4", "2 bytes follow the end of the video"),
    "a page behind": (FILM + b"<html></html>", "mp4", "13 bytes follow the end of the video"),
    "a box of 64 bits": (FILM + struct.pack(">I4sQ", 1, b"free", 26) + bytes(10), "mp4", ""),
    "a box to the end": (FILM + struct.pack(">I4s", 0, b"free") + bytes(100), "mp4", ""),
    "another brand": (FILM.replace(b"isom", b"qt  ", 1), "mov", ""),
    "in fragments": (in_container("mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}), "mp4", ""),
    "WebM": (in_container("webm", "libvpx"), "webm", ""),
    "Matroska": (in_container("matroska", "libx264"), "mkv", ""),
    "a transport stream": (in_container("mpegts", "libx264"), "ts", ""),
}


@pytest.mark.parametrize(("film", "extension", "warning"), ODD_FILMS.values(), ids=ODD_FILMS.keys())
async def test_an_odd_film_is_fetched_once_and_kept_as_it_came(
    tmp_path: Path, film: bytes, extension: str, warning: str
) -> None:
    async with hosts.FileHost(film) as host, download_harness(tmp_path) as it:
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, Saved)
    assert outcome.artifact.path == f"videos/row.{extension}"
    assert (tmp_path / outcome.artifact.path).read_bytes() == film
    assert len(host.requests) == 1
    assert [text for text in outcome.artifact.warnings if "bytes" in text] == ([warning] if warning else [])
