"""An S3 of moto's, what somebody else sees of a bucket in it, and what refuses or holds requests to it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import threading
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

import boto3  # type: ignore[import-untyped]  # ships no types
from botocore.config import Config

from pipeline.download.downloader import Downloader
from pipeline.download.guarded_session import open_session
from pipeline.download.retry_state import DownloadLimits
from pipeline.storage import open_store
from tests.integration.sample_videos import make_video, padded
from tests.integration.test_download_faults import DownloadHarness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from pathlib import Path

    import pytest
    from moto.server import ThreadedMotoServer

QUICK = DownloadLimits(
    initial_backoff_s=0.001,
    max_backoff_s=0.01,
    stall_window_s=2,
    response_timeout_s=5,
    max_unreachable_s=1,
    max_attempts=4,
)


VIDEO = padded(make_video(seconds=2), 12 * 2**20)


@asynccontextmanager
async def rig(
    folder: Path, output: str = "s3://stored/night/one", **limits: Any
) -> AsyncIterator[DownloadHarness]:
    async with open_session() as session:
        store = open_store(output)
        chosen = DownloadLimits(**limits) if limits else QUICK
        yield DownloadHarness(folder, Downloader(session=session, store=store, limits=chosen))


class Bucket:
    """What someone else sees of the bucket."""

    def __init__(self, endpoint: str) -> None:
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            config=Config(retries={"max_attempts": 1}),
        )

    def objects(self) -> dict[str, int]:
        found = self.client.list_objects_v2(Bucket="stored").get("Contents", [])
        return {entry["Key"]: entry["Size"] for entry in found}

    def uploads(self) -> list[str]:
        return [
            entry["Key"] for entry in self.client.list_multipart_uploads(Bucket="stored").get("Uploads", [])
        ]

    def read(self, key: str) -> bytes:
        data: bytes = self.client.get_object(Bucket="stored", Key=key)["Body"].read()
        return data

    def remove(self) -> None:
        for key in self.objects():
            self.client.delete_object(Bucket="stored", Key=key)
        for entry in self.client.list_multipart_uploads(Bucket="stored").get("Uploads", []):
            self.client.abort_multipart_upload(Bucket="stored", Key=entry["Key"], UploadId=entry["UploadId"])
        self.client.delete_bucket(Bucket="stored")
        self.client.close()


class HeldRequest:
    """Before moto: the first request of one kind is held, before or after it is carried out."""

    def __init__(self, application: Any, method: str, query: str, *, carried_out: bool) -> None:
        self._application, self._method, self._query = application, method, query
        self._carried_out = carried_out
        self.arrived, self.let_go = threading.Event(), threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        of_the_kind = environ["REQUEST_METHOD"] == self._method and self._query in environ["QUERY_STRING"]
        if not of_the_kind or self.arrived.is_set():
            return self._application(environ, start_response)
        answer = self._application(environ, start_response) if self._carried_out else None
        self.arrived.set()
        assert self.let_go.wait(600)
        return self._application(environ, start_response) if answer is None else answer


async def cancel_while_held(held: HeldRequest, work: Coroutine[Any, Any, object]) -> None:
    """Cancel `work` while a request of its is held, and let the request go a little later."""
    task = asyncio.ensure_future(work)
    assert await asyncio.to_thread(held.arrived.wait, 600)
    task.cancel()
    threading.Timer(0.2, held.let_go.set).start()
    with contextlib.suppress(asyncio.CancelledError):
        await task


class Hold(Protocol):
    """Hold the first request of one kind to the server."""

    def __call__(self, method: str, query: str, *, carried_out: bool) -> HeldRequest: ...


class RefusedRequests:
    """Before moto: some of the requests of one kind are answered with 400, counted from 1.

    `kind` is the method, COPY for a copy inside the bucket; `name` ends the key.
    """

    def __init__(self, server: ThreadedMotoServer, monkeypatch: pytest.MonkeyPatch) -> None:
        assert server._server is not None
        self._application = server._server.app
        self._refused: dict[tuple[str, str], set[int]] = {}
        self.counts: Counter[tuple[str, str]] = Counter()
        monkeypatch.setattr(server._server, "app", self)

    def refuse(self, kind: str, name: str, *numbers: int) -> None:
        self._refused[kind, name] = set(numbers)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        kind, key = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if "HTTP_X_AMZ_COPY_SOURCE" in environ:
            kind = "COPY"
        elif environ["QUERY_STRING"] == "delete":  # of a list of keys, in the body
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            kind, key = "DELETE", body.decode().partition("</Key>")[0]
            environ["wsgi.input"] = io.BytesIO(body)
        for (refused, name), numbers in self._refused.items():
            if refused == kind and key.endswith(name):
                self.counts[kind, name] += 1
                if self.counts[kind, name] in numbers:
                    start_response("400 Bad Request", [])
                    return [b""]
        return self._application(environ, start_response)
