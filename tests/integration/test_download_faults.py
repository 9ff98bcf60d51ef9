"""One row's download against every way in which a CDN can misbehave: in the end the file is whole."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import anyio
import pytest

from pipeline.download.download_result import Deferred, DownloadResult, InvalidVideo, Saved
from pipeline.download.downloader import Downloader
from pipeline.download.guarded_session import open_session
from pipeline.download.retry_state import DownloadLimits
from pipeline.errors import StoreError
from pipeline.model import Record
from pipeline.storage import LocalStore, open_store
from pipeline.storage.local_staging import LocalStagedFile
from tests.integration import faulty_file_hosts as hosts
from tests.integration.ports import free_port
from tests.integration.sample_videos import corrupted, make_video, padded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

FAST_LIMITS = DownloadLimits(
    conclusive_fetches=3,
    initial_backoff_s=0.001,
    max_backoff_s=0.002,
    stall_window_s=0.3,
    min_bytes_per_s=2000,
    response_timeout_s=1,
    max_unreachable_s=0.5,
)
PATIENT_LIMITS = replace(FAST_LIMITS, stall_window_s=10.0, response_timeout_s=20.0)
"""For hosts that never fall silent: a pause of this machine is not theirs."""
BODY = json.dumps({"model": "m", "duration": 2, "resolution": "180p", "generate_audio": True})
VIDEO = make_video(seconds=2, bit_rate=2_000_000)


@dataclass
class DownloadHarness:
    """A downloader over a folder, and what it asked of the vendor."""

    folder: Path
    downloader: Downloader
    fresh_url: str | None = None
    refreshed_at: list[float] = field(default_factory=list)

    async def fetch(
        self, url: str, stem: str = "row", *, final: bool = True, generation: str = "g"
    ) -> DownloadResult:
        record = Record("k", "row", "f", 0, "m", BODY, "", "", file_stem=stem, video_url=url)
        record = replace(record, generation_id=generation)
        return await self.downloader.download(record, self._refresh, final=final)

    async def _refresh(self) -> list[str]:
        self.refreshed_at.append(anyio.current_time())
        return [self.fresh_url] if self.fresh_url else []

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())

    def video(self, stem: str = "row") -> bytes:
        return (self.folder / "videos" / f"{stem}.mp4").read_bytes()


@asynccontextmanager
async def download_harness(
    folder: Path, limits: DownloadLimits = PATIENT_LIMITS, *, media: bool = True
) -> AsyncIterator[DownloadHarness]:
    async with open_session() as session:
        store = open_store(str(folder))
        yield DownloadHarness(folder, Downloader(session=session, store=store, limits=limits, media=media))


async def test_a_well_behaved_host_needs_one_request(tmp_path: Path) -> None:
    async with hosts.FileHost(VIDEO) as host, download_harness(tmp_path) as it:
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, Saved)
    assert outcome.note == ""
    assert it.video() == VIDEO
    assert it.files() == ["posters/row.jpg", "videos/row.mp4"]
    assert outcome.artifact.path == "videos/row.mp4"
    assert outcome.artifact.size_bytes == len(VIDEO)
    media = outcome.artifact.media
    assert media is not None
    assert (media.width, media.height, media.has_audio, media.warnings) == (320, 180, True, ())
    assert len(host.requests) == 1
    assert "range" not in host.requests[0].headers
    assert host.requests[0].headers["accept-encoding"] == "identity"
    assert it.refreshed_at == []


FAULTS: list[hosts.FileHost] = [
    hosts.EndsEarly(VIDEO, faults=2),
    hosts.Stalls(VIDEO),
    hosts.SendsSlowly(VIDEO),
    hosts.NeverResponds(VIDEO),
    hosts.ResetsAfterHeaders(VIDEO, faults=2),
    hosts.StallsAfterHeaders(VIDEO),
    hosts.FileShrinks(VIDEO),
    hosts.ReturnsStatus(VIDEO, faults=3),
    hosts.ReturnsHtmlPage(VIDEO, faults=3),
    hosts.ReturnsEmptyBody(VIDEO, faults=3),
    hosts.IgnoresRange(VIDEO),
    hosts.SendsWrongRange(VIDEO),
    hosts.SendsSurplus(VIDEO),
    hosts.SendsSurplusInChunks(VIDEO),
    hosts.Compresses(VIDEO, faults=2),
    hosts.Chunked(VIDEO, faults=2),
    hosts.BreaksChunks(VIDEO, faults=2),
    hosts.SendsLongHeaders(VIDEO),
    hosts.SendsInvalidHeaders(VIDEO, faults=2),
    hosts.ReturnsUndeclaredPage(VIDEO, faults=2),
]


@pytest.mark.parametrize("host", FAULTS, ids=lambda host: type(host).__name__)
@pytest.mark.parametrize("media", [True, False], ids=["media", "no-media"])
async def test_the_file_is_whole_in_the_end(tmp_path: Path, host: hosts.FileHost, media: bool) -> None:
    broken = type(host)(VIDEO, faults=host.faults)
    async with broken, download_harness(tmp_path, FAST_LIMITS, media=media) as it:
        outcome = await it.fetch(broken.url)
    assert isinstance(outcome, Saved), outcome
    assert it.video() == VIDEO
    assert it.files() == (["posters/row.jpg"] if media else []) + ["videos/row.mp4"]
    assert len(broken.requests) > 1
    assert (outcome.artifact.media is not None) == media


async def test_cut_at_every_tenth_only_the_missing_bytes_are_asked_for(tmp_path: Path) -> None:
    async with hosts.CutsEveryTransfer(VIDEO) as host, download_harness(tmp_path) as it:
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, Saved)
    assert it.video() == VIDEO
    firsts = [ask.first_byte for ask in host.requests]
    assert firsts == sorted(firsts)
    assert len(firsts) == 10
    assert host.sent_bytes == len(VIDEO)
    assert {ask.headers.get("if-range") for ask in host.requests[1:]} == {host.etag}


@pytest.mark.parametrize("kind", [hosts.FileChanges, hosts.IgnoresIfRange], ids=lambda kind: kind.__name__)
async def test_a_file_that_changes_between_two_parts_starts_over(
    tmp_path: Path, kind: type[hosts.FileChanges]
) -> None:
    later = make_video(seconds=2, seed=5)
    host = kind(VIDEO)
    host.new_data = later
    async with host, download_harness(tmp_path) as it:
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, Saved)
    assert it.video() == later
    assert it.refreshed_at == []  # it was seen from the headers, not only from a spoiled film


async def test_a_weak_etag_is_compared_but_never_sent_as_if_range(tmp_path: Path) -> None:
    async with hosts.EndsEarly(VIDEO, etag='W/"weak"') as host, download_harness(tmp_path) as it:
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, Saved)
    assert "if-range" not in host.requests[1].headers
    assert host.requests[1].first_byte == len(VIDEO) // 2


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_an_expired_url_is_asked_for_again(tmp_path: Path, status: int) -> None:
    host = hosts.Expires(VIDEO)
    host.status = status
    async with host, download_harness(tmp_path) as it:
        it.fresh_url = f"http://127.0.0.1:{host.port}/film.mp4?fresh"
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, Saved)
    assert len(it.refreshed_at) == 1
    assert len(host.requests) == 2


async def test_a_row_without_a_url_asks_for_one(tmp_path: Path) -> None:
    async with hosts.FileHost(VIDEO) as host, download_harness(tmp_path) as it:
        it.fresh_url = host.url
        assert isinstance(await it.fetch(""), Saved)


async def test_a_404_that_comes_too_early_passes(tmp_path: Path) -> None:
    host = hosts.ReturnsStatus(VIDEO, faults=2)
    host.status = 404
    async with host, download_harness(tmp_path) as it:
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, Saved)
    assert len(it.refreshed_at) == 2


@pytest.mark.parametrize(
    "host",
    [
        hosts.ReturnsStatus(VIDEO),
        hosts.ReturnsHtmlPage(VIDEO),
        hosts.ReturnsEmptyBody(VIDEO),
        hosts.NeverResponds(VIDEO),
        hosts.Expires(VIDEO),
    ],
    ids=lambda host: type(host).__name__,
)
async def test_what_cannot_be_fetched_now_is_left_for_later(tmp_path: Path, host: hosts.FileHost) -> None:
    broken = type(host)(VIDEO, faults=10**6)
    response_timeout_s = 0.05 if isinstance(broken, hosts.NeverResponds) else 20.0
    limits = DownloadLimits(
        initial_backoff_s=0.001,
        max_backoff_s=0.002,
        response_timeout_s=response_timeout_s,
        max_unreachable_s=0.2,
        max_attempts=5,
    )
    async with broken, download_harness(tmp_path, limits) as it:
        outcome = await it.fetch(broken.url)
    assert isinstance(outcome, Deferred)
    assert "s3cret" not in outcome.reason
    assert it.files() == []
    assert len(broken.requests) >= (
        2 if isinstance(broken, hosts.NeverResponds) else 5
    )  # silence is bounded by time


async def test_an_outage_is_waited_for(tmp_path: Path) -> None:
    """Nobody listens at first: no answer at all does not use up the tries while patience lasts."""
    waits: list[float] = []
    late = hosts.FileHost(VIDEO, port=free_port())

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 20:
            await late.__aenter__()

    async with open_session() as session:
        downloader = Downloader(session=session, store=open_store(str(tmp_path)), sleep=sleep)
        it = DownloadHarness(tmp_path, downloader)
        assert isinstance(await it.fetch(late.url), Saved)
    await late.__aexit__(None, None, None)
    assert len(waits) == 20
    assert max(waits) <= DownloadLimits().max_backoff_s


async def test_wrong_bytes_of_the_right_length_are_fetched_again(tmp_path: Path) -> None:
    host = hosts.ReturnsOtherFile(VIDEO, faults=2)
    host.other = corrupted(VIDEO)
    async with host, download_harness(tmp_path) as it:
        host.other = corrupted(VIDEO, seed=len(host.requests))
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, Saved)


async def test_corruption_that_differs_each_time_is_mended_or_kept_with_a_warning(tmp_path: Path) -> None:
    class Corrupts(hosts.FileHost):
        async def handle(self, ask: hosts.CdnRequest) -> None:
            bad = self.take_fault()
            await self.send_response(ask, 200, {}, corrupted(VIDEO, seed=self.faults) if bad else VIDEO)

    async with Corrupts(VIDEO, faults=3) as host, download_harness(tmp_path) as it:
        outcome = await it.fetch(host.url)
        assert isinstance(outcome, Saved)
        assert it.video() == VIDEO
        host.faults = 10**6
        outcome = await it.fetch(host.url, "other")
    assert isinstance(outcome, Saved)
    assert any("frames" in warning for warning in outcome.artifact.warnings)
    assert it.files() == ["posters/other.jpg", "posters/row.jpg", "videos/other.mp4", "videos/row.mp4"]


async def test_video_damaged_by_vendor_is_kept_with_warning(tmp_path: Path) -> None:
    async with hosts.FileHost(corrupted(VIDEO)) as host, download_harness(tmp_path) as it:
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, Saved)
    assert outcome.artifact.media is not None
    assert any("frames" in warning for warning in outcome.artifact.media.warnings)
    assert len(host.requests) == 2


async def test_every_clip_of_a_generation_is_saved(tmp_path: Path) -> None:
    """Three clips, the second only with a fresh URL, and the third in two transfers."""
    others = [make_video(seconds=2, seed=seed) for seed in (5, 6)]
    async with (
        hosts.FileHost(VIDEO) as first,
        hosts.Expires(others[0]) as second,
        hosts.EndsEarly(others[1]) as third,
        download_harness(tmp_path) as it,
    ):
        urls = [first.url, second.url, third.url]

        async def refresh() -> list[str]:
            return [urls[0], urls[1] + "&fresh", urls[2]]

        record = Record("k", "row", "f", 0, "m", BODY, "", "", file_stem="row", video_url=first.url)
        outcome = await it.downloader.download(replace(record, video_urls=json.dumps(urls)), refresh)
    assert isinstance(outcome, Saved)
    assert it.files() == ["posters/row.jpg", "videos/row.mp4", "videos/row_2.mp4", "videos/row_3.mp4"]
    assert [it.video(stem) for stem in ("row", "row_2", "row_3")] == [VIDEO, *others]
    assert [extra.path for extra in outcome.artifact.extra] == ["videos/row_2.mp4", "videos/row_3.mp4"]
    assert [extra.size_bytes for extra in outcome.artifact.extra] == [len(clip) for clip in others]


async def test_a_further_clip_and_a_row_of_its_name_are_both_saved(tmp_path: Path) -> None:
    """Row `a` has a second clip, `a_2`, while a row `a_2` is being fetched."""
    further, other = (make_video(seconds=2, seed=seed, bit_rate=2_000_000) for seed in (5, 6))
    records = [
        Record("k", "row", "f", 0, "m", BODY, "", "", file_stem=stem, generation_id=stem)
        for stem in ("a", "a_2")
    ]
    async with (
        hosts.FileHost(VIDEO) as first,
        hosts.SendsTogether(further) as second,
        hosts.SendsTogether(other) as third,
        download_harness(tmp_path) as it,
    ):
        second.other, third.other = third, second
        records[0] = replace(records[0], video_urls=json.dumps([first.url, second.url]))
        records[1] = replace(records[1], video_url=third.url)
        outcomes: dict[str, DownloadResult] = {}

        async def fetch(record: Record) -> None:
            outcomes[record.file_stem] = await it.downloader.download(record, it._refresh)

        async with anyio.create_task_group() as tasks:
            for record in records:
                tasks.start_soon(fetch, record)
        one, two = outcomes["a"], outcomes["a_2"]
        assert isinstance(one, Saved)
        assert isinstance(two, Saved)
        paths = [one.artifact.extra[0].path, two.artifact.path]
        assert sorted(paths) == ["videos/a_2.mp4", "videos/a_2.new-1.mp4"]
        saved = [await it.downloader.store.read_bytes(path) for path in paths]
    assert saved == [further, other]
    assert [len(host.requests) for host in (second, third)] == [1, 1]


async def test_a_row_is_not_done_while_one_of_its_clips_is_missing(tmp_path: Path) -> None:
    async with (
        hosts.FileHost(VIDEO) as first,
        hosts.Expires(VIDEO) as second,
        download_harness(tmp_path) as it,
    ):
        record = Record("k", "row", "f", 0, "m", BODY, "", "", file_stem="row", video_url=first.url)
        record = replace(record, video_urls=json.dumps([first.url, second.url]))
        outcome = await it.downloader.download(record, it._refresh)
    assert isinstance(outcome, Deferred)


class DamagedThenGone(hosts.FileHost):
    """Sends a damaged film once, and then nothing but errors."""

    async def handle(self, ask: hosts.CdnRequest) -> None:
        if self.take_fault():
            await self.send_response(ask, 200, {}, corrupted(VIDEO))
        else:
            await self.send_response(ask, 404, {}, b"gone")


@pytest.mark.parametrize("final", [True, False])
async def test_a_damaged_copy_is_kept_when_no_better_one_can_be_had(tmp_path: Path, final: bool) -> None:
    async with DamagedThenGone(VIDEO) as host, download_harness(tmp_path) as it:
        outcome = await it.fetch(host.url, final=final)
        if not final:
            assert isinstance(outcome, Deferred)
            assert it.files() == ["videos/row.veobatch-part.aside", "videos/row.veobatch-part.whose"]
            outcome = await it.fetch(host.url)
    assert isinstance(outcome, Saved)
    assert it.video() == corrupted(VIDEO)
    assert any("frames" in warning for warning in outcome.artifact.warnings)
    assert it.files() == ["posters/row.jpg", "videos/row.mp4"]


async def test_a_damaged_copy_is_kept_when_worse_comes_after_it(tmp_path: Path) -> None:
    class DamagedThenWorse(DamagedThenGone):
        async def handle(self, ask: hosts.CdnRequest) -> None:
            if len(self.requests) == 2:
                await self.send_response(ask, 200, {}, VIDEO[:24] + bytes(50_000))
            else:
                await super().handle(ask)

    async with DamagedThenWorse(VIDEO) as host, download_harness(tmp_path) as it:
        outcome = await it.fetch(host.url)
    assert len(host.requests) > 2
    assert isinstance(outcome, Saved)
    assert it.video() == corrupted(VIDEO)
    assert it.files() == ["posters/row.jpg", "videos/row.mp4"]


NO_VIDEOS = {
    "text": b"this is no video at all, but it is long enough to be one" * 20,
    "zeros": bytes(50_000),
    "half a film": VIDEO[: len(VIDEO) // 2],
    "only a head": VIDEO[:24],
    "noise": corrupted(VIDEO)[400:],
}


@pytest.mark.parametrize("data", NO_VIDEOS.values(), ids=NO_VIDEOS.keys())
@pytest.mark.parametrize("media", [True, False], ids=["media", "no-media"])
async def test_what_is_provably_no_video_fails_after_several_full_fetches(
    tmp_path: Path, data: bytes, media: bool
) -> None:
    async with hosts.FileHost(data) as host, download_harness(tmp_path, media=media) as it:
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, InvalidVideo)
    assert outcome.failure.code == "not_a_video"
    assert not outcome.failure.retryable
    assert len(host.requests) == 3
    assert len(it.refreshed_at) == 2
    [kept] = it.files()  # it was paid for and it arrived
    assert kept in outcome.failure.message
    assert kept.endswith("row.incomplete.mp4" if data[4:8] == b"ftyp" else "row.unplayable.bin")
    assert (tmp_path / kept).read_bytes() == data


@pytest.mark.parametrize("data", [NO_VIDEOS["text"], NO_VIDEOS["half a film"]], ids=["text", "half a film"])
async def test_what_one_server_sends_for_a_moment_is_fetched_again_in_a_later_round(
    tmp_path: Path, data: bytes
) -> None:
    async with hosts.FileHost(data) as host, download_harness(tmp_path) as it:
        outcome = await it.fetch(host.url, final=False)
        assert isinstance(outcome, Deferred)
        assert outcome.retryable
        assert len(host.requests) == PATIENT_LIMITS.conclusive_fetches
        assert it.files() == ["videos/row.veobatch-part.aside", "videos/row.veobatch-part.whose"]
        assert (tmp_path / "videos/row.veobatch-part.aside").read_bytes() == data
        host.data = VIDEO
        outcome = await it.fetch(host.url, final=False)
    assert isinstance(outcome, Saved)
    assert it.video() == VIDEO
    assert it.files() == ["posters/row.jpg", "videos/row.mp4"]


async def test_a_video_that_is_too_large_says_which_option_to_raise(tmp_path: Path) -> None:
    limits = DownloadLimits(max_bytes=len(VIDEO) - 1)
    async with (
        hosts.FileHost(VIDEO) as told,
        hosts.Chunked(VIDEO, faults=0) as untold,
        download_harness(tmp_path, limits) as it,
    ):
        for host in (told, untold):
            outcome = await it.fetch(host.url)
            assert isinstance(outcome, Deferred)
            assert "--max-video-bytes" in outcome.reason
            assert len(host.requests) == 1


async def test_large_video_is_sampled_and_damage_found(tmp_path: Path) -> None:
    large = padded(make_video(seconds=4, bit_rate=3_000_000), 6 * 2**20)
    start = large.index(b"mdat") + 100_000
    zeroed = large[:start] + bytes(65_536) + large[start + 65_536 :]
    host = hosts.ReturnsOtherFile(large)
    host.other = zeroed
    async with host, download_harness(tmp_path) as it:
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, Saved)
    assert it.video() == large
    assert len(host.requests) == 2


async def test_a_restart_asks_for_the_missing_bytes_only(tmp_path: Path) -> None:
    class GoesDown(hosts.FileHost):
        async def handle(self, ask: hosts.CdnRequest) -> None:
            if len(self.requests) == 1:
                await self.serve_file(ask, max_bytes=len(self.data) // 2)
            else:
                await self.send_response(ask, 503, {}, b"")

    once = DownloadLimits(max_attempts=1, max_unreachable_s=0, initial_backoff_s=0.001)
    async with GoesDown(VIDEO) as host, download_harness(tmp_path, once) as it:
        assert isinstance(await it.fetch(host.url), Deferred)
    assert it.files() == ["videos/row.veobatch-part", "videos/row.veobatch-part.origin"]
    assert "s3cret" not in (tmp_path / "videos/row.veobatch-part.origin").read_text()
    async with hosts.FileHost(VIDEO) as again, download_harness(tmp_path) as it:
        outcome = await it.fetch(again.url + "&signature=another")
    assert isinstance(outcome, Saved)
    assert [ask.first_byte for ask in again.requests] == [len(VIDEO) // 2]
    assert it.video() == VIDEO
    assert it.files() == ["posters/row.jpg", "videos/row.mp4"]


@pytest.mark.parametrize("leaves", [True, False], ids=["a part", "nothing"])
async def test_a_part_that_somebody_took_over_is_begun_anew(tmp_path: Path, leaves: bool) -> None:
    """A worker that was stopped wakes up and goes on with a row that is not its own any more."""

    class WakesUp(hosts.FileHost):
        async def handle(self, ask: hosts.CdnRequest) -> None:
            await self.serve_file(ask, max_bytes=len(self.data) // 2)
            if len(self.requests) == 1:
                async with LocalStore(tmp_path).stage("videos/row") as part:
                    await part.restart("of another")
                    await part.write([b"bytes"])
                    if not leaves:
                        await part.discard()

    async with WakesUp(VIDEO) as host, download_harness(tmp_path) as it:
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, Saved)
    assert it.video() == VIDEO
    assert it.files() == ["posters/row.jpg", "videos/row.mp4"]


async def test_a_part_that_is_whole_already_needs_no_request(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/row.veobatch-part").write_bytes(VIDEO)
    note = {"place": "http://127.0.0.1/film.mp4", "etag": '"x"', "total_bytes": len(VIDEO)}
    (tmp_path / "videos/row.veobatch-part.origin").write_text(json.dumps(note))
    async with download_harness(tmp_path) as it:
        outcome = await it.fetch("http://127.0.0.1:9/film.mp4")
    assert isinstance(outcome, Saved)
    assert it.files() == ["posters/row.jpg", "videos/row.mp4"]


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"place": 1, "no": 2}', b"\xff\xfe"])
async def test_a_torn_note_only_costs_a_fresh_start(tmp_path: Path, note: bytes) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/row.veobatch-part").write_bytes(b"rubbish")
    (tmp_path / "videos/row.veobatch-part.origin").write_bytes(note)
    async with hosts.FileHost(VIDEO) as host, download_harness(tmp_path) as it:
        assert isinstance(await it.fetch(host.url), Saved)
    assert it.video() == VIDEO
    assert it.files() == ["posters/row.jpg", "videos/row.mp4"]


async def test_a_page_in_answer_to_a_range_does_not_cost_what_is_held(tmp_path: Path) -> None:
    class PageInBetween(hosts.FileHost):
        async def handle(self, ask: hosts.CdnRequest) -> None:
            if len(self.requests) == 1:
                await self.serve_file(ask, max_bytes=len(self.data) // 2)
            elif len(self.requests) == 2:
                await self.send_response(ask, 200, {"Content-Type": "text/html"}, b"<html>wait</html>")
            else:
                await self.serve_file(ask)

    async with PageInBetween(VIDEO) as host, download_harness(tmp_path) as it:
        assert isinstance(await it.fetch(host.url), Saved)
    assert [ask.first_byte for ask in host.requests] == [0, len(VIDEO) // 2, len(VIDEO) // 2]
    assert it.video() == VIDEO


async def test_rows_side_by_side_through_every_fault(tmp_path: Path) -> None:
    outcomes: dict[int, DownloadResult] = {}
    async with hosts.EveryFault(VIDEO) as host, download_harness(tmp_path) as it:

        async def one(number: int) -> None:
            outcomes[number] = await it.fetch(f"http://127.0.0.1:{host.port}/{number}.mp4", str(number))

        async with anyio.create_task_group() as tasks:
            for number in range(18):
                tasks.start_soon(one, number)
    assert all(isinstance(outcome, Saved) for outcome in outcomes.values()), outcomes
    assert all(it.video(str(number)) == VIDEO for number in outcomes)
    assert len(it.files()) == 2 * 18


async def test_a_damaged_copy_of_another_generation_is_not_kept(tmp_path: Path) -> None:
    async with DamagedThenGone(VIDEO) as host, download_harness(tmp_path) as it:
        assert isinstance(await it.fetch(host.url, final=False), Deferred)
        outcome = await it.fetch(host.url, generation="another")
    assert isinstance(outcome, Deferred)
    assert it.files() == []


@pytest.mark.parametrize("generation", ["g", "another"])
async def test_a_whole_part_is_published_for_its_own_generation_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, generation: str
) -> None:
    """A kill before the clip got its name leaves it whole; generated again, the row has another clip."""
    other = make_video(seconds=1, seed=2)
    async with (
        hosts.FileHost(VIDEO) as first,
        hosts.FileHost(other) as second,
        download_harness(tmp_path) as it,
    ):
        with monkeypatch.context() as killed:
            killed.setattr(LocalStagedFile, "publish", raise_store_error)
            with pytest.raises(StoreError):
                await it.fetch(first.url)
        assert "videos/row.veobatch-part" in it.files()
        outcome = await it.fetch(second.url, generation=generation)
    assert isinstance(outcome, Saved)
    assert it.video() == (VIDEO if generation == "g" else other)
    assert it.files() == ["posters/row.jpg", "videos/row.mp4"]


@pytest.mark.parametrize("generation", ["g", "another"])
async def test_half_a_part_goes_on_for_its_own_generation_alone(tmp_path: Path, generation: str) -> None:
    """A CDN that names its files by number may give both the same validator."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/row.veobatch-part").write_bytes(VIDEO[:1000])
    async with hosts.FileHost(VIDEO) as host, download_harness(tmp_path) as it:
        note = {"place": host.url, "etag": host.etag, "total_bytes": len(VIDEO), "generation": "g"}
        (tmp_path / "videos/row.veobatch-part.origin").write_text(json.dumps(note))
        assert isinstance(await it.fetch(host.url, generation=generation), Saved)
    assert [request.headers.get("range") for request in host.requests] == [
        "bytes=1000-" if generation == "g" else None
    ]


async def raise_store_error(*_: object, **__: object) -> None:
    raise StoreError("the disk is away")
