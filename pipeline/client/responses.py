"""What the vendor's answers mean: pure functions from status, headers and JSON to typed results.

Facts: the vendor's OpenAPI of `google/veo-3.1-i2v-fast` and its public documentation. Where samples and
schema disagree, both are read. This is the last place where untyped JSON exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

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

if TYPE_CHECKING:
    from collections.abc import Mapping


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
    """One readable answer about a generation. Money is None where the answer does not state it."""

    phase: Phase
    status: str
    generation_id: str = ""
    video_url: str = ""
    failure: Failure | None = None
    credits_used: float | None = None
    usd_spent: float | None = None
    video_urls: tuple[str, ...] = ()


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
        urls[0] if urls else "",
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
    """Return `video.url`, of a list each entry's: each is a clip that was paid for."""
    video = payload.get("video")
    entries = video if isinstance(video, list) else [video]
    urls = (text_of(entry.get("url")) if isinstance(entry, dict) else text_of(entry) for entry in entries)
    return tuple(
        dict.fromkeys(url.strip() for url in urls if url.strip().lower().startswith(("http://", "https://")))
    )


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
