"""What the vendor's answers mean: pure functions from status, headers and JSON to typed verdicts.

Facts: the vendor's OpenAPI of `google/veo-3.1-i2v-fast` and its public documentation. Where samples and
schema disagree, both are read. This is the last place where untyped JSON exists.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from pipeline.model import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.errors import StopReason

RUNNING_STATUSES: Final = frozenset({"waiting", "active", "queued", "generating", "processing", "pending"})
COMPLETED_STATUSES: Final = frozenset({"completed", "complete", "succeeded"})
FAILED_STATUSES: Final = frozenset({"error", "failed", "cancelled", "canceled"})

MAX_MESSAGE_CHARS: Final = 2000
MAX_REQUEST_ID_CHARS: Final = 200
CREDITS_PER_USD: Final = 2_000_000
"""The vendor's documentation: $1 is 2,000,000 credits."""

# A refusal of the content will be refused again; a provider's fault may pass. The vendor has no field
# that tells the two apart, only names, types and sentences, so these fragments are looked for in them.
_POLICY_MARKERS: Final = (
    "policy", "policies", "flagged", "safety", "moderat", "nsfw", "prohibited", "sensitive", "violat",
    "guideline", "blocked", "unsafe", "responsible ai", "inappropriate", "copyright", "celebrit",
)  # fmt: skip
_CONTENT_QUALIFIERS: Final = (
    "filter", "refus", "reject", "check", "not allowed", "disallow", "harmful", "explicit",
)  # fmt: skip
"""What makes "content" a judgement: alone it stands in transport words, such as Content-Length, too."""

_INVALID_INPUT_MARKERS: Final = (
    "invalid",
    "validation",
    "unprocessable",
    "bad request",
    "badrequest",
    "value_error",
)


class Phase(Enum):
    """What a status answer says about a generation. UNKNOWN is never final."""

    RUNNING = auto()
    COMPLETED = auto()
    FAILED = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class GenerationStatus:
    """One readable answer about a generation. Money as the answer told it, None where it did not."""

    phase: Phase
    status: str
    generation_id: str = ""
    video_url: str = ""
    failure: Failure | None = None
    credits_used: float | None = None
    usd_spent: float | None = None
    request_id: str = ""
    video_urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StatusError:
    """A request that learned nothing: it costs time only. `http_status` is 0 without an answer.

    `misdirected`: the answer is about another generation than the one asked for.
    """

    http_status: int
    message: str
    retry_after: str | None = None
    request_id: str = ""
    misdirected: bool = False


@dataclass(frozen=True, slots=True)
class Accepted:
    """The vendor took the job; `look` is what its answer already says of it."""

    generation_id: str
    generation_status: GenerationStatus


@dataclass(frozen=True, slots=True)
class Rejected:
    """This job will never be accepted as it is. `request_id` is the vendor's, for its support."""

    failure: Failure
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class RetryableRejection:
    """Proven not accepted, for a reason that may pass. `reached` says whether the API answered."""

    message: str
    reached: bool


@dataclass(frozen=True, slots=True)
class RateLimited:
    """429: too fast or too many. No fault of the job."""

    message: str
    retry_after: str | None


@dataclass(frozen=True, slots=True)
class AccountBlocked:
    """The account cannot go on (key, credits, quota): no create will be accepted for now."""

    reason: StopReason
    message: str
    retry_after: str | None = None
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class OutcomeUnknown:
    """It may have been accepted, and then it will be charged. Never send it again blindly.

    `inference_id` is what the answer called the generation, "" when it did not.
    """

    message: str
    inference_id: str = ""
    request_id: str = ""


CreateResult = Accepted | Rejected | RetryableRejection | RateLimited | AccountBlocked | OutcomeUnknown


@dataclass(frozen=True, slots=True)
class LogRow:
    """One request of ours in the vendor's log."""

    client_request_id: str
    inference_id: str
    request_id: str = ""
    succeeded: bool | None = None
    model: str = ""
    created: str = ""
    usd: float | None = None
    credits: float | None = None


@dataclass(frozen=True, slots=True)
class LogPage:
    """A page of the log: our reading of its rows, how many there were, and whether another page follows."""

    rows: tuple[LogRow, ...]
    row_count: int
    has_more: bool


_RUNNING_BY_STATUS: Final[Mapping[str, GenerationStatus]] = {
    status: GenerationStatus(Phase.RUNNING, status) for status in RUNNING_STATUSES
}


class UnreadableResponseError(ValueError):
    """The body is not the JSON object that was promised."""


