"""Owns the words of a clip: its shape (size, length, sound) and its label (what it says it is)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MACROBLOCK: Final = 16
SHORT_SIDES: Final = {"480p": 480, "720p": 720, "1080p": 1080}


@dataclass(frozen=True, slots=True)
class Picture:
    """What one encoded body fits: size in pixels, frames a second, and whether it has room for words.

    `band_top` is the first row of the caption's band, on a macroblock's edge; `height` when there is none.
    """

    width: int
    height: int
    fps: int
    captioned: bool

    @property
    def audio_bit_rate(self) -> int:
        """Bits a second of the sound that goes with it."""
        return 128_000 if self.captioned else 24_000

    @property
    def band_top(self) -> int:
        if not self.captioned:
            return self.height
        return round(self.height * 0.745) // MACROBLOCK * MACROBLOCK


@dataclass(frozen=True, slots=True)
class Shape:
    """One clip as it was asked for; `seconds` is its length, `audio` whether it has a sound track."""

    picture: Picture
    seconds: float
    audio: bool

    @property
    def frames(self) -> int:
        return max(1, round(self.seconds * self.picture.fps))

    @classmethod
    def asked(cls, resolution: str, aspect_ratio: str, seconds: float, audio: bool, *, small: bool) -> Shape:
        """The shape of a vendor's clip; `small` keeps aspect and length and gives up size and words."""
        short = SHORT_SIDES.get(resolution, 720)
        long = short * 16 // 9
        if small:
            short, long = 90, 160
        across, down = (short, long) if aspect_ratio == "9:16" else (long, short)
        if aspect_ratio == "1:1":
            across = down = short
        return cls(Picture(across & ~1, down & ~1, 12 if small else 24, captioned=not small), seconds, audio)


@dataclass(frozen=True, slots=True)
class Label:
    """What a clip says about itself, on the picture and in the file's metadata."""

    prompt: str
    generation_id: str
    model: str
    details: str = ""
