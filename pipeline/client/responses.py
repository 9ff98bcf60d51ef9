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

RUNNING: Final = frozenset({"waiting", "active", "queued", "generating", "processing", "pending"})
COMPLETED: Final = frozenset({"completed", "complete", "succeeded"})
ENDED_BADLY: Final = frozenset({"error", "failed", "cancelled", "canceled"})

KEPT_BODY_CHARS: Final = 2000

# A refusal of the content will be refused again; a provider's fault may pass. The vendor has no field
# that tells the two apart, only names, types and sentences, so these fragments are looked for in them.
_CONTENT_WORDS: Final = (
    "policy", "policies", "flagged", "safety", "moderat", "nsfw", "prohibited", "sensitive", "violat",
    "guideline", "blocked", "unsafe", "responsible ai", "inappropriate", "copyright", "celebrit",
)  # fmt: skip
_CONTENT_WITH: Final = (
    "filter", "refus", "reject", "check", "not allowed", "disallow", "harmful", "explicit",
)  # fmt: skip
"""What makes "content" a judgement: alone it stands in transport words, such as Content-Length, too."""

_INVALID_WORDS: Final = ("invalid", "validation", "unprocessable", "bad request", "badrequest", "value_error")


class Phase(Enum):
    """What a status answer says about a generation. UNKNOWN is never final."""

    RUNNING = auto()
    COMPLETED = auto()
    FAILED = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class Look:
    """One readable answer about a generation. Money as the answer told it, None where it did not."""

    phase: Phase
    status: str
    generation_id: str = ""
    video_url: str = ""
    failure: Failure | None = None
    credits_used: float | None = None
    usd_spent: float | None = None


@dataclass(frozen=True, slots=True)
class LookTrouble:
    """A look that saw nothing: it costs time only. `code` is the HTTP status, 0 without an answer."""

    code: int
    message: str
    retry_after: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The vendor took the job; `look` is what its answer already says of it."""

    generation_id: str
    look: Look


@dataclass(frozen=True, slots=True)
class Refused:
    """This job will never be accepted as it is."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class NotAccepted:
    """Proven not accepted, for a reason that may pass. `reached` says whether the API answered."""

    message: str
    reached: bool


@dataclass(frozen=True, slots=True)
class Throttled:
    """429: too fast or too many. No fault of the job."""

    message: str
    retry_after: str | None


@dataclass(frozen=True, slots=True)
class Halted:
    """The account cannot go on (key, credits, quota): no create will be accepted for now."""

    reason: StopReason
    message: str
    retry_after: str | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may have been accepted, and then it will be charged. Never send it again blindly."""

    message: str


CreateVerdict = Accepted | Refused | NotAccepted | Throttled | Halted | Unknown


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
    length: int
    more: bool


_STILL: Final[Mapping[str, Look]] = {status: Look(Phase.RUNNING, status) for status in RUNNING}


class UnreadableAnswerError(ValueError):
    """The body is not the JSON object that was promised."""


def parse_object(body: bytes) -> dict[str, object]:
    """Return `body` as a JSON object; raises `UnreadableAnswerError` for anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnreadableAnswerError(excerpt(body)) from error
    if not isinstance(value, dict):
        raise UnreadableAnswerError(excerpt(body))
    return value


def excerpt(body: bytes, limit: int = 200) -> str:
    """Return the start of a body in one printable line of at most `limit` characters."""
    text = " ".join(body[: limit * 4].decode("utf-8", "replace").split())
    text = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return text[:limit] or "an empty body"


def parse_look(payload: Mapping[str, object], headers: Mapping[str, str]) -> Look:
    """Read a generation as create and status return it. The status alone decides the phase."""
    status = _text(payload.get("status")).strip().lower()
    identity = _identity(payload.get("id")) or _identity(payload.get("generation_id"))
    usage_credits, usd = _usage(payload, headers)
    phase = _phase(status)
    url = video_url(payload) if phase is Phase.COMPLETED else ""
    failure: Failure | None = None
    if phase is Phase.FAILED:
        failure = generation_failure(payload.get("error"), status)
    elif phase is Phase.COMPLETED and not url:
        phase, failure = Phase.FAILED, _without_video(payload)
    return Look(phase, status, identity, url, failure, usage_credits, usd)


