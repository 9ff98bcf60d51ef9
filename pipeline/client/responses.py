"""What the vendor's answers mean: pure functions from status, headers and JSON to typed results.

Facts: the vendor's OpenAPI of `google/veo-3.1-i2v-fast` and its public documentation. Where samples and
schema disagree, both are read. This is the last place where untyped JSON exists.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final

from pipeline.client.error_parsing import generation_failure, parse_error
from pipeline.client.json_values import (
    UnreadableResponseError,
    parse_amount,
    parse_id,
    parse_number,
    parse_object,
    text_of,
    truncated_json,
)
from pipeline.model import Failure
from pipeline.plan import NO_VIDEO, clip_urls

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.model import Record


RUNNING_STATUSES: Final = frozenset({"waiting", "active", "queued", "generating", "processing", "pending"})

COMPLETED_STATUSES: Final = frozenset({"completed", "complete", "succeeded"})

FAILED_STATUSES: Final = frozenset({"error", "failed", "cancelled", "canceled"})

CREDITS_PER_USD: Final = 2_000_000
"""The vendor's documentation: $1 is 2,000,000 credits."""


class Phase(Enum):
    """What a status answer says about a generation. UNKNOWN is never final."""

    RUNNING = auto()
    COMPLETED = auto()
    FAILED = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class GenerationStatus:
    """One readable answer about a generation. Money is None where the answer does not state it.

    `video_urls` are those of several clips, each at its place in the answer, "" where it has none yet;
    `video_url` is the first one that is there.
    """

    phase: Phase
    status: str
    generation_id: str = ""
    video_url: str = ""
    failure: Failure | None = None
    credits_used: float | None = None
    usd_spent: float | None = None
    video_urls: tuple[str, ...] = ()

    @property
    def urls(self) -> tuple[str, ...]:
        """The URLs of all clips, each at its place; "" for a clip that has none yet."""
        return self.video_urls or ((self.video_url,) if self.video_url else ())

    @property
    def is_charged(self) -> bool:
        """Return whether the vendor calls the generation completed, with a URL or without."""
        no_video = self.failure is not None and self.failure.code == NO_VIDEO
        return self.phase is Phase.COMPLETED or no_video


@dataclass(frozen=True, slots=True)
class StatusError:
    """A request that learned nothing: it costs time only. `http_status` is 0 without an answer.

    `misdirected`: the answer is about another generation than the one asked for.
    """

    http_status: int
    message: str
    retry_after: str | None = None
    misdirected: bool = False


_RUNNING_BY_STATUS: Final[Mapping[str, GenerationStatus]] = {
    status: GenerationStatus(Phase.RUNNING, status) for status in RUNNING_STATUSES
}


def parse_generation(payload: Mapping[str, object], headers: Mapping[str, str]) -> GenerationStatus:
    """Read a generation as create and status return it. The status alone decides the phase."""
    status = text_of(payload.get("status")).strip().lower()
    generation_id = parse_id(payload.get("id")) or parse_id(payload.get("generation_id"))
    usage_credits, usd = _parse_usage(payload, headers)
    phase = _phase(status)
    urls = video_urls(payload) if phase is Phase.COMPLETED else ()
    failure: Failure | None = None
    if phase is Phase.FAILED:
        failure = generation_failure(payload.get("error"), status)
    # Completed without a URL is charged all the same: a failure that must not be bought again.
    elif phase is Phase.COMPLETED and not urls:
        phase, failure = Phase.FAILED, _no_video_failure(payload)
    return GenerationStatus(
        phase,
        status,
        generation_id,
        next(filter(None, urls), ""),
        failure,
        usage_credits,
        usd,
        urls if len(urls) > 1 else (),
    )


def parse_status(payload: Mapping[str, object], headers: Mapping[str, str]) -> GenerationStatus:
    """Read a status answer. Nearly all of them say that nothing is final yet: then nothing else is read."""
    status = payload.get("status")
    running = _RUNNING_BY_STATUS.get(status) if isinstance(status, str) else None
    return parse_generation(payload, headers) if running is None else running