def parse_object(body: bytes) -> dict[str, object]:
    """Return `body` as a JSON object; raises `UnreadableAnswerError` for anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnreadableResponseError(excerpt(body)) from error
    if not isinstance(value, dict):
        raise UnreadableResponseError(excerpt(body))
    return value


def excerpt(body: bytes, limit: int = 200) -> str:
    """Return the start of a body in one printable line of at most `limit` characters."""
    text = " ".join(body[: limit * 4].decode("utf-8", "replace").split())
    text = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return text[:limit] or "an empty body"


def parse_generation(payload: Mapping[str, object], headers: Mapping[str, str]) -> GenerationStatus:
    """Read a generation as create and status return it. The status alone decides the phase."""
    status = _text(payload.get("status")).strip().lower()
    generation_id = _parse_id(payload.get("id")) or _parse_id(payload.get("generation_id"))
    usage_credits, usd = _parse_usage(payload, headers)
    phase = _phase(status)
    urls = video_urls(payload) if phase is Phase.COMPLETED else ()
    failure: Failure | None = None
    if phase is Phase.FAILED:
        failure = generation_failure(payload.get("error"), status)
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
        request_id_of(headers, payload) if failure is not None else "",
        urls if len(urls) > 1 else (),
    )


def parse_status(payload: Mapping[str, object], headers: Mapping[str, str]) -> GenerationStatus:
    """Read a status answer. Nearly all of them say that nothing is final yet: then nothing else is read."""
    status = payload.get("status")
    running = _RUNNING_BY_STATUS.get(status) if isinstance(status, str) else None
    return parse_generation(payload, headers) if running is None else running


def is_about(payload: Mapping[str, object], generation_id: str) -> bool:
    """Whether a status answer is about `generation_id`; one that names no id is taken to be.

    The id may be `<uuid>` in one answer and `<uuid>:<model>` in another one of the same generation.
    """
    answered = _parse_id(payload.get("id")) or _parse_id(payload.get("generation_id"))
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
    urls = (_text(entry.get("url")) if isinstance(entry, dict) else _text(entry) for entry in entries)
    return tuple(
        dict.fromkeys(url.strip() for url in urls if url.strip().lower().startswith(("http://", "https://")))
    )


def request_id(headers: Mapping[str, str], body: bytes) -> str:
    """Return the vendor's id of a request, which its support asks for; "" when the answer has none.

    It stands in a header (`x-request-id`) or, in either shape of errors, in the body (`requestId`).
    """
    try:
        payload = parse_object(body)
    except UnreadableResponseError:
        payload = {}
    return request_id_of(headers, payload)


def request_id_of(headers: Mapping[str, str], payload: Mapping[str, object]) -> str:
    """Do as `request_id` does, with a body that is parsed already."""
    found = headers.get("x-request-id") or payload.get("requestId") or payload.get("request_id")
    return _parse_id(found).strip()[:MAX_REQUEST_ID_CHARS]


def _no_video_failure(payload: Mapping[str, object]) -> Failure:
    _, message = parse_error(payload.get("error"))
    prefix = f"{message}; " if message else ""
    return Failure(
        "no_video", f"{prefix}completed without a video URL; the vendor's answer: {_truncated_json(payload)}"
    )


def generation_failure(error: object, status: str) -> Failure:
    """Say why a generation ended badly, in the vendor's words, and whether another try may help."""
    name, detail = parse_error(error)
    message = ": ".join(part for part in (name, detail) if part) or f"the generation ended as {status!r}"
    lowered = message.lower()
    content_rejected = "content" in lowered and any(word in lowered for word in _CONTENT_QUALIFIERS)
    if content_rejected or any(word in lowered for word in _POLICY_MARKERS):
        return Failure("content_refused", message)
    if any(word in lowered for word in _INVALID_INPUT_MARKERS):
        return Failure("generation_refused", message)
    return Failure("generation_error", message, retryable=not status.startswith("cancel"))


def parse_error(error: object) -> tuple[str, str]:
    """Return (name, message) of an error in any of the shapes seen: object, `detail` list, string."""
    if isinstance(error, str):
        return "", storable_text(error.strip()[:MAX_MESSAGE_CHARS])
    if isinstance(error, list):
        return "", storable_text(_detail_message(error)[:MAX_MESSAGE_CHARS])
    if not isinstance(error, dict) or not error:
        return "", ""
    name = _text(error.get("name")) or _text(error.get("code"))
    raw_message = error.get("message")
    message = _text(raw_message) or _detail_message(error.get("detail"))
    if not message and (raw_message or not name):
        message = _truncated_json(raw_message or error)
    return storable_text(name.strip()[:200]), storable_text(message.strip()[:MAX_MESSAGE_CHARS])


def _truncated_json(value: object) -> str:
    """The vendor's own JSON, as far as it is kept. What could just be read may be too deep to be written."""
    try:
        return json.dumps(value)[:MAX_MESSAGE_CHARS]
    except RecursionError:
        return "(nested too deeply to be shown)"


def _detail_message(detail: object) -> str:
    if isinstance(detail, str):
        return detail
    if not isinstance(detail, list):
        return ""
    messages = []
    for item in detail:
        if not isinstance(item, dict):
            messages.append(_text(item))
            continue
        loc = item.get("loc")
        location = ".".join(str(part) for part in loc) if isinstance(loc, list) else _text(loc)
        error_type = _text(item.get("type"))
        text = _text(item.get("msg")) or _text(item.get("message"))
        messages.append(
            f"{location + ': ' if location else ''}{text}{f' ({error_type})' if error_type else ''}"
        )
    return "; ".join(word for word in messages if word)