def parse_status(payload: Mapping[str, object], headers: Mapping[str, str]) -> Look:
    """Read a status answer. Nearly all of them say that nothing is final yet: then nothing else is read."""
    status = payload.get("status")
    still = _STILL.get(status) if isinstance(status, str) else None
    return parse_look(payload, headers) if still is None else still


def _phase(status: str) -> Phase:
    if status in RUNNING:
        return Phase.RUNNING
    if status in COMPLETED:
        return Phase.COMPLETED
    return Phase.FAILED if status in ENDED_BADLY else Phase.UNKNOWN


def video_url(payload: Mapping[str, object]) -> str:
    """Return `video.url` (of a list, the first's), or nothing when it is absent or no http(s) address."""
    video = payload.get("video")
    if isinstance(video, list) and video:
        video = video[0]
    url = _text(video.get("url")) if isinstance(video, dict) else _text(video)
    return url.strip() if url.strip().lower().startswith(("http://", "https://")) else ""


def _without_video(payload: Mapping[str, object]) -> Failure:
    _, words = error_words(payload.get("error"))
    said = f"{words}; " if words else ""
    return Failure(
        "no_video", f"{said}completed without a video URL; the vendor's answer: {_dumped(payload)}"
    )


def generation_failure(error: object, status: str) -> Failure:
    """Say why a generation ended badly, in the vendor's words, and whether another try may help."""
    name, words = error_words(error)
    message = ": ".join(part for part in (name, words) if part) or f"the generation ended as {status!r}"
    lowered = message.lower()
    judged = "content" in lowered and any(word in lowered for word in _CONTENT_WITH)
    if judged or any(word in lowered for word in _CONTENT_WORDS):
        return Failure("content_refused", message)
    if any(word in lowered for word in _INVALID_WORDS):
        return Failure("generation_refused", message)
    return Failure("generation_error", message, retryable=not status.startswith("cancel"))


def error_words(error: object) -> tuple[str, str]:
    """Return (name, message) of an error in any of the shapes seen: object, `detail` list, string."""
    if isinstance(error, str):
        return "", clean(error.strip()[:KEPT_BODY_CHARS])
    if isinstance(error, list):
        return "", clean(_detail_words(error)[:KEPT_BODY_CHARS])
    if not isinstance(error, dict) or not error:
        return "", ""
    name = _text(error.get("name")) or _text(error.get("code"))
    said = error.get("message")
    message = _text(said) or _detail_words(error.get("detail"))
    if not message and (said or not name):
        message = _dumped(said or error)
    return clean(name.strip()[:200]), clean(message.strip()[:KEPT_BODY_CHARS])


def _dumped(value: object) -> str:
    """The vendor's own JSON, as far as it is kept. What could just be read may be too deep to be written."""
    try:
        return json.dumps(value)[:KEPT_BODY_CHARS]
    except RecursionError:
        return "(nested too deeply to be shown)"


def _detail_words(detail: object) -> str:
    if isinstance(detail, str):
        return detail
    if not isinstance(detail, list):
        return ""
    words = []
    for item in detail:
        if not isinstance(item, dict):
            words.append(_text(item))
            continue
        loc = item.get("loc")
        place = ".".join(str(part) for part in loc) if isinstance(loc, list) else _text(loc)
        kind = _text(item.get("type"))
        said = _text(item.get("msg")) or _text(item.get("message"))
        words.append(f"{place + ': ' if place else ''}{said}{f' ({kind})' if kind else ''}")
    return "; ".join(word for word in words if word)


