"""The client over aioresponses: what any answer means, without a socket and in milliseconds."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import Mock

from aiohttp import ClientResponse
from aioresponses import aioresponses

from pipeline.client import Api, ApiKey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from pipeline.client import CreateResult, GenerationStatus, StatusError

BASE_URL: Final = "https://api.example.com"
GENERATIONS_URL: Final = f"{BASE_URL}/v2/video/generations"
SECRET: Final = "sk-hush-0123456789"
KEY: Final = ApiKey(SECRET, "AIML_API_KEY")
QUEUED: Final = {"id": "a:b/c", "status": "queued", "video": None, "error": None}


_STREAM_WRITER: Final = Mock()
"""Of every response: to make a mock takes longer than to read an answer."""


class MockedResponse(ClientResponse):
    """A response as aioresponses makes it, with the argument that aiohttp 3.14 asks for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("stream_writer", _STREAM_WRITER)
        super().__init__(*args, **kwargs)


class MockedVendor:
    """Answers that are given once, in the order in which they are added for an address."""

    def __init__(self, mock: aioresponses, api: Api) -> None:
        self._mock = mock
        self.api = api

    def add(
        self, method: str, url: str, status: int, body: object = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        """Let the next request to `url` be answered; a `body` that is not bytes is sent as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._mock.add(
            url, method, status, body=data, headers=dict(headers or {}), response_class=MockedResponse
        )

    def fail(self, method: str, url: str, error: Exception) -> None:
        """Let the next request to `url` end in `error` before it has a connection."""
        self._mock.add(url, method, exception=error)

    @property
    def requests(self) -> list[tuple[str, str, dict[str, Any]]]:
        """All requests so far: the method, the address, and aiohttp's arguments."""
        return [
            (method, str(url), call.kwargs)
            for (method, url), calls in self._mock.requests.items()
            for call in calls
        ]


@asynccontextmanager
async def mocked_vendor() -> AsyncIterator[MockedVendor]:
    """A client whose every request is answered by the test, or fails the test."""
    with aioresponses() as mock:
        async with Api(BASE_URL, KEY, environ={}) as api:
            yield MockedVendor(mock, api)


async def create(status: int, body: object = b"", headers: Mapping[str, str] | None = None) -> CreateResult:
    """Return what one answer to a create proves."""
    async with mocked_vendor() as vendor:
        vendor.add("POST", GENERATIONS_URL, status, body, headers)
        return await vendor.api.create("{}", "vb.x.1")


async def get_status(
    status: int, body: object = b"", headers: Mapping[str, str] | None = None, generation_id: str = "g"
) -> GenerationStatus | StatusError:
    """Return what one answer to a poll says."""
    async with mocked_vendor() as vendor:
        vendor.add("GET", f"{GENERATIONS_URL}?generation_id={generation_id}", status, body, headers)
        return await vendor.api.get_status(generation_id)


def error_body(status: int, message: str) -> dict[str, Any]:
    """The vendor's classic shape of an error."""
    return {"message": message, "path": "/v2", "requestId": "r", "statusCode": str(status), "timestamp": "t"}
