"""The sandbox's MP4s: what they show, how they sound, how they are encoded. Knows no HTTP."""

from __future__ import annotations

from pipeline.sandbox.video.renderer import ClipRenderer
from pipeline.sandbox.video.shape import ClipLabel, ClipShape

__all__ = ["ClipLabel", "ClipRenderer", "ClipShape"]