def vendor_words(body: bytes) -> str:
    """Return what an error body says: its `message` (and field errors), else its first characters."""
    try:
        payload = parse_object(body)
    except UnreadableAnswerError:
        return excerpt(body)
    message = payload.get("message")
    parts = [_text(part) for part in message] if isinstance(message, list) else [_text(message)]
    _, inner = error_words(payload.get("error"))
    parts.append(inner if inner not in parts else "")
    parts.append(_detail_words(payload.get("detail")))
    parts += [_dumped(payload[extra]) for extra in ("errors", "issues", "details") if payload.get(extra)]
    words = "; ".join(part for part in parts if part)
    return clean(words or excerpt(body, 500))[:KEPT_BODY_CHARS]


def parse_log(body: bytes, *, offset: int) -> LogPage:
    """Read a page of `/v2/logs`; raises `UnreadableAnswerError` when there is no list of rows in it.

    So does a page that shows nothing and says that there is more: the end of such a log proves no absence,
    and absence is what lets a create be sent again.
    """
    payload = parse_object(body)
    items = _rows(payload)
    rows = tuple(_log_row(item) for item in items if isinstance(item, dict))
    pagination = payload.get("pagination")
    facts: Mapping[str, object] = pagination if isinstance(pagination, dict) else {}
    total = facts.get("total")
    has_more = facts.get("has_more")
    if isinstance(has_more, bool):
        more = has_more
    elif isinstance(total, int):
        more = offset + len(items) < total
    else:
        more = True  # nobody says where the log ends: an empty page does
    if more and not items and (has_more is True or isinstance(total, int)):
        raise UnreadableAnswerError("a log that ends where it says that there is more")
    return LogPage(rows, len(items), more and bool(items))


def parse_balance(body: bytes) -> float | None:
    """Read `/v2/billing`: USD, below zero when overdrawn; None for what is no amount."""
    try:
        value = parse_object(body).get("current_balance")
    except UnreadableAnswerError:
        return None
    return None if isinstance(value, str) else _number(value)


def _rows(payload: Mapping[str, object]) -> list[object]:
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
    raise UnreadableAnswerError("a log without rows")


def _log_row(item: Mapping[str, object]) -> LogRow:
    cost = item.get("cost")
    money: Mapping[str, object] = cost if isinstance(cost, dict) else {}
    status = _text(item.get("status")).lower()
    return LogRow(
        client_request_id=_text(item.get("client_request_id")),
        inference_id=_identity(item.get("inference_id")),
        request_id=_identity(item.get("request_id")),
        succeeded={"succeeded": True, "failed": False}.get(status),
        model=_text(item.get("model")),
        created=_text(item.get("created")),
        usd=_amount(money.get("usd")),
        credits=_amount(money.get("credits")),
    )


def _usage(payload: Mapping[str, object], headers: Mapping[str, str]) -> tuple[float | None, float | None]:
    meta = payload.get("meta")
    usage = meta.get("usage") if isinstance(meta, dict) else None
    credits_used = _amount(usage.get("credits_used")) if isinstance(usage, dict) else None
    usd = _amount(usage.get("usd_spent")) if isinstance(usage, dict) else None
    header_credits = _amount(headers.get("x-aimlapi-credits-used"))
    header_usd = _amount(headers.get("x-aimlapi-usd-spent"))
    return (
        header_credits if credits_used is None else credits_used,
        usd if header_usd is None else header_usd,
    )


def _amount(value: object) -> float | None:
    """A number that can be an amount of money or credits that were spent."""
    number = _number(value)
    return number if number is not None and number >= 0 else None


def _number(value: object) -> float | None:
    """A finite number, in any of the spellings JSON allows."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _identity(value: object) -> str:
    """Ids are opaque; a number is one too."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(value)


def _text(value: object) -> str:
    return clean(value) if isinstance(value, str) else ""


def clean(value: str) -> str:
    """Return a string that every file and database can hold: JSON may spell lone surrogates and NUL."""
    if value.isprintable():
        return value
    return value.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")
