"""The reel: as long as its clips together, copied or encoded, with sound that stays with its picture."""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
from PIL import Image

from pipeline.media.contact_sheet import CELLS_A_SHEET, Cell, contact_sheets, slate
from pipeline.media.reel import SLATE_S, ReelClip, join_clips
from pipeline.media.typesetting import Typesetter

if TYPE_CHECKING:
    from pathlib import Path

RATE = 48_000


def clip(
    path: Path,
    *,
    seconds: float = 1.0,
    size: tuple[int, int] = (160, 90),
    fps: int = 24,
    sound_rate: int | None = RATE,
    sound_s: float | None = None,
    late: Fraction = Fraction(0),
) -> ReelClip:
    """Write a clip that flashes and beeps at once, a third of the way in; its sound may be shorter."""
    with av.open(str(path), "w") as target:
        video: Any = target.add_stream("libx264", rate=fps)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        sound: Any = target.add_stream("aac", rate=sound_rate, layout="mono") if sound_rate else None
        count = round(seconds * fps)
        for number in range(count):
            lit = 255 if count // 3 <= number < count // 3 + 4 else 16
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), lit, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            target.mux(video.encode(frame))
        target.mux(video.encode(None))
        if sound_rate:
            times = np.arange(round((sound_s or seconds) * sound_rate)) / sound_rate
            beeping = (times >= count // 3 / fps) & (times < (count // 3 + 4) / fps)
            wave = np.where(beeping, 0.8 * np.sin(2 * np.pi * 1000 * times), 0).astype(np.float32)
            block = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = sound_rate, 0, Fraction(1, sound_rate)
            target.mux(sound.encode(block))
            target.mux(sound.encode(None))
    return ReelClip(path)


def flashes(path: Path) -> list[float]:
    """Return when the picture turns bright, in seconds."""
    found, dark = [], True
    with av.open(str(path)) as source:
        for frame in source.decode(video=0):
            lit = frame.to_ndarray(format="gray").mean() > 60
            if lit and dark:
                found.append(float(frame.time or 0))
            dark = not lit
    return found


def beeps(path: Path) -> list[float]:
    """Return when the sound sets in, in seconds, by the time stamps that a player goes by."""
    loud: list[float] = []
    with av.open(str(path)) as source:
        for frame in source.decode(audio=0):
            samples = np.abs(frame.to_ndarray()[0])
            loud += [float(frame.time or 0) + n / frame.sample_rate for n in np.nonzero(samples > 0.3)[0]]
    return [at for before, at in zip([-1.0, *loud], loud, strict=False) if at - before > 0.1]


def length(path: Path) -> float:
    with av.open(str(path)) as source:
        return (source.duration or 0) / 1_000_000


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as source:
        return [bytes(packet) for packet in source.demux(video=0) if packet.size]


def assert_in_sync(reel: Path, count: int) -> None:
    seen, heard = flashes(reel), beeps(reel)
    assert len(seen) == len(heard) == count, (seen, heard)
    assert max(abs(a - b) for a, b in zip(seen, heard, strict=True)) < 0.045


def test_clips_that_agree_are_copied_and_stay_in_sync(tmp_path: Path) -> None:
    clips = [clip(tmp_path / f"{n}.mp4", sound_s=(0.8, 1.0, 1.03)[n % 3]) for n in range(12)]
    shape = join_clips(clips, tmp_path / "reel.mp4")
    assert shape.copied
    assert length(tmp_path / "reel.mp4") == pytest.approx(12.0, abs=0.05)
    assert packets(tmp_path / "reel.mp4") == [data for one in clips for data in packets(one.path)]
    assert_in_sync(tmp_path / "reel.mp4", 12)


def test_clips_of_mixed_sizes_rates_and_sound_are_encoded(tmp_path: Path) -> None:
    clips = [
        clip(tmp_path / "a.mp4"),
        clip(tmp_path / "b.mp4", size=(90, 160), fps=30, sound_rate=44_100),
        clip(tmp_path / "c.mp4", size=(320, 180), fps=25, seconds=1.4, sound_s=1.0),
        clip(tmp_path / "d.mp4", seconds=0.9),
    ]
    shape = join_clips(clips, tmp_path / "reel.mp4")
    assert (shape.copied, shape.width, shape.height, shape.fps) == (False, 160, 90, Fraction(30))
    assert length(tmp_path / "reel.mp4") == pytest.approx(1 + 1 + 1.4 + 22 / 24, abs=0.05)
    assert_in_sync(tmp_path / "reel.mp4", 4)


def test_a_silent_clip_between_two_others_is_silence(tmp_path: Path) -> None:
    clips = [clip(tmp_path / "a.mp4"), clip(tmp_path / "b.mp4", sound_rate=None), clip(tmp_path / "c.mp4")]
    join_clips(clips, tmp_path / "reel.mp4")
    seen, heard = flashes(tmp_path / "reel.mp4"), beeps(tmp_path / "reel.mp4")
    assert len(seen) == 3
    assert heard == [pytest.approx(seen[0], abs=0.045), pytest.approx(seen[2], abs=0.045)]
    join_clips([clips[1]], tmp_path / "silent.mp4")
    with av.open(str(tmp_path / "silent.mp4")) as source:
        assert not source.streams.audio


def test_slates_stand_before_their_clips(tmp_path: Path) -> None:
    plain = [clip(tmp_path / f"{n}.mp4") for n in range(2)]
    setter = Typesetter([])
    clips = [
        ReelClip(one.path, partial(slate, f"row-{n}", "A prompt.", (160, 90), setter))
        for n, one in enumerate(plain)
    ]
    assert not join_clips(clips, tmp_path / "reel.mp4").copied
    assert length(tmp_path / "reel.mp4") == pytest.approx(2 * (1 + SLATE_S), abs=0.05)
    assert flashes(tmp_path / "reel.mp4")[0] == pytest.approx(SLATE_S + 1 / 3, abs=0.05)
    assert_in_sync(tmp_path / "reel.mp4", 2)


def test_a_contact_sheet_has_a_place_for_each_and_grows_no_giant(tmp_path: Path) -> None:
    red = tmp_path / "red.png"
    Image.new("RGB", (32, 18), "red").save(red)
    texts = "word " * 60 + "x" * 200
    cells = [Cell(f"row-{n}", texts, red if n else None) for n in range(CELLS_A_SHEET + 1)]
    first, second = contact_sheets(cells, Typesetter([]))
    assert first.width > second.width
    assert second.getpixel((100, 100)) == (255, 0, 0)
    assert max(first.size) < 5000


def test_a_poster_that_is_damaged_leaves_its_place_dark(tmp_path: Path) -> None:
    path = tmp_path / "damaged.png"
    Image.effect_noise((64, 36), 80).save(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"IDAT") - 4
    data[at : at + 4] = (100).to_bytes(4, "big")  # the next chunk begins in the middle of this one
    path.write_bytes(data)
    with Image.open(path) as image, pytest.raises(SyntaxError):
        image.load()
    [sheet] = contact_sheets([Cell("row", "A prompt.", path)], Typesetter([]))
    assert sheet.getpixel((100, 100)) == (22, 21, 15)
