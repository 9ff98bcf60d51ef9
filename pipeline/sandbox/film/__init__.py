"""Owns the stand-in's MP4s: what they show, how they sound, how they are encoded. Knows no HTTP."""

from __future__ import annotations

from pipeline.sandbox.film.shape import ClipLabel, ClipShape
from pipeline.sandbox.film.studio import ClipRenderer

__all__ = ["ClipLabel", "ClipRenderer", "ClipShape"]
