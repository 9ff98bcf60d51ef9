"""Owns the words of a clip: its shape (size, length, sound) and its label (what it says it is)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MACROBLOCK: Final = 16
SHORT_SIDES: Final = {"480p": 480, "720p": 720, "1080p": 1080}


@dataclass(frozen=True, slots=True)
class FrameFormat:
    """What one encoded body fits: size in pixels, frames a second, and whether it has room for words.

    `band_top` is the first row of the caption's band, on a macroblock's edge; `height` when there is none.
    """

    width: int
    height: int
    fps: int
    has_caption: bool

    @property
    def audio_bit_rate(self) -> int:
        """Bits a second of the sound that goes with it."""
        return 128_000 if self.has_caption else 24_000

    @property
    def band_top(self) -> int:
        if not self.has_caption:
            return self.height
        return round(self.height * 0.745) // MACROBLOCK * MACROBLOCK


@dataclass(frozen=True, slots=True)
class ClipShape:
    """One clip as it was asked for; `seconds` is its length, `audio` whether it has a sound track."""

    frame_format: FrameFormat
    seconds: float
    audio: bool

    @property
    def frames(self) -> int:
        return max(1, round(self.seconds * self.frame_format.fps))

    @classmethod
    def for_request(
        cls, resolution: str, aspect_ratio: str, seconds: float, audio: bool, *, small: bool
    ) -> ClipShape:
        """The shape of a vendor's clip; `small` keeps aspect and length and gives up size and words."""
        short = SHORT_SIDES.get(resolution, 720)
        long = short * 16 // 9
        if small:
            short, long = 90, 160
        width, height = (short, long) if aspect_ratio == "9:16" else (long, short)
        if aspect_ratio == "1:1":
            width = height = short
        return cls(
            FrameFormat(width & ~1, height & ~1, 12 if small else 24, has_caption=not small), seconds, audio
        )


@dataclass(frozen=True, slots=True)
class ClipLabel:
    """What a clip says about itself, on the picture and in the file's metadata."""

    prompt: str
    generation_id: str
    model: str
    details: str = ""
