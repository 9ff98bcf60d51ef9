"""Owns the shapes of the vendor's answers: errors, generations, headers. Decides nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from aiohttp import web

from pipeline.sandbox.state import CREDITS_PER_USD, FINAL_STATUSES, Status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.sandbox.state import Generation

JSON_CONTENT_TYPE: Final = "application/json; charset=utf-8"


def iso_timestamp(seconds: float) -> str:
    """Seconds since the epoch as the vendor writes times: UTC, milliseconds, Z."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """`body` as JSON."""
    data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    return web.Response(
        body=data, status=status, headers={"Content-Type": JSON_CONTENT_TYPE, **(headers or {})}
    )


def error_response(
    request: web.BaseRequest, status: int, message: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    """An error in the vendor's own form."""
    body = {
        "message": message,
        "path": request.path_qs,
        "requestId": str(uuid4()),
        "statusCode": status,
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    return json_response(body, status, headers)


def generation_body(generation: Generation, status: Status, video_url: str | None) -> dict[str, Any]:
    """What create and status answer; `video_url` is given once there is one."""
    done = status is Status.COMPLETED
    name = "generation_id" if generation.find_fault("id-as-generation-id") is not None else "id"
    video: Any = {"url": video_url} if video_url is not None else None
    error = generation_error(generation) if status is Status.ERROR else None
    samples = generation.find_fault("sample-objects")
    if samples is not None and status not in FINAL_STATUSES:
        video, error = sample_objects(empty=samples.value == "empty")
    return {
        name: int(generation.id) if generation.id_is_integer else generation.id,
        "status": status.value,
        "video": video,
        "error": error,
        "meta": {"usage": {"credits_used": generation.credits}} if done else None,
    }


def sample_objects(*, empty: bool) -> tuple[dict[str, str], dict[str, str]]:
    """A `video` and an `error` that mean nothing, as some models show them until the end."""
    if empty:
        return {}, {}
    return {"url": "https://cdn.example.com/generations/sample.mp4"}, {"name": "string", "message": "string"}


def generation_error(generation: Generation) -> Any:
    """Why the generation failed, in one of the forms the vendor uses."""
    fault = generation.find_fault("error", "error-detail", "error-text", "content-refusal")
    match fault.name if fault is not None else "":
        case "error-detail":
            return {
                "detail": [
                    {"loc": ["body", "image_url"], "msg": "Image could not be read", "type": "value_error"}
                ]
            }
        case "error-text":
            return "The provider could not finish this generation."
        case "content-refusal":
            return {
                "name": "content_policy_violation",
                "message": "The prompt was refused by the safety filter.",
            }
        case _:
            return {"name": "internal_error", "message": "The provider failed while it generated the video."}


def generation_headers(generation: Generation, status: Status) -> dict[str, str]:
    """The correlation headers, and what it cost once that is known."""
    headers = {"x-inference-id": generation.id}
    if status is Status.COMPLETED:
        headers["x-aimlapi-usd-spent"] = f"{generation.price_usd:.6g}"
        headers["x-aimlapi-credits-used"] = str(generation.credits)
    return headers


def to_credits(usd: float) -> int:
    return round(usd * CREDITS_PER_USD)
