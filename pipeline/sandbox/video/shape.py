"""What a clip is to be: its shape (size, length, sound) and its label (what it shows about itself)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SHORT_SIDES: Final = {"480p": 480, "720p": 720, "1080p": 1080}


@dataclass(frozen=True, slots=True)
class ClipShape:
    """Size in pixels (both even), frames a second, length, and whether it has sound and a caption."""

    width: int
    height: int
    fps: int
    seconds: float
    audio: bool
    has_caption: bool

    @property
    def frames(self) -> int:
        return max(1, round(self.seconds * self.fps))

    @property
    def band_top(self) -> int:
        """The first row of the caption's band, an even number; `height` when there is none."""
        return round(self.height * 0.372) * 2 if self.has_caption else self.height

    @classmethod
    def for_request(
        cls, resolution: str, aspect_ratio: str, seconds: float, audio: bool, *, small: bool
    ) -> ClipShape:
        """The shape of a vendor's clip; `small` keeps aspect and length and gives up size and caption."""
        short = 90 if small else SHORT_SIDES.get(resolution, 720)
        long = short if aspect_ratio == "1:1" else short * 16 // 9
        width, height = (short, long) if aspect_ratio == "9:16" else (long, short)
        return cls(width & ~1, height & ~1, 12 if small else 24, seconds, audio, has_caption=not small)


@dataclass(frozen=True, slots=True)
class ClipLabel:
    """What a clip says about itself, in picture and metadata.

    `look` chooses its colours; `picture`, an encoded image, is shown in place of a painted scene.
    """

    prompt: str
    generation_id: str
    model: str
    details: str = ""
    look: int = 0
    picture: bytes = b""
