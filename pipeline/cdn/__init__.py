"""The CDN over HTTP: one open body at a time, redirects followed by hand, no key ever sent.

It knows URLs, headers and sockets, and nothing of files, rows or the vendor's API.
"""

from pipeline.cdn.client import (
    Answer,
    Body,
    Changed,
    Complete,
    Expired,
    Trouble,
    Unreachable,
    open_body,
    open_session,
)
from pipeline.cdn.headers import Origin
from pipeline.cdn.policy import Refused, shown
from pipeline.cdn.stall import StallMeter

__all__ = [
    "Answer",
    "Body",
    "Changed",
    "Complete",
    "Expired",
    "Origin",
    "Refused",
    "StallMeter",
    "Trouble",
    "Unreachable",
    "open_body",
    "open_session",
    "shown",
]