def error_message(body: bytes) -> str:
    """Return what an error body says: its `message` (and field errors), else its first characters."""
    try:
        payload = parse_object(body)
    except UnreadableResponseError:
        return excerpt(body)
    message = payload.get("message")
    parts = [_text(part) for part in message] if isinstance(message, list) else [_text(message)]
    _, nested_message = parse_error(payload.get("error"))
    parts.append(nested_message if nested_message not in parts else "")
    parts.append(_detail_message(payload.get("detail")))
    parts += [
        _truncated_json(payload[extra]) for extra in ("errors", "issues", "details") if payload.get(extra)
    ]
    text = "; ".join(part for part in parts if part)
    return storable_text(text or excerpt(body, 500))[:MAX_MESSAGE_CHARS]


def parse_log_page(body: bytes, *, offset: int) -> LogPage:
    """Read a page of `/v2/logs`; raises `UnreadableAnswerError` when there is no list of rows in it.

    So does a page that shows nothing and says that there is more: the end of such a log proves no absence,
    and absence is what lets a create be sent again.
    """
    payload = parse_object(body)
    items = _find_log_rows(payload)
    rows = tuple(_parse_log_row(item) for item in items if isinstance(item, dict))
    pagination = payload.get("pagination")
    page_info: Mapping[str, object] = pagination if isinstance(pagination, dict) else {}
    total = page_info.get("total")
    has_more = page_info.get("has_more")
    if isinstance(has_more, bool):
        more = has_more
    elif isinstance(total, int):
        more = offset + len(items) < total
    else:
        more = True  # nobody says where the log ends: an empty page does
    if more and not items and (has_more is True or isinstance(total, int)):
        raise UnreadableResponseError("a log that ends where it says that there is more")
    return LogPage(rows, len(items), more and bool(items))


def parse_balance(body: bytes) -> float | None:
    """Read `/v2/billing`: USD, below zero when overdrawn; None for what is no amount."""
    try:
        value = parse_object(body).get("current_balance")
    except UnreadableResponseError:
        return None
    return None if isinstance(value, str) else _parse_number(value)


def _find_log_rows(payload: Mapping[str, object]) -> list[object]:
    """The documentation names the rows' fields, not the list that holds them."""
    for name in ("data", "logs", "items", "rows", "results"):
        value = payload.get(name)
        if isinstance(value, list):
            return value
    for value in payload.values():
        if isinstance(value, list) and (
            any(isinstance(item, dict) for item in value) or "pagination" in payload
        ):
            return value
    raise UnreadableResponseError("a log without rows")


def _parse_log_row(item: Mapping[str, object]) -> LogRow:
    cost = item.get("cost")
    cost_fields: Mapping[str, object] = cost if isinstance(cost, dict) else {}
    status = _text(item.get("status")).lower()
    return LogRow(
        client_request_id=_text(item.get("client_request_id")),
        inference_id=_parse_id(item.get("inference_id")),
        request_id=_parse_id(item.get("request_id")),
        succeeded={"succeeded": True, "failed": False}.get(status),
        model=_text(item.get("model")),
        created=_text(item.get("created")),
        usd=_parse_amount(cost_fields.get("usd")),
        credits=_parse_amount(cost_fields.get("credits")),
    )


def _parse_usage(
    payload: Mapping[str, object], headers: Mapping[str, str]
) -> tuple[float | None, float | None]:
    meta = payload.get("meta")
    usage = meta.get("usage") if isinstance(meta, dict) else None
    credits_used = _parse_amount(usage.get("credits_used")) if isinstance(usage, dict) else None
    usd = _parse_amount(usage.get("usd_spent")) if isinstance(usage, dict) else None
    header_credits = _parse_amount(headers.get("x-aimlapi-credits-used"))
    header_usd = _parse_amount(headers.get("x-aimlapi-usd-spent"))
    spent_credits = header_credits if credits_used is None else credits_used
    spent_usd = usd if header_usd is None else header_usd
    if spent_usd is None and spent_credits is not None:
        spent_usd = spent_credits / CREDITS_PER_USD
    return spent_credits, spent_usd


def _parse_amount(value: object) -> float | None:
    """A number that can be an amount of money or credits that were spent."""
    number = _parse_number(value)
    return number if number is not None and number >= 0 else None


def _parse_number(value: object) -> float | None:
    """A finite number, in any of the spellings JSON allows."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _parse_id(value: object) -> str:
    """Ids are opaque; a number is one too."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(value)


def _text(value: object) -> str:
    return storable_text(value) if isinstance(value, str) else ""


def storable_text(value: str) -> str:
    """Return a string that every file and database can hold: JSON may spell lone surrogates and NUL."""
    if value.isprintable():
        return value
    return value.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")
