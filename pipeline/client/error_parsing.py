"""What an error says, in every shape that the vendor and its gateways use: code, message, request id. Pure.

Facts: the vendor's documentation (classic errors and `application/problem+json`) and its OpenAPI's samples.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from pipeline.client.json_values import (
    MAX_MESSAGE_CHARS,
    UnreadableResponseError,
    excerpt,
    hide_parameters,
    parse_id,
    parse_object,
    storable_text,
    text_of,
    truncated_json,
)
from pipeline.model import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping


MAX_REQUEST_ID_CHARS: Final = 200
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What moves a terminal's cursor or turns the order of a line around."""

# A refusal of the content will be refused again; a provider's fault may pass. The vendor has no field
# that tells the two apart, only names, types and sentences, so these fragments are looked for in them.
_POLICY_MARKERS: Final = (
    "policy", "policies", "flagged", "safety", "moderat", "nsfw", "prohibited", "sensitive", "violat",
    "guideline", "blocked", "unsafe", "responsible ai", "inappropriate", "copyright", "celebrit",
)  # fmt: skip

_CONTENT_QUALIFIERS: Final = (
    "filter", "refus", "reject", "check", "not allowed", "disallow", "harmful", "explicit",
)  # fmt: skip
"""What makes "content" a judgement: alone it occurs in transport errors (Content-Length), too."""

_INVALID_INPUT_MARKERS: Final = (
    "invalid", "validation", "unprocessable", "bad request", "badrequest", "value_error",
)  # fmt: skip


def request_id(headers: Mapping[str, str], body: bytes) -> str:
    """Return the vendor's id of a request, which its support asks for; "" when the answer has none.

    It is in a header (`x-request-id`) or, in either shape of errors, in the body (`requestId`).
    """
    try:
        payload = parse_object(body)
    except UnreadableResponseError:
        payload = {}
    return request_id_of(headers, payload)


def request_id_of(headers: Mapping[str, str], payload: Mapping[str, object]) -> str:
    """Do as `request_id` does, with a body that is parsed already."""
    found = headers.get("x-request-id") or payload.get("requestId") or payload.get("request_id")
    return _message(parse_id(found))[:MAX_REQUEST_ID_CHARS]


def generation_failure(error: object, status: str) -> Failure:
    """Say why a generation ended badly, with the vendor's message, and whether another try may help."""
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
        return "", _message(error)
    if isinstance(error, list):
        return "", _message(_detail_message(error))
    if not isinstance(error, dict) or not error:
        return "", ""
    name = text_of(error.get("name")) or text_of(error.get("code"))
    raw_message = error.get("message")
    message = text_of(raw_message) or _detail_message(error.get("detail"))
    if not message and (raw_message or not name):
        message = truncated_json(raw_message or error)
    return _message(name)[:200], _message(message)


def _message(text: str) -> str:
    shown = _CONTROLS.sub("\ufffd", hide_parameters(text.strip()).replace("\r\n", "\n"))
    return storable_text(shown[:MAX_MESSAGE_CHARS])


def _detail_message(detail: object) -> str:
    if isinstance(detail, str):
        return detail
    if not isinstance(detail, list):
        return ""
    messages = []
    for item in detail:
        if not isinstance(item, dict):
            messages.append(text_of(item))
            continue
        loc = item.get("loc")
        location = ".".join(str(part) for part in loc) if isinstance(loc, list) else text_of(loc)
        error_type = text_of(item.get("type"))
        text = text_of(item.get("msg")) or text_of(item.get("message"))
        messages.append(
            f"{location + ': ' if location else ''}{text}{f' ({error_type})' if error_type else ''}"
        )
    return "; ".join(message for message in messages if message)


def error_message(body: bytes) -> str:
    """Return what an error body says: its `message` (and field errors), else its first characters."""
    try:
        payload = parse_object(body)
    except UnreadableResponseError:
        return excerpt(body)
    message = payload.get("message")
    parts = [text_of(part) for part in message] if isinstance(message, list) else [text_of(message)]
    _, nested_message = parse_error(payload.get("error"))
    parts.append(nested_message if nested_message not in parts else "")
    parts.append(_detail_message(payload.get("detail")))
    parts += [
        truncated_json(payload[extra]) for extra in ("errors", "issues", "details") if payload.get(extra)
    ]
    text = "; ".join(part for part in parts if part)
    return _message(text or excerpt(body, 500))
