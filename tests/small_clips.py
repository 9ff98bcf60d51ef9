"""The embedded sandbox with clips of 160 x 90 that show one scene: one takes 0.002 s, not 0.4 to 1.0."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.sandbox.video.shape import ClipShape

if TYPE_CHECKING:
    from collections.abc import Callable


def make_clips_small(replace: Callable[[Any, str, object], None] = setattr) -> None:
    """Have this process's sandboxes make small clips; `replace` is `setattr`, or a monkeypatch's."""
    from pipeline.sandbox.video import clip  # loads PyAV

    full_size = ClipShape.for_request

    def small_shape(
        resolution: str, aspect_ratio: str, seconds: float, audio: bool, *, small: bool
    ) -> ClipShape:
        return full_size(resolution, aspect_ratio, seconds, audio, small=True)

    replace(ClipShape, "for_request", small_shape)
    replace(clip, "LOOKS", 1)
