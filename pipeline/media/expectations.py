"""Where a video differs from what was asked for. Pure: facts and fields in, messages out."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.model import Media

DURATION_TOLERANCE_S: Final = 0.5
_RESOLUTION: Final = re.compile(r"([0-9]{1,6})p")
_ASPECT: Final = re.compile(r"([0-9]{1,6}):([0-9]{1,6})")
VEO: Final = "google/veo-3.1-i2v-fast"
VEO_DEFAULTS: Final = {"duration": 8, "resolution": "1080p", "generate_audio": True}
"""What the vendor makes of fields that were left out; known for this model only."""


def find_mismatches(media: Media, body: Mapping[str, Any]) -> tuple[str, ...]:
    """Say where the video differs from what `body` (the create's fields) asked for, as warnings.

    What was left out is compared with the vendor's defaults for the model we know, and with nothing
    for any other.
    """
    requested = {**(VEO_DEFAULTS if body.get("model") == VEO else {}), **body}
    return tuple(
        message
        for message in (
            _duration_mismatch(media, requested.get("duration")),
            _resolution_mismatch(media, requested.get("resolution")),
            _aspect_mismatch(media, requested.get("aspect_ratio")),
            _audio_mismatch(media, requested.get("generate_audio")),
        )
        if message
    )


def with_mismatch_warnings(media: Media, body: Mapping[str, Any]) -> Media:
    """`media` with the warnings of `find_mismatches` added to its own."""
    return replace(media, warnings=media.warnings + find_mismatches(media, body))


def _duration_mismatch(media: Media, requested: object) -> str:
    try:
        seconds = float(str(requested).removesuffix("s"))
    except ValueError:
        return ""
    if abs(media.duration_s - seconds) <= DURATION_TOLERANCE_S:
        return ""
    return f"{media.duration_s:.1f} s long, {seconds:g} s asked"


def _resolution_mismatch(media: Media, requested: object) -> str:
    text = str(requested).lower()
    match = _RESOLUTION.fullmatch(text)
    lines = {"2k": 1440, "4k": 2160}.get(text) or (int(match[1]) if match else 0)
    if not lines or min(media.width, media.height) == lines:
        return ""
    return f"{media.width}x{media.height}, {text} asked"


def _aspect_mismatch(media: Media, requested: object) -> str:
    match = _ASPECT.fullmatch(str(requested))
    width, height = map(int, match.groups()) if match else (0, 0)
    if not (width and height and media.height):
        return ""
    ratio = width / height
    if abs(media.width / media.height / ratio - 1) <= 0.02:
        return ""
    return f"{media.width}x{media.height}, {requested} asked"


def _audio_mismatch(media: Media, requested: object) -> str:
    if not isinstance(requested, bool) or requested == media.has_audio:
        return ""
    return "no sound, sound asked" if requested else "with sound, none asked"
