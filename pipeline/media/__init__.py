"""Is this a playable video, how long, how large, with sound; and one picture of it.

Owns everything about PyAV and the MP4 format. It blocks: call it in a thread (libav releases the GIL
while it works). It knows no network, no rows and no file names.
"""

from pipeline.media.containers import HEAD_BYTES, container_extension, looks_like_page, starts_like_video
from pipeline.media.expectations import find_mismatches, with_mismatch_warnings
from pipeline.media.mp4 import UnplayableVideo, check_structure
from pipeline.media.probe import ProbeResult, make_poster, preload_decoders, probe_media, probe_video

__all__ = [
    "HEAD_BYTES",
    "ProbeResult",
    "UnplayableVideo",
    "check_structure",
    "container_extension",
    "find_mismatches",
    "looks_like_page",
    "make_poster",
    "preload_decoders",
    "probe_media",
    "probe_video",
    "starts_like_video",
    "with_mismatch_warnings",
]
