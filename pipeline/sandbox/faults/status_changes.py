"""What a generation's faults make of its true status: late URLs, flaps, unparsable URLs. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline.sandbox.state import FINAL_STATUSES, Status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.sandbox.state import Generation

BAD_URLS: Final[Mapping[str, str]] = {
    "port": "http://127.0.0.1:99999/video.mp4",
    "port-text": "http://cdn.example.com:abc/video.mp4",
    "long-label": f"http://{'a' * 64}.example.com/video.mp4",
    "empty-label": "http://cdn..example.com/video.mp4",
    "brackets": "http://[::1/video.mp4",
    "no-host": "http:///video.mp4",
    "relative": "/generations/video.mp4",
    "scheme": "gopher://cdn.example.com/video.mp4",
    "spaces": "http://cdn.example .com/a video.mp4",
    "nul": "http://cdn.example.com/video\x00.mp4",
    "surrogate": "http://cdn.example.com/\ud800.mp4",
}
"""URLs that parsers and resolvers refuse, each in its own way, by the name that a fault's `value` gives."""


def bad_url(value: float | str | None) -> str:
    """One of `BAD_URLS` by its name, any other text as it is; the first without a value."""
    return BAD_URLS.get(str(value), str(value)) if value is not None else BAD_URLS["port"]


def apply_generation_faults(
    generation: Generation, status: Status, url: str | Sequence[str] | None
) -> tuple[Status, str | Sequence[str] | None]:
    """What the status call answers instead of `status` and `url`; `final_polls` includes this request."""
    if status not in FINAL_STATUSES:
        return status, url
    polls = generation.final_polls
    for fault in generation.faults:
        first = polls <= fault.number(1) if fault.name in COUNTED_FAULTS else True
        match fault.name:
            case "completed-without-url":
                url = None
            case "completed-late-url" if first:
                url = None
            case "error-then-completed" if first:
                return Status.ERROR, None
            case "completed-then-error" if not first:
                return Status.ERROR, None
            case "bad-url":
                url = bad_url(fault.value)
    return status, url


COUNTED_FAULTS: Final = frozenset({"completed-late-url", "error-then-completed", "completed-then-error"})
"""Faults whose `value` is a number of status requests after the end."""
