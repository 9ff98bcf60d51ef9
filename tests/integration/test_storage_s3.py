"""Videos in S3, against moto's server: whole objects, nothing left behind, nothing on the local disk."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.download.download_result import Deferred, InvalidVideo, Saved
from pipeline.download.verify import FileCondition, compare
from pipeline.errors import StoreError, UsageError
from pipeline.storage import TransientStoreError, is_object_url, open_store
from tests.integration import faulty_file_hosts as hosts
from tests.integration.s3_server import QUICK, VIDEO, rig
from tests.integration.sample_videos import corrupted, make_video

if TYPE_CHECKING:
    from typing import BinaryIO

    from tests.integration.s3_server import Bucket, RefusedRequests


async def test_video_is_stored_whole_and_nothing_stays_behind(tmp_path: Path, s3_bucket: Bucket) -> None:
    async with hosts.FileHost(VIDEO) as host, rig(tmp_path) as it:
        outcome = await it.fetch(host.url)
        assert isinstance(outcome, Saved)
    assert s3_bucket.read("night/one/videos/row.mp4") == VIDEO
    assert sorted(s3_bucket.objects()) == ["night/one/posters/row.jpg", "night/one/videos/row.mp4"]
    assert s3_bucket.uploads() == []
    assert outcome.artifact.sha256 == hashlib.sha256(VIDEO).hexdigest()
    assert outcome.artifact.path == "videos/row.mp4"
    assert outcome.artifact.media is not None
    head = s3_bucket.client.head_object(Bucket="stored", Key="night/one/videos/row.mp4")
    assert head["ContentType"] == "video/mp4"
    assert it.files() == []


async def test_a_cut_costs_the_missing_bytes_only(tmp_path: Path, s3_bucket: Bucket) -> None:
    async with hosts.CutsEveryTransfer(VIDEO) as host, rig(tmp_path) as it:
        assert isinstance(await it.fetch(host.url), Saved)
    assert s3_bucket.read("night/one/videos/row.mp4") == VIDEO
    assert host.sent_bytes < len(VIDEO) * 1.5
    assert s3_bucket.uploads() == []


async def test_wrong_bytes_never_come_under_the_final_name(tmp_path: Path, s3_bucket: Bucket) -> None:
    class Watched(hosts.ReturnsOtherFile):
        async def handle(self, ask: hosts.CdnRequest) -> None:
            assert "night/one/videos/row.mp4" not in await asyncio.to_thread(s3_bucket.objects)
            await super().handle(ask)

    small = make_video(seconds=2)
    host = Watched(small)
    host.other = corrupted(small)
    async with host, rig(tmp_path) as it:
        assert isinstance(await it.fetch(host.url), Saved)
    assert len(host.requests) == 2
    assert s3_bucket.read("night/one/videos/row.mp4") == small


@pytest.mark.parametrize("number", [1, 2], ids=["before the upload", "after the copy"])
async def test_what_cannot_be_tidied_up_costs_no_clip(
    tmp_path: Path, s3_bucket: Bucket, refused: RefusedRequests, number: int
) -> None:
    staging = "night/one/videos/row.veobatch-part"
    s3_bucket.client.put_object(Bucket="stored", Key=staging, Body=b"of a killed run")
    refused.refuse("DELETE", staging, number)
    async with hosts.FileHost(VIDEO) as host, rig(tmp_path) as it:
        assert isinstance(await it.fetch(host.url), Saved)
    assert refused.counts["DELETE", staging] > number
    assert len(host.requests) == 1
    assert s3_bucket.read("night/one/videos/row.mp4") == VIDEO
    assert sorted(s3_bucket.objects()) == ["night/one/posters/row.jpg", "night/one/videos/row.mp4"]


async def test_a_poster_that_is_refused_costs_the_poster_alone(
    tmp_path: Path, s3_bucket: Bucket, refused: RefusedRequests
) -> None:
    refused.refuse("PUT", "posters/row.jpg", *range(1, 100))
    async with hosts.FileHost(VIDEO) as host, rig(tmp_path) as it:
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, Saved)
    assert outcome.artifact.poster_path == ""
    assert "poster could not be saved" in outcome.note
    assert (len(host.requests), refused.counts["PUT", "posters/row.jpg"]) == (1, 1)
    assert list(s3_bucket.objects()) == ["night/one/videos/row.mp4"]


@pytest.mark.parametrize("times", [1, 2])
async def test_a_doubtful_copy_that_cannot_be_set_aside_yet_is_set_aside_later(
    tmp_path: Path, s3_bucket: Bucket, refused: RefusedRequests, times: int
) -> None:
    small = make_video(seconds=2)
    host = hosts.ReturnsOtherFile(small)
    host.other = corrupted(small)
    refused.refuse("COPY", ".aside", *range(1, times + 1))
    async with host, rig(tmp_path) as it:
        assert isinstance(await it.fetch(host.url), Saved)
    assert refused.counts["COPY", ".aside"] == times + 1
    assert s3_bucket.read("night/one/videos/row.mp4") == small


async def test_a_copy_that_can_never_be_set_aside_ends_the_tries(
    tmp_path: Path, s3_bucket: Bucket, refused: RefusedRequests
) -> None:
    small = make_video(seconds=2)
    host = hosts.ReturnsOtherFile(small)
    host.other = corrupted(small)
    refused.refuse("COPY", ".aside", *range(1, 100))
    async with host, rig(tmp_path) as it:
        with pytest.raises(TransientStoreError):
            await it.fetch(host.url)
    assert (len(host.requests), refused.counts["COPY", ".aside"]) == (1, QUICK.max_attempts)
    assert s3_bucket.objects() == {}


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_a_read_that_fails_says_nothing_of_the_video(
    tmp_path: Path, s3_bucket: Bucket, refused: RefusedRequests, number: int
) -> None:
    refused.refuse("GET", "row.veobatch-part", number)
    async with hosts.FileHost(VIDEO) as host, rig(tmp_path) as it:
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, Saved)
    assert outcome.artifact.warnings == ()
    assert refused.counts["GET", "row.veobatch-part"] > number
    assert (len(host.requests), len(it.refreshed_at)) == (2, 0)
    assert s3_bucket.read("night/one/videos/row.mp4") == VIDEO


async def test_reads_that_always_fail_make_no_video_unplayable(
    tmp_path: Path, s3_bucket: Bucket, refused: RefusedRequests
) -> None:
    refused.refuse("GET", "row.veobatch-part", *range(1, 100))
    async with hosts.FileHost(VIDEO) as host, rig(tmp_path) as it:
        with pytest.raises(TransientStoreError):
            await it.fetch(host.url)
    assert s3_bucket.objects() == {}


async def test_an_object_that_is_not_ours_is_left_alone(tmp_path: Path, s3_bucket: Bucket) -> None:
    s3_bucket.client.put_object(Bucket="stored", Key="night/one/videos/row.mp4", Body=b"someone else's")
    async with hosts.FileHost(VIDEO) as host, rig(tmp_path) as it:
        first = await it.fetch(host.url)
        second = await it.fetch(host.url)
    assert isinstance(first, Saved)
    assert isinstance(second, Saved)
    assert "saved as row.new-1.mp4" in first.note
    assert "was there already" in second.note
    assert first.artifact.path == second.artifact.path == "videos/row.new-1.mp4"
    assert s3_bucket.read("night/one/videos/row.mp4") == b"someone else's"
    assert s3_bucket.read("night/one/videos/row.new-1.mp4") == VIDEO
    assert not any("veobatch-part" in key for key in s3_bucket.objects())


async def test_an_older_object_of_ours_is_moved_aside(s3_bucket: Bucket) -> None:
    store = open_store("s3://stored/night")
    await store.write_bytes("videos/row.mp4", b"older")
    async with store.stage("videos/row") as part:
        await part.restart("tag")
        await part.write([VIDEO])
        await part.inspect(len_of)
        published = await part.publish("videos/row.mp4", replaces=True)
    assert "now row.kept-1.mp4" in published.note
    assert s3_bucket.read("night/videos/row.kept-1.mp4") == b"older"
    assert s3_bucket.read("night/videos/row.mp4") == VIDEO


def len_of(source: Path | BinaryIO) -> int:
    return 0 if isinstance(source, Path) else len(source.read())


async def test_an_altered_or_missing_object_is_noticed_by_listing(tmp_path: Path, s3_bucket: Bucket) -> None:
    small = make_video(seconds=2)
    async with hosts.FileHost(small) as host, rig(tmp_path) as it:
        outcome = await it.fetch(host.url)
        assert isinstance(outcome, Saved)
        stamps = await it.downloader.store.stamps([outcome.artifact.path])
        assert compare(outcome.artifact, stamps[outcome.artifact.path]) is FileCondition.UNTOUCHED
        s3_bucket.client.put_object(Bucket="stored", Key="night/one/videos/row.mp4", Body=corrupted(small))
        stamps = await it.downloader.store.stamps([outcome.artifact.path])
        assert compare(outcome.artifact, stamps[outcome.artifact.path]) is FileCondition.UNREAD
        s3_bucket.client.delete_object(Bucket="stored", Key="night/one/videos/row.mp4")
        assert await it.downloader.store.stamps([outcome.artifact.path]) == {}


async def test_what_was_set_aside_comes_back(s3_bucket: Bucket) -> None:
    async with open_store("s3://stored/night").stage("a") as part:
        await part.restart("first")
        await part.write([VIDEO])
        await part.inspect(len_of)
        assert await part.aside_tag() == ""
        await part.set_aside("first, examined")
        await part.restart("second")
        await part.write([b"half"])
        assert await part.aside_tag() == "first, examined"
        assert await part.restore()
        assert part.tag == "first, examined"
        await part.publish("a.mp4", replaces=False)
    assert s3_bucket.read("night/a.mp4") == VIDEO
    assert list(s3_bucket.objects()) == ["night/a.mp4"]


class DamagedThenGone(hosts.FileHost):
    """Sends a damaged film once, and then nothing but errors."""

    async def handle(self, ask: hosts.CdnRequest) -> None:
        if self.take_fault():
            await self.send_response(ask, 200, {}, corrupted(self.data))
        else:
            await self.send_response(ask, 404, {}, b"gone")


async def test_a_damaged_copy_is_kept_for_a_later_run(tmp_path: Path, s3_bucket: Bucket) -> None:
    small = make_video(seconds=2)
    async with DamagedThenGone(small) as host, rig(tmp_path) as it:
        for _ in range(2):
            assert isinstance(await it.fetch(host.url, final=False), Deferred)
            assert "night/one/videos/row.veobatch-part.aside" in s3_bucket.objects()
        outcome = await it.fetch(host.url, final=True)
    assert isinstance(outcome, Saved)
    assert any("frames" in warning for warning in outcome.artifact.warnings)
    assert outcome.artifact.sha256 == hashlib.sha256(corrupted(small)).hexdigest()
    assert s3_bucket.read("night/one/videos/row.mp4") == corrupted(small)
    assert sorted(s3_bucket.objects()) == ["night/one/posters/row.jpg", "night/one/videos/row.mp4"]


async def test_a_copy_that_plays_is_kept_when_a_later_round_brings_worse(
    tmp_path: Path, s3_bucket: Bucket
) -> None:
    small = make_video(seconds=2)
    half = hosts.FileHost(small[: len(small) // 2])
    async with DamagedThenGone(small) as host, half, rig(tmp_path) as it:
        assert isinstance(await it.fetch(host.url, final=False), Deferred)
        assert isinstance(await it.fetch(half.url, final=False), Deferred)
        outcome = await it.fetch(half.url)
    assert isinstance(outcome, Saved)
    assert s3_bucket.read("night/one/videos/row.mp4") == corrupted(small)
    assert sorted(s3_bucket.objects()) == ["night/one/posters/row.jpg", "night/one/videos/row.mp4"]


async def test_a_copy_that_does_not_play_is_called_so_in_the_end(tmp_path: Path, s3_bucket: Bucket) -> None:
    """Also when the store holds a copy of an earlier version, which noted nothing of it."""
    small = make_video(seconds=2)
    half = small[: len(small) // 2]
    staging = "night/one/videos/row.veobatch-part"
    async with hosts.FileHost(half) as host, rig(tmp_path) as it:
        assert isinstance(await it.fetch(host.url, final=False), Deferred)
        note = json.loads(s3_bucket.read(f"{staging}.whose"))
        tag = {key: value for key, value in json.loads(note["tag"]).items() if key != "plays"}
        note = json.dumps(note | {"tag": json.dumps(tag)}).encode()
        s3_bucket.client.put_object(Bucket="stored", Key=f"{staging}.whose", Body=note)
        assert isinstance(await it.fetch(host.url), Deferred)
        assert isinstance(await it.fetch(host.url), InvalidVideo)
    assert s3_bucket.read("night/one/videos/row.incomplete.mp4") == half
    assert list(s3_bucket.objects()) == ["night/one/videos/row.incomplete.mp4"]


async def test_a_damaged_copy_of_another_generation_is_not_kept(tmp_path: Path, s3_bucket: Bucket) -> None:
    small = make_video(seconds=2)
    async with DamagedThenGone(small) as host, hosts.FileHost(small) as other, rig(tmp_path) as it:
        assert isinstance(await it.fetch(host.url, final=False), Deferred)
        assert "night/one/videos/row.veobatch-part.whose" in s3_bucket.objects()
        assert isinstance(await it.fetch(host.url, generation="another"), Deferred)
        assert isinstance(await it.fetch(other.url, generation="another"), Saved)
    assert s3_bucket.read("night/one/videos/row.mp4") == small
    assert sorted(s3_bucket.objects()) == ["night/one/posters/row.jpg", "night/one/videos/row.mp4"]


@pytest.mark.parametrize("note", [b"", b"[1]", b'{"size_bytes": 1}', b"\xff"])
async def test_a_copy_aside_that_nobody_noted_is_not_taken_for_the_video(
    tmp_path: Path, s3_bucket: Bucket, note: bytes
) -> None:
    staging = "night/one/videos/row.veobatch-part"
    s3_bucket.client.put_object(Bucket="stored", Key=f"{staging}.aside", Body=make_video(seconds=2))
    s3_bucket.client.put_object(Bucket="stored", Key=f"{staging}.whose", Body=note)
    async with DamagedThenGone(VIDEO, faults=0) as host, rig(tmp_path) as it:
        assert isinstance(await it.fetch(host.url), Deferred)


async def test_a_note_of_another_copy_is_not_this_ones(s3_bucket: Bucket) -> None:
    """A kill between the copy and its note."""
    store = open_store("s3://stored/night")
    async with store.stage("a") as part:
        await part.restart("first")
        await part.write([VIDEO])
        await part.inspect(len_of)
        await part.set_aside()
        s3_bucket.client.put_object(Bucket="stored", Key="night/a.veobatch-part.aside", Body=VIDEO[::-1])
        assert await part.aside_tag() == ""
        assert not await part.restore()


async def test_a_bucket_that_is_not_there_stops_the_run(tmp_path: Path, s3_bucket: Bucket) -> None:
    async with hosts.FileHost(VIDEO) as host, rig(tmp_path, "s3://no-such-films/x") as it:
        with pytest.raises(StoreError, match="no-such-films"):
            await it.fetch(host.url)


async def test_small_files_are_written_with_their_type(s3_bucket: Bucket) -> None:
    store = open_store("s3://stored/night")
    await store.write_bytes("results.csv", b"id,status\n")
    await store.write_bytes("results.csv", b"id,status\na,done\n")
    assert await store.read_bytes("results.csv") == b"id,status\na,done\n"
    assert await store.read_bytes("none.csv") is None
    assert s3_bucket.client.head_object(Bucket="stored", Key="night/results.csv")["ContentType"].startswith(
        "text/csv"
    )


@pytest.mark.parametrize("url", ["s3://", "ftp://host/x", "nonsense://x", "s3://[x/y", "file://[x/y"])
def test_a_url_that_no_store_serves_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="--output"):
        open_store(url)


def test_an_endpoint_that_is_no_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://[x")
    with pytest.raises(UsageError, match="--output s3://bucket/x"):
        open_store("s3://bucket/x")


def test_which_outputs_are_object_stores() -> None:
    assert is_object_url("s3://stored/x")
    assert not is_object_url("output/films")
    assert not is_object_url("file:///tmp/films")
