"""Owns the stand-in's MP4s: what they show, how they sound, how they are encoded. Knows no HTTP."""

from __future__ import annotations

from pipeline.sandbox.film.shape import Label, Shape
from pipeline.sandbox.film.studio import Studio

__all__ = ["Label", "Shape", "Studio"]
