"""Where a video differs from what was asked for. Pure: facts and fields in, words out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.model import Media

DURATION_TOLERANCE_S: Final = 0.5
VEO: Final = "google/veo-3.1-i2v-fast"
VEO_DEFAULTS: Final = {"duration": 8, "resolution": "1080p", "generate_audio": True}
"""What the vendor makes of fields that were left out; known for this model only."""


def compare(media: Media, body: Mapping[str, Any]) -> tuple[str, ...]:
    """Say where the video differs from what `body` (the create's fields) asked for; words, not failures.

    What was left out is compared with the vendor's defaults for the model we know, and with nothing
    for any other.
    """
    asked = {**(VEO_DEFAULTS if body.get("model") == VEO else {}), **body}
    return tuple(
        words
        for words in (
            _wrong_duration(media, asked.get("duration")),
            _wrong_resolution(media, asked.get("resolution")),
            _wrong_aspect(media, asked.get("aspect_ratio")),
            _wrong_sound(media, asked.get("generate_audio")),
        )
        if words
    )


def checked(media: Media, body: Mapping[str, Any]) -> Media:
    """`media` with the warnings of `compare` added to its own."""
    return replace(media, warnings=media.warnings + compare(media, body))


def _wrong_duration(media: Media, asked: object) -> str:
    try:
        seconds = float(str(asked).removesuffix("s"))
    except ValueError:
        return ""
    if abs(media.duration_s - seconds) <= DURATION_TOLERANCE_S:
        return ""
    return f"{media.duration_s:.1f} s long, {seconds:g} s asked"


def _wrong_resolution(media: Media, asked: object) -> str:
    text = str(asked).lower()
    lines = {"2k": 1440, "4k": 2160}.get(text) or (
        int(text[:-1]) if text[:-1].isdigit() and text[-1] == "p" else 0
    )
    if not lines or min(media.width, media.height) == lines:
        return ""
    return f"{media.width}x{media.height}, {text} asked"


def _wrong_aspect(media: Media, asked: object) -> str:
    wide, colon, high = str(asked).partition(":")
    if not (colon and wide.isdigit() and high.isdigit() and int(wide) and int(high) and media.height):
        return ""
    ratio = int(wide) / int(high)
    if abs(media.width / media.height / ratio - 1) <= 0.02:
        return ""
    return f"{media.width}x{media.height}, {asked} asked"


def _wrong_sound(media: Media, asked: object) -> str:
    if not isinstance(asked, bool) or asked == media.has_audio:
        return ""
    return "no sound, sound asked" if asked else "with sound, none asked"
