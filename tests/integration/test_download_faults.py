"""One row's download against every way in which a CDN can misbehave: in the end the file is whole."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import anyio
import pytest

from pipeline.download.downloader import Downloader, DownloadLimits, NotAVideo, NotNow, Outcome, Saved
from pipeline.download.http import open_session
from pipeline.model import Record
from pipeline.storage import LocalStore, open_store
from tests.integration import filehosts as hosts
from tests.integration.films import film, padded, scrambled
from tests.integration.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

QUICK = DownloadLimits(
    proofs=3,
    first_wait_s=0.001,
    longest_wait_s=0.002,
    stall_window_s=0.3,
    stall_bytes_s=2000,
    answer_s=1,
    patience_s=0.5,
)
PATIENT = replace(QUICK, stall_window_s=10.0, answer_s=20.0)
"""For hosts that never fall silent: a pause of this machine is not theirs."""
BODY = json.dumps({"model": "m", "duration": 2, "resolution": "180p", "generate_audio": True})
FILM = film(seconds=2, bit_rate=2_000_000)


@dataclass
class Rig:
    """A downloader over a folder, and what it asked of the vendor."""

    folder: Path
    downloader: Downloader
    fresh: str | None = None
    refreshed: list[float] = field(default_factory=list)

    async def fetch(self, url: str, stem: str = "row") -> Outcome:
        record = Record("k", "row", "f", 0, "m", BODY, "", "", file_stem=stem, video_url=url)
        return await self.downloader.download(record, self._refresh)

    async def _refresh(self) -> str | None:
        self.refreshed.append(anyio.current_time())
        return self.fresh

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())

    def video(self, stem: str = "row") -> bytes:
        return (self.folder / "videos" / f"{stem}.mp4").read_bytes()


@asynccontextmanager
async def rig(folder: Path, limits: DownloadLimits = PATIENT, *, media: bool = True) -> AsyncIterator[Rig]:
    async with open_session() as session:
        store = open_store(str(folder))
        yield Rig(folder, Downloader(session=session, store=store, limits=limits, media=media))


async def test_a_well_behaved_host_needs_one_request(tmp_path: Path) -> None:
    async with hosts.Host(FILM) as host, rig(tmp_path) as it:
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, Saved)
    assert outcome.note == ""
    assert it.video() == FILM
    assert it.files() == ["posters/row.jpg", "videos/row.mp4"]
    assert outcome.artifact.path == "videos/row.mp4"
    assert outcome.artifact.size_bytes == len(FILM)
    media = outcome.artifact.media
    assert media is not None
    assert (media.width, media.height, media.has_audio, media.warnings) == (320, 180, True, ())
    assert len(host.asked) == 1
    assert "range" not in host.asked[0].headers
    assert host.asked[0].headers["accept-encoding"] == "identity"
    assert it.refreshed == []


FAULTS: list[hosts.Host] = [
    hosts.EndsEarly(FILM, faults=2),
    hosts.Stalls(FILM),
    hosts.Trickles(FILM),
    hosts.Silent(FILM),
    hosts.CutsFirst(FILM, faults=2),
    hosts.Hesitates(FILM),
    hosts.Shrinks(FILM),
    hosts.Statuses(FILM, faults=3),
    hosts.ShowsPages(FILM, faults=3),
    hosts.SendsNothing(FILM, faults=3),
    hosts.KnowsNoRanges(FILM),
    hosts.SendsWrongRange(FILM),
    hosts.Compresses(FILM, faults=2),
    hosts.Chunked(FILM, faults=2),
]


@pytest.mark.parametrize("host", FAULTS, ids=lambda host: type(host).__name__)
@pytest.mark.parametrize("media", [True, False], ids=["media", "no-media"])
async def test_the_file_is_whole_in_the_end(tmp_path: Path, host: hosts.Host, media: bool) -> None:
    broken = type(host)(FILM, faults=host.faults)
    async with broken, rig(tmp_path, QUICK, media=media) as it:
        outcome = await it.fetch(broken.url)
    assert isinstance(outcome, Saved), outcome
    assert it.video() == FILM
    assert it.files() == (["posters/row.jpg"] if media else []) + ["videos/row.mp4"]
    assert len(broken.asked) > 1
    assert (outcome.artifact.media is not None) == media


async def test_cut_at_every_tenth_only_the_missing_bytes_are_asked_for(tmp_path: Path) -> None:
    async with hosts.Cuts(FILM) as host, rig(tmp_path) as it:
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, Saved)
    assert it.video() == FILM
    firsts = [ask.first for ask in host.asked]
    assert firsts == sorted(firsts)
    assert len(firsts) == 10
    assert host.sent_bytes == len(FILM)
    assert {ask.headers.get("if-range") for ask in host.asked[1:]} == {host.etag}


@pytest.mark.parametrize("kind", [hosts.Changes, hosts.IgnoresIfRange], ids=lambda kind: kind.__name__)
async def test_a_file_that_changes_between_two_parts_starts_over(
    tmp_path: Path, kind: type[hosts.Changes]
) -> None:
    later = film(seconds=2, seed=5)
    host = kind(FILM)
    host.later = later
    async with host, rig(tmp_path) as it:
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, Saved)
    assert it.video() == later
    assert it.refreshed == []  # it was seen from the headers, not only from a spoiled film


async def test_a_weak_etag_is_compared_but_never_sent_as_if_range(tmp_path: Path) -> None:
    async with hosts.EndsEarly(FILM, etag='W/"weak"') as host, rig(tmp_path) as it:
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, Saved)
    assert "if-range" not in host.asked[1].headers
    assert host.asked[1].first == len(FILM) // 2


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_an_expired_url_is_asked_for_again(tmp_path: Path, status: int) -> None:
    host = hosts.Expires(FILM)
    host.status = status
    async with host, rig(tmp_path) as it:
        it.fresh = f"http://127.0.0.1:{host.port}/film.mp4?fresh"
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, Saved)
    assert len(it.refreshed) == 1
    assert len(host.asked) == 2


async def test_a_row_without_a_url_asks_for_one(tmp_path: Path) -> None:
    async with hosts.Host(FILM) as host, rig(tmp_path) as it:
        it.fresh = host.url
        assert isinstance(await it.fetch(""), Saved)


async def test_a_404_that_comes_too_early_passes(tmp_path: Path) -> None:
    host = hosts.Statuses(FILM, faults=2)
    host.status = 404
    async with host, rig(tmp_path) as it:
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, Saved)
    assert len(it.refreshed) == 2


@pytest.mark.parametrize(
    "host",
    [
        hosts.Statuses(FILM),
        hosts.ShowsPages(FILM),
        hosts.SendsNothing(FILM),
        hosts.Silent(FILM),
        hosts.Expires(FILM),
    ],
    ids=lambda host: type(host).__name__,
)
async def test_what_cannot_be_fetched_now_is_left_for_later(tmp_path: Path, host: hosts.Host) -> None:
    broken = type(host)(FILM, faults=10**6)
    answer_s = 0.05 if isinstance(broken, hosts.Silent) else 20.0
    limits = DownloadLimits(
        first_wait_s=0.001, longest_wait_s=0.002, answer_s=answer_s, patience_s=0.2, tries=5
    )
    async with broken, rig(tmp_path, limits) as it:
        outcome = await it.fetch(broken.url)
    assert isinstance(outcome, NotNow)
    assert "s3cret" not in outcome.reason
    assert it.files() == []
    assert len(broken.asked) >= (2 if isinstance(broken, hosts.Silent) else 5)  # silence is bounded by time


async def test_an_outage_is_waited_for(tmp_path: Path) -> None:
    """Nobody listens at first: no answer at all does not use up the tries while patience lasts."""
    waits: list[float] = []
    late = hosts.Host(FILM, port=free_port())

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 20:
            await late.__aenter__()

    async with open_session() as session:
        downloader = Downloader(session=session, store=open_store(str(tmp_path)), sleep=sleep)
        it = Rig(tmp_path, downloader)
        assert isinstance(await it.fetch(late.url), Saved)
    await late.__aexit__(None, None, None)
    assert len(waits) == 20
    assert max(waits) <= DownloadLimits().longest_wait_s


async def test_wrong_bytes_of_the_right_length_are_fetched_again(tmp_path: Path) -> None:
    host = hosts.SendsOther(FILM, faults=2)
    host.other = scrambled(FILM)
    async with host, rig(tmp_path) as it:
        host.other = scrambled(FILM, seed=len(host.asked))
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, Saved)


async def test_corruption_that_differs_each_time_never_becomes_done(tmp_path: Path) -> None:
    class Corrupts(hosts.Host):
        async def answer(self, ask: hosts.Ask) -> None:
            bad = self.misbehaves()
            await self.reply(ask, 200, {}, scrambled(FILM, seed=self.faults) if bad else FILM)

    async with Corrupts(FILM, faults=3) as host, rig(tmp_path) as it:
        outcome = await it.fetch(host.url)
        assert isinstance(outcome, Saved)
        assert it.video() == FILM
        host.faults = 10**6
        assert isinstance(await it.fetch(host.url, "other"), NotNow)
    assert "videos/other.mp4" not in it.files()


async def test_a_film_that_the_vendor_made_damaged_is_kept_with_a_warning(tmp_path: Path) -> None:
    async with hosts.Host(scrambled(FILM)) as host, rig(tmp_path) as it:
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, Saved)
    assert outcome.artifact.media is not None
    assert any("frames" in words for words in outcome.artifact.media.warnings)
    assert len(host.asked) == 2


NO_VIDEOS = {
    "text": b"this is no video at all, but it is long enough to be one" * 20,
    "zeros": bytes(50_000),
    "half a film": FILM[: len(FILM) // 2],
    "only a head": FILM[:24],
    "noise": scrambled(FILM)[400:],
}


@pytest.mark.parametrize("data", NO_VIDEOS.values(), ids=NO_VIDEOS.keys())
@pytest.mark.parametrize("media", [True, False], ids=["media", "no-media"])
async def test_what_is_provably_no_video_fails_after_several_full_fetches(
    tmp_path: Path, data: bytes, media: bool
) -> None:
    async with hosts.Host(data) as host, rig(tmp_path, media=media) as it:
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, NotAVideo)
    assert outcome.failure.code == "not_a_video"
    assert not outcome.failure.retryable
    assert len(host.asked) == 3
    assert len(it.refreshed) == 2
    assert it.files() == []


async def test_a_video_that_is_too_large_says_which_option_to_raise(tmp_path: Path) -> None:
    limits = DownloadLimits(max_bytes=len(FILM) - 1)
    async with hosts.Host(FILM) as told, hosts.Chunked(FILM, faults=0) as untold, rig(tmp_path, limits) as it:
        for host in (told, untold):
            outcome = await it.fetch(host.url)
            assert isinstance(outcome, NotNow)
            assert "--max-video-bytes" in outcome.reason
            assert len(host.asked) == 1


async def test_a_large_film_is_sampled_and_damage_in_it_is_found(tmp_path: Path) -> None:
    large = padded(film(seconds=4, bit_rate=3_000_000), 6 * 2**20)
    start = large.index(b"mdat") + 100_000
    zeroed = large[:start] + bytes(65_536) + large[start + 65_536 :]
    host = hosts.SendsOther(large)
    host.other = zeroed
    async with host, rig(tmp_path) as it:
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, Saved)
    assert it.video() == large
    assert len(host.asked) == 2


async def test_a_restart_asks_for_the_missing_bytes_only(tmp_path: Path) -> None:
    class GoesDown(hosts.Host):
        async def answer(self, ask: hosts.Ask) -> None:
            if len(self.asked) == 1:
                await self.behave(ask, most=len(self.data) // 2)
            else:
                await self.reply(ask, 503, {}, b"")

    once = DownloadLimits(tries=1, patience_s=0, first_wait_s=0.001)
    async with GoesDown(FILM) as host, rig(tmp_path, once) as it:
        assert isinstance(await it.fetch(host.url), NotNow)
    assert it.files() == ["videos/row.mp4.origin.part", "videos/row.mp4.part"]
    assert "s3cret" not in (tmp_path / "videos/row.mp4.origin.part").read_text()
    async with hosts.Host(FILM) as again, rig(tmp_path) as it:
        outcome = await it.fetch(again.url + "&signature=another")
    assert isinstance(outcome, Saved)
    assert [ask.first for ask in again.asked] == [len(FILM) // 2]
    assert it.video() == FILM
    assert it.files() == ["posters/row.jpg", "videos/row.mp4"]


@pytest.mark.parametrize("leaves", [True, False], ids=["a part", "nothing"])
async def test_a_part_that_somebody_took_over_is_begun_anew(tmp_path: Path, leaves: bool) -> None:
    """A worker that was stopped wakes up and goes on with a row that is not its own any more."""

    class WakesUp(hosts.Host):
        async def answer(self, ask: hosts.Ask) -> None:
            await self.behave(ask, most=len(self.data) // 2)
            if len(self.asked) == 1:
                async with LocalStore(tmp_path).part("videos/row.mp4") as part:
                    await part.begin("of another")
                    await part.write([b"bytes"])
                    if not leaves:
                        await part.discard()

    async with WakesUp(FILM) as host, rig(tmp_path) as it:
        outcome = await it.fetch(host.url)
    assert isinstance(outcome, Saved)
    assert it.video() == FILM
    assert it.files() == ["posters/row.jpg", "videos/row.mp4"]


async def test_a_part_that_is_whole_already_needs_no_request(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/row.mp4.part").write_bytes(FILM)
    note = {"place": "http://127.0.0.1/film.mp4", "etag": '"x"', "total_bytes": len(FILM)}
    (tmp_path / "videos/row.mp4.origin.part").write_text(json.dumps(note))
    async with rig(tmp_path) as it:
        outcome = await it.fetch("http://127.0.0.1:9/film.mp4")
    assert isinstance(outcome, Saved)
    assert it.files() == ["posters/row.jpg", "videos/row.mp4"]


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"place": 1, "no": 2}', b"\xff\xfe"])
async def test_a_torn_note_only_costs_a_fresh_start(tmp_path: Path, note: bytes) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/row.mp4.part").write_bytes(b"rubbish")
    (tmp_path / "videos/row.mp4.origin.part").write_bytes(note)
    async with hosts.Host(FILM) as host, rig(tmp_path) as it:
        assert isinstance(await it.fetch(host.url), Saved)
    assert it.video() == FILM
    assert it.files() == ["posters/row.jpg", "videos/row.mp4"]


async def test_a_page_in_answer_to_a_range_does_not_cost_what_is_held(tmp_path: Path) -> None:
    class PageInBetween(hosts.Host):
        async def answer(self, ask: hosts.Ask) -> None:
            if len(self.asked) == 1:
                await self.behave(ask, most=len(self.data) // 2)
            elif len(self.asked) == 2:
                await self.reply(ask, 200, {"Content-Type": "text/html"}, b"<html>wait</html>")
            else:
                await self.behave(ask)

    async with PageInBetween(FILM) as host, rig(tmp_path) as it:
        assert isinstance(await it.fetch(host.url), Saved)
    assert [ask.first for ask in host.asked] == [0, len(FILM) // 2, len(FILM) // 2]
    assert it.video() == FILM


async def test_rows_side_by_side_through_every_fault(tmp_path: Path) -> None:
    outcomes: dict[int, Outcome] = {}
    async with hosts.Gauntlet(FILM) as host, rig(tmp_path) as it:

        async def one(number: int) -> None:
            outcomes[number] = await it.fetch(f"http://127.0.0.1:{host.port}/{number}.mp4", str(number))

        async with anyio.create_task_group() as tasks:
            for number in range(18):
                tasks.start_soon(one, number)
    assert all(isinstance(outcome, Saved) for outcome in outcomes.values()), outcomes
    assert all(it.video(str(number)) == FILM for number in outcomes)
    assert len(it.files()) == 2 * 18
