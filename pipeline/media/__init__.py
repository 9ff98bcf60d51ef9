"""Is this a playable video, how long, how large, with sound; and one picture of it.

Owns everything about PyAV and video containers. It blocks: call it in a thread (libav releases the GIL
while it works). It knows no network, no rows and no file names.
"""

from pipeline.media.containers import HEAD_BYTES, container_extension, looks_like_page, starts_like_video
from pipeline.media.examine import Examination, examine
from pipeline.media.expectations import with_mismatch_warnings
from pipeline.media.mp4 import IncompleteVideo, UnplayableVideo
from pipeline.media.probe import preload_decoders

__all__ = [
    "HEAD_BYTES",
    "Examination",
    "IncompleteVideo",
    "UnplayableVideo",
    "container_extension",
    "examine",
    "looks_like_page",
    "preload_decoders",
    "starts_like_video",
    "with_mismatch_warnings",
]
