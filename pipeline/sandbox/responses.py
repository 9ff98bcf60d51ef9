"""The shapes of the vendor's answers: errors, generations, headers.

Facts: the vendor's OpenAPI and guides. Errors come as `{"message", "path", "requestId", "statusCode",
"timestamp"}` or as `application/problem+json`; a header `x-request-id` comes with either.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from pipeline.sandbox import clock
from pipeline.sandbox.call import Call, current_call
from pipeline.sandbox.state import CREDITS_PER_USD, FINAL_STATUSES, Status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.sandbox.options import ErrorShape
    from pipeline.sandbox.state import Generation

JSON_CONTENT_TYPE: Final = "application/json; charset=utf-8"
PROBLEM_CONTENT_TYPE: Final = "application/problem+json; charset=utf-8"


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """`body` as JSON; `headers` may name another content type."""
    data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace")
    return web.Response(
        body=data, status=status, headers={"Content-Type": JSON_CONTENT_TYPE, **(headers or {})}
    )


def error_response(
    request: web.BaseRequest,
    status: int,
    message: str,
    headers: Mapping[str, str] | None = None,
    shape: ErrorShape | None = None,
) -> web.Response:
    """An error in the given shape, else in the one that the request's sandbox uses."""
    call = current_call() or Call()
    if (shape or call.error_shape) == "problem":
        name = status_phrase(status).replace(" ", "") + "Error"
        problem = {
            "title": status_phrase(status),
            "status": status,
            "message": message,
            "instance": request.path,
            "requestId": call.request_id,
            "error": {"name": name},
        }
        return json_response(problem, status, {"Content-Type": PROBLEM_CONTENT_TYPE, **(headers or {})})
    body = {
        "message": message,
        "path": request.path_qs,
        "requestId": call.request_id,
        "statusCode": status,
        "timestamp": clock.iso_timestamp(call.vendor_time),
    }
    return json_response(body, status, headers)


def status_phrase(status: int) -> str:
    """The name of an HTTP status, also of one that no standard names."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Status {status}"


def generation_body(
    generation: Generation, status: Status, video_url: str | Sequence[str] | None
) -> dict[str, Any]:
    """The answer to create and to status; a sequence of URLs makes `video` a list."""
    name = "generation_id" if generation.find_fault("id-as-generation-id") is not None else "id"
    video: Any = _video(video_url)
    error = generation_error(generation) if status is Status.ERROR else None
    samples = generation.find_fault("sample-objects")
    if samples is not None and status not in FINAL_STATUSES:
        video, error = sample_objects(empty=samples.value == "empty")
    has_cost = status is Status.COMPLETED and generation.find_fault("cost-missing") is None
    return {
        name: int(generation.id) if generation.id_is_integer else generation.id,
        "status": status.value,
        "video": video,
        "error": error,
        "meta": {"usage": {"credits_used": generation.credits}} if has_cost else None,
    }


def _video(video_url: str | Sequence[str] | None) -> Any:
    if video_url is None:
        return None
    return {"url": video_url} if isinstance(video_url, str) else [{"url": url} for url in video_url]


def sample_objects(*, empty: bool) -> tuple[dict[str, str], dict[str, str]]:
    """A `video` and an `error` without meaning, as some models show them until the end."""
    if empty:
        return {}, {}
    return {"url": "https://cdn.example.com/generations/sample.mp4"}, {"name": "string", "message": "string"}


def generation_error(generation: Generation) -> Any:
    """Why the generation failed, in one of the forms that the vendor uses."""
    fault = generation.find_fault("error", "error-detail", "error-text", "content-refusal")
    match fault.name if fault is not None else "":
        case "error-detail":
            detail = {"loc": ["body", "image_url"], "msg": "Image could not be read", "type": "value_error"}
            return {"detail": [detail]}
        case "error-text":
            return "The provider could not finish this generation."
        case "content-refusal":
            message = "The prompt was refused by the safety filter."
            return {"name": "content_policy_violation", "message": message}
        case _:
            return {"name": "internal_error", "message": "The provider failed while it generated the video."}


def generation_headers(generation: Generation, status: Status) -> dict[str, str]:
    """The correlation headers, and the cost once it is known."""
    headers = {"x-inference-id": generation.id}
    if status is Status.COMPLETED and generation.find_fault("cost-missing") is None:
        headers["x-aimlapi-credits-used"] = str(generation.credits)
        if generation.find_fault("usd-missing") is None:
            headers["x-aimlapi-usd-spent"] = f"{generation.price_usd:.6g}"
    return headers


def to_credits(usd: float) -> int:
    return round(usd * CREDITS_PER_USD)


def int_query_param(request: web.Request, name: str, default: int, low: int, high: int) -> int:
    """An integer of the query; raises `ValueError` for one that is none or out of range."""
    text = request.query.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise ValueError(f"{name} must be an integer from {low} to {high}")
    return int(text)