def is_about(payload: Mapping[str, object], generation_id: str) -> bool:
    """Return whether a status answer is about `generation_id`; one that names no id may be.

    The schema requires the id, which other servers may leave out: what such an answer proves is
    `poll.confirmation`'s to say. The id may be `<uuid>` in one answer and `<uuid>:<model>` in another one
    of the same generation.
    """
    answered = parse_id(payload.get("id")) or parse_id(payload.get("generation_id"))
    if not answered or answered == generation_id:
        return True
    return answered.startswith(f"{generation_id}:") or generation_id.startswith(f"{answered}:")


def _phase(status: str) -> Phase:
    if status in RUNNING_STATUSES:
        return Phase.RUNNING
    if status in COMPLETED_STATUSES:
        return Phase.COMPLETED
    return Phase.FAILED if status in FAILED_STATUSES else Phase.UNKNOWN


def video_urls(payload: Mapping[str, object]) -> tuple[str, ...]:
    """Return `video.url`, of a list each entry's: each is a clip that was paid for.

    An entry without a URL keeps its place as "": its URL may come an answer later. A URL that stands there
    twice is one clip. Nothing is returned where there is no URL at all.
    """
    video = payload.get("video")
    urls: list[str] = []
    for entry in video if isinstance(video, list) else [video]:
        url = (text_of(entry.get("url")) if isinstance(entry, dict) else text_of(entry)).strip()
        if not url.lower().startswith(("http://", "https://")):
            url = ""
        if not url or url not in urls:
            urls.append(url)
    return tuple(urls) if any(urls) else ()


def merged_urls(known: Sequence[str], fresh: Sequence[str]) -> tuple[str, ...]:
    """Return the URLs of a generation's clips after an answer that names `fresh`, each at its place.

    An answer that names fewer clips, or none at a place, takes nothing back: each clip was paid for. Which
    clips a shorter list names is told by their paths, where a signature alone was renewed.
    """
    merged = [*known, *[""] * (len(fresh) - len(known))]
    places = {url.partition("?")[0]: place for place, url in enumerate(known)}
    if len(fresh) >= len(known) or len(places) < len(known):
        places = {}
    for place, url in enumerate(fresh):
        if url:
            merged[places.get(url.partition("?")[0], place)] = url
    return tuple(merged)


def url_fields(record: Record, status: GenerationStatus) -> dict[str, Any]:
    """Return the fields of `record` that say where its clips are, after `status`."""
    urls = merged_urls(clip_urls(record), status.urls)
    return {
        "video_url": next(filter(None, urls), ""),
        "video_urls": json.dumps(urls) if len(urls) > 1 else "",
    }


def _no_video_failure(payload: Mapping[str, object]) -> Failure:
    _, message = parse_error(payload.get("error"))
    prefix = f"{message}; " if message else ""
    return Failure(
        "no_video", f"{prefix}completed without a video URL; the vendor's answer: {truncated_json(payload)}"
    )


def parse_balance(body: bytes) -> float | None:
    """Read `/v2/billing`: USD, below zero when overdrawn; None for what is no amount."""
    try:
        value = parse_object(body).get("current_balance")
    except UnreadableResponseError:
        return None
    return None if isinstance(value, str) else parse_number(value)


def _parse_usage(
    payload: Mapping[str, object], headers: Mapping[str, str]
) -> tuple[float | None, float | None]:
    meta = payload.get("meta")
    usage = meta.get("usage") if isinstance(meta, dict) else None
    credits_used = parse_amount(usage.get("credits_used")) if isinstance(usage, dict) else None
    usd = parse_amount(usage.get("usd_spent")) if isinstance(usage, dict) else None
    header_credits = parse_amount(headers.get("x-aimlapi-credits-used"))
    header_usd = parse_amount(headers.get("x-aimlapi-usd-spent"))
    spent_credits = header_credits if credits_used is None else credits_used
    spent_usd = usd if header_usd is None else header_usd
    if spent_usd is None and spent_credits is not None:
        spent_usd = spent_credits / CREDITS_PER_USD
    return spent_credits, spent_usd
