"""Is this a playable video, how long, how large, with sound; and one picture of it.

Owns everything about PyAV and the MP4 format. It blocks: call it in a thread (libav releases the GIL
while it works). It knows no network, no rows and no file names.
"""

from pipeline.media.expectations import checked, compare
from pipeline.media.mp4 import NotPlayable, begins_like_mp4, outline
from pipeline.media.probe import Look, look, poster, preload, probe

__all__ = [
    "Look",
    "NotPlayable",
    "begins_like_mp4",
    "checked",
    "compare",
    "look",
    "outline",
    "poster",
    "preload",
    "probe",
]
