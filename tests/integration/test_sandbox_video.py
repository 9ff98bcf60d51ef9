"""The sandbox's videos: whole, of the requested shape, moving, with a caption that stands still."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import av
import pytest

from pipeline.sandbox import Sandbox
from pipeline.sandbox.video import ClipLabel, ClipRenderer, ClipShape
from tests.integration.raw_client import create, get_status, instant_render_options, send_request

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG = ClipLabel("A fox runs over the dunes while the light changes. " * 12, "id/1", "maker/model", "details")
SHORT = ClipLabel("A cat yawns.", "id/2", "maker/model", "details")


@dataclass(frozen=True, slots=True)
class DecodedClip:
    """A decoded clip: luma rows by frame, times in seconds."""

    metadata: dict[str, str]
    size: tuple[int, int]
    times: list[float]
    luma: list[list[bytes]]
    audio_s: float | None
    duration_s: float

    def band(self, frame: int, shape: ClipShape) -> list[bytes]:
        return self.luma[frame][shape.band_top + 16 :]

    def scene(self, frame: int, shape: ClipShape) -> list[bytes]:
        return self.luma[frame][: shape.band_top - 16]


def decode(data: bytes) -> DecodedClip:
    """Decode everything, sound too; raises PyAV's error when a packet is broken."""
    with av.open(io.BytesIO(data), "r") as container:
        video = container.streams.video[0]
        video.codec_context.options = {"err_detect": "explode"}
        times, luma = [], []
        for frame in container.decode(video):
            plane = frame.planes[0]
            rows = bytes(plane)
            times.append(float(frame.time or 0.0))
            step = plane.line_size
            luma.append([rows[row * step : row * step + frame.width] for row in range(frame.height)])
        duration_s = (container.duration or 0) / 1_000_000
        found = (dict(container.metadata), (video.width, video.height), times, luma)
    return DecodedClip(*found, _audio_s(data), duration_s)


def _audio_s(data: bytes) -> float | None:
    with av.open(io.BytesIO(data), "r") as container:
        if not container.streams.audio:
            return None
        assert container.streams.audio[0].codec_context.name == "aac"
        return sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))


@pytest.fixture
def renderer() -> Iterator[ClipRenderer]:
    made = ClipRenderer()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("resolution", "aspect", "seconds", "audio", "size"),
    [
        ("720p", "16:9", 4, True, (1280, 720)),
        ("720p", "16:9", 5, False, (1280, 720)),
        ("1080p", "9:16", 1, True, (1080, 1920)),
    ],
)
async def test_a_clip_has_the_requested_shape(
    renderer: ClipRenderer, resolution: str, aspect: str, seconds: int, audio: bool, size: tuple[int, int]
) -> None:
    shape = ClipShape.for_request(resolution, aspect, seconds, audio, small=False)
    film = decode(await renderer.clip(shape, LONG))
    assert film.size == size
    assert len(film.times) == seconds * 24
    assert film.times == sorted(set(film.times))
    assert film.duration_s == pytest.approx(seconds, abs=0.1)
    assert (film.audio_s is not None) == audio
    assert film.audio_s is None or film.audio_s == pytest.approx(seconds, abs=0.1)
    assert film.metadata["title"] == LONG.prompt
    assert film.metadata["comment"] == "generation_id=id/1"


def mean_difference(rows: list[bytes], others: list[bytes]) -> float:
    """The mean difference of two pictures in luma steps."""
    steps = [
        abs(a - b) for row, other in zip(rows, others, strict=True) for a, b in zip(row, other, strict=True)
    ]
    return sum(steps) / len(steps)


async def test_the_scene_moves_and_the_caption_stands_still(renderer: ClipRenderer) -> None:
    shape = ClipShape.for_request("720p", "16:9", 6, False, small=False)
    one, other = [decode(await renderer.clip(shape, label)) for label in (LONG, SHORT)]
    for film in (one, other):
        assert film.scene(0, shape) != film.scene(12, shape) != film.scene(24, shape)
        assert film.luma[1] == film.luma[49] == film.luma[97]
        assert mean_difference(film.band(0, shape), film.band(47, shape)) < 0.5
    assert mean_difference(one.band(0, shape), other.band(0, shape)) > 2


@pytest.mark.parametrize("small", [False, True])
async def test_clips_of_two_looks_differ(renderer: ClipRenderer, small: bool) -> None:
    shape = ClipShape.for_request("480p", "16:9", 1, False, small=small)
    films = [
        decode(await renderer.clip(shape, ClipLabel("A cat.", "id", "model", "", look))) for look in (4, 5)
    ]
    assert films[0].scene(0, shape) != films[1].scene(0, shape)


@pytest.mark.parametrize(
    "prompt", ["", "猫があくびをする。", "\x00\n\t", "🦊" * 400, "unbroken" * 200, "أسد يركض"]
)
async def test_no_prompt_is_too_strange_for_a_caption(renderer: ClipRenderer, prompt: str) -> None:
    shape = ClipShape.for_request("480p", "9:16", 1, False, small=False)
    film = decode(await renderer.clip(shape, ClipLabel(prompt, "id", "model", "details")))
    assert film.size == (480, 852)


async def test_the_index_comes_first_and_the_bytes_are_always_the_same() -> None:
    shape = ClipShape.for_request("720p", "16:9", 4, True, small=False)
    made = []
    for _ in range(2):
        renderer = ClipRenderer()
        made.append(await renderer.clip(shape, SHORT))
        renderer.close()
    assert made[0] == made[1]
    assert 0 < made[0].index(b"moov") < made[0].index(b"mdat")


async def test_one_picture_a_loop_is_a_place_to_seek_to(renderer: ClipRenderer) -> None:
    shape = ClipShape.for_request("720p", "16:9", 6, False, small=False)
    data = await renderer.clip(shape, SHORT)
    assert b"stss" in data  # without this table a player takes every frame for one
    with av.open(io.BytesIO(data), "r") as container:
        keys = [
            packet.pts for packet in container.demux(video=0) if packet.is_keyframe and packet.pts is not None
        ]
        step = container.streams.video[0].time_base
    assert [float(pts * step) for pts in keys if step is not None] == [0.0, 2.0, 4.0]


async def test_a_small_clip_is_small_and_still_whole(renderer: ClipRenderer) -> None:
    shape = ClipShape.for_request("1080p", "9:16", 8, True, small=True)
    data = await renderer.clip(shape, LONG)
    film = decode(data)
    assert len(data) < 100_000
    assert film.size == (90, 160)
    assert film.duration_s == pytest.approx(8, abs=0.1)
    assert film.metadata["title"] == LONG.prompt
    assert film.scene(0, shape) != film.scene(6, shape)


async def test_a_finished_generation_is_served_as_requested() -> None:
    async with Sandbox(instant_render_options(video="rendered")) as sandbox:
        for audio in (True, False):
            made = (await create(sandbox, prompt=f"sound {audio}", generate_audio=audio)).json()["id"]
            film = decode((await send_request((await get_status(sandbox, made)).json()["video"]["url"])).body)
            assert film.size == (1280, 720)
            assert film.metadata["title"] == f"sound {audio}"
            assert film.metadata["comment"] == f"generation_id={made}"
            assert (film.audio_s is not None) == audio
