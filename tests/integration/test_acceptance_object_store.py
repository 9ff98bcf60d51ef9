"""A whole batch into a bucket: the same table as in a folder, nothing on the disk, no upload orphaned."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import boto3  # type: ignore[import-untyped]  # ships no types
import pytest
from moto.server import ThreadedMotoServer

from tests.integration.vendor_double import kill_when, make_video, vendor_and_workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.vendor_double import Exchange, Workspace
    from tests.integration.vendor_double.script import Reply

AWS_ENVIRON = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
VOLATILE_COLUMNS = (
    "correlation_id",
    "generation_id",
    "submitted_at",
    "finished_at",
    "downloaded_at",
    "polls",
)
PADDING = 11 * 2**20


class Bucket:
    """What someone else sees of the bucket. Its calls block."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.requests: list[tuple[str, str]] = []
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )
        self.client.create_bucket(Bucket="films")

    def names(self) -> set[str]:
        return {entry["Key"] for entry in self.client.list_objects_v2(Bucket="films").get("Contents", [])}

    def uploads(self) -> int:
        return len(self.client.list_multipart_uploads(Bucket="films").get("Uploads", []))

    def etag(self, key: str) -> str | None:
        listed = self.client.list_objects_v2(Bucket="films", Prefix=key).get("Contents", [])
        return next((entry["ETag"] for entry in listed if entry["Key"] == key), None)

    def read(self, key: str) -> bytes:
        data: bytes = self.client.get_object(Bucket="films", Key=key)["Body"].read()
        return data

    def table(self, prefix: str) -> list[dict[str, str]]:
        text = self.read(f"{prefix}/results.csv").decode("utf-8-sig")
        return list(csv.DictReader(io.StringIO(text, newline="")))


@contextmanager
def counted_bucket() -> Iterator[Bucket]:
    """A bucket of moto's server that keeps a list of its requests."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    found = Bucket(f"http://{host}:{port}")
    assert server._server is not None
    serve = server._server.app

    def count(environ: dict[str, Any], start_response: Any) -> Any:
        found.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        return serve(environ, start_response)

    server._server.app = count
    for name in found.names():  # of a test that was stopped before it could clear up
        found.client.delete_object(Bucket="films", Key=name)
    yield found
    for name in found.names():  # moto's buckets outlive its server
        found.client.delete_object(Bucket="films", Key=name)
    found.client.close()
    server.stop()


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with counted_bucket() as found:
        yield found


def stable_columns(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{name: cell for name, cell in row.items() if name not in VOLATILE_COLUMNS} for row in rows]


def local_leftovers(desk: Workspace) -> set[str]:
    return {name.rpartition("/")[2] for name in desk.files()} - {
        ".veobatch.lock",
        ".veobatch.json",
        "ledger.sqlite3",
        "run.log",
    }


async def test_a_bucket_holds_what_a_folder_would(tmp_path: Path, bucket: Bucket) -> None:
    rows: list[Any] = [{"id": f"row-{number}", "prompt": f"job {number}"} for number in range(4)]
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        vendor.cdn.padding = PADDING
        desk.environment = {**AWS_ENVIRON, "AWS_ENDPOINT_URL": bucket.endpoint}
        desk.write(rows)
        result = await desk.run("--output", "s3://films/a/b")
        assert result.code == 0, result.output
        assert local_leftovers(desk) == {"batch.json"}
        kept = await anyio.to_thread.run_sync(bucket.table, "a/b")
        for row in kept:
            assert bucket.read(f"a/b/{row['video_path']}") == make_video(row["prompt"], PADDING)
        posters = {f"a/b/posters/row-{number}.jpg" for number in range(4)}
        videos = {f"a/b/videos/row-{number}.mp4" for number in range(4)}
        assert bucket.names() == {"a/b/results.csv", "a/b/report.html"} | posters | videos
        bucket.requests.clear()
        result = await desk.run("--output", "s3://films/a/b")
        assert result.code == 0, result.output
        read = [path for method, path in bucket.requests if method == "GET" and "/videos/" in path]
        assert read == []  # listing tells that the clips are untouched
        desk.write(rows, "folder.json")
        result = await desk.run("--output", "folder", manifest="folder.json")
        assert result.code == 0, result.output
        with (tmp_path / "folder" / "results.csv").open(newline="", encoding="utf-8-sig") as file:
            assert stable_columns(list(csv.DictReader(file))) == stable_columns(kept)


def never_ending_reply(whole: bytes) -> Reply:
    """Most of a film, and then nothing, so that its upload has begun and does not end."""

    async def reply(exchange: Exchange) -> None:
        await exchange.send(200, whole[: -(2**20)], {"Content-Type": "video/mp4"}, content_length=len(whole))
        await asyncio.Event().wait()

    return reply


async def test_a_killed_run_leaves_uploads_that_the_next_one_ends(tmp_path: Path, bucket: Bucket) -> None:
    prompts = [f"job {number}" for number in range(4)]
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        vendor.cdn.padding = PADDING
        for prompt in prompts:
            vendor.script(prompt, cdn=[never_ending_reply(make_video(prompt, PADDING))])
        desk.environment = {**AWS_ENVIRON, "AWS_ENDPOINT_URL": bucket.endpoint}
        desk.write(prompts)
        await kill_when(lambda: bucket.uploads() > 1, desk, vendor, "--output", "s3://films/a")
        assert not any(name.endswith(".mp4") for name in bucket.names())
        result = await desk.run("--output", "s3://films/a")
        assert result.code == 0, result.output
        assert bucket.uploads() == 0
        assert not any(".part" in name for name in bucket.names())
        assert vendor.paid_counts() == dict.fromkeys(prompts, 1)
        for row in bucket.table("a"):
            assert bucket.read(f"a/{row['video_path']}") == make_video(row["prompt"], PADDING)


async def test_receipts_in_a_bucket_are_checked_there(tmp_path: Path, bucket: Bucket) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (_, desk):
        desk.environment = {**AWS_ENVIRON, "AWS_ENDPOINT_URL": bucket.endpoint}
        desk.write([{"id": "a", "prompt": "A."}, {"id": "b", "prompt": "B."}])
        result = await desk.run("--output", "s3://films/a", "--receipts")
        assert result.code == 0, result.output
        checking = ("verify", "batch.json", "--output", "s3://films/a", "--json")
        assert (await desk.command(*checking)).code == 0
        receipt = bucket.read("a/videos/a.json").replace(b'"A."', b'"Z."')
        bucket.client.put_object(Bucket="films", Key="a/videos/a.json", Body=receipt)
        bucket.client.delete_object(Bucket="films", Key="a/videos/b.json")
        found = await desk.command(*checking)
        told = json.loads(found.out)
        assert found.code == 1
        assert [told[f"receipt_{kind}"][0]["id"] for kind in ("altered", "missing")] == ["a", "b"]


async def test_a_bucket_that_is_not_there_costs_nothing(tmp_path: Path, bucket: Bucket) -> None:
    async with vendor_and_workspace(tmp_path, render_s=0.1) as (vendor, desk):
        desk.environment = {**AWS_ENVIRON, "AWS_ENDPOINT_URL": bucket.endpoint}
        desk.write(["one", "two"])
        result = await desk.run("--output", "s3://no-such-bucket/a")
        assert result.code == 3, result.output
        assert "no such bucket" in result.err
        assert not vendor.create_counts
