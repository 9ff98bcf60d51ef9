"""Generations with several clips, each of which is paid for: none is left behind."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.client import client
from pipeline.client.responses import parse_status
from pipeline.download import downloader
from pipeline.download.download_result import Deferred, InvalidVideo, Saved
from pipeline.download.resumable_get import UrlExpired, open_body
from pipeline.errors import StopReason
from pipeline.model import Record, State
from pipeline.sandbox import Fault
from tests.integration import faulty_file_hosts as hosts
from tests.integration.engine_harness import EngineHarness, fast_sandbox_options
from tests.integration.sample_videos import make_video
from tests.integration.test_download_faults import BODY, FAST_LIMITS, VIDEO, download_harness

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pipeline.client import GenerationStatus

OTHER = make_video(seconds=2, seed=5)
CUT = VIDEO[: len(VIDEO) // 2]


def pair(folder: Path) -> EngineHarness:
    """A vendor each of whose generations has two clips."""
    return EngineHarness(folder, fast_sandbox_options(), Fault("video-list", value=2))


def change_video(monkeypatch: pytest.MonkeyPatch, change: Callable[[int, list[object]], object]) -> None:
    """Let the vendor's `completed` answers, counted from 1, name what `change` makes of their list."""
    count = 0

    def parse(payload: Mapping[str, object], headers: Mapping[str, str]) -> GenerationStatus:
        nonlocal count
        video = payload.get("video")
        if payload.get("status") == "completed" and isinstance(video, list):
            count += 1
            payload = {**payload, "video": change(count, video)}
        return parse_status(payload, headers)

    monkeypatch.setattr(client, "parse_status", parse)


def break_further_clips(monkeypatch: pytest.MonkeyPatch, house: EngineHarness, times: int) -> None:
    """Let the CDN send no video for the second clip, so many times."""
    left = times

    def open_broken(session: Any, url: str, *rest: Any) -> Any:
        nonlocal left
        if "/0.1-" in url and left:
            left -= 1
            house.sandbox.add_fault(Fault("cdn-corrupt", times=1))
        return open_body(session, url, *rest)

    monkeypatch.setattr(downloader, "open_body", open_broken)


def find_expired(*_: object) -> Any:
    raise UrlExpired("the link has expired")


def saved_paths(record: Record) -> list[str]:
    assert record.artifact is not None
    return [record.artifact.path, *(extra.path for extra in record.artifact.extra)]


def row_of(*urls: str) -> Record:
    row = Record("k", "row", "f", 0, "m", BODY, "", "", file_stem="row", video_url=urls[0])
    return replace(row, video_urls=json.dumps(urls))


BOTH = ["videos/row-0.mp4", "videos/row-0_2.mp4"]


async def test_a_url_that_comes_an_answer_later_is_awaited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_video(monkeypatch, lambda number, clips: [clips[0], {"url": None}] if number == 1 else clips)
    async with pair(tmp_path) as house:
        outcome = await house.run(1)
    assert saved_paths(outcome.records[0]) == BOTH
    assert outcome.unfinished == {}


async def test_a_clip_whose_url_never_comes_is_missing_and_wanted_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.download.downloader_pool.MAX_ROUNDS", 2)
    change_video(monkeypatch, lambda _, clips: [{"url": None}, clips[1]])
    async with pair(tmp_path) as house:
        outcome = await house.run(1, poll_interval=0.02)
        [row] = outcome.records
        assert (row.state, saved_paths(row)) == (State.DONE, ["videos/row-0_2.mp4"])
        assert outcome.stop_reason is StopReason.UNFINISHED
        assert "clip 1 of 2: the vendor has given no URL" in outcome.unfinished[row.key]
        assert "--fetch-missing" in outcome.unfinished[row.key]
        monkeypatch.undo()
        [row] = (await house.run(fetch_missing=True)).records
    assert saved_paths(row) == BOTH


@pytest.mark.parametrize(
    "answer", [lambda clips: [clips[0], {}], lambda clips: clips[0], lambda clips: clips[:1]]
)
async def test_a_fresh_answer_that_names_fewer_clips_takes_none_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Callable[[list[object]], object]
) -> None:
    """Both were known, and their links were dead for a while."""
    monkeypatch.setattr("pipeline.download.downloader_pool.MAX_ROUNDS", 1)
    change_video(monkeypatch, lambda number, clips: answer(clips) if number > 1 else clips)
    async with pair(tmp_path) as house:
        monkeypatch.setattr(downloader, "open_body", find_expired)
        assert (await house.run(1, poll_interval=0.05)).records[0].state is State.READY
        monkeypatch.setattr(downloader, "open_body", open_body)
        [row] = (await house.run()).records
    assert saved_paths(row) == BOTH


async def test_a_further_clip_that_is_no_video_for_a_while_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(tmp_path) as house:
        break_further_clips(monkeypatch, house, times=4)
        outcome = await house.run(1)
    assert saved_paths(outcome.records[0]) == BOTH
    assert (outcome.stop_reason, outcome.unfinished) == (None, {})


async def test_a_further_clip_that_was_no_video_in_any_round_is_wanted_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.download.downloader_pool.MAX_ROUNDS", 1)
    async with pair(tmp_path) as house:
        break_further_clips(monkeypatch, house, times=10_000)
        outcome = await house.run(1)
        [row] = outcome.records
        assert (row.state, saved_paths(row)) == (State.DONE, BOTH[:1])
        assert "--fetch-missing" in outcome.unfinished[row.key]
        monkeypatch.undo()
        requests = house.sandbox_state.cdn_requests.total()
        outcome = await house.run(verify=True)
        assert (outcome.unfinished, house.sandbox_state.cdn_requests.total()) == ({}, requests)
        [row] = (await house.run(fetch_missing=True)).records
        assert saved_paths(row) == BOTH
        requests = house.sandbox_state.cdn_requests.total()
        await house.run(fetch_missing=True, verify=True)
        assert house.sandbox_state.cdn_requests.total() == requests
        assert house.sandbox_state.create_requests == 1


async def test_a_first_clip_that_is_no_video_does_not_cost_the_second(tmp_path: Path) -> None:
    async with (
        hosts.FileHost(CUT) as first,
        hosts.FileHost(OTHER) as second,
        hosts.FileHost(VIDEO) as mended,
        download_harness(tmp_path, FAST_LIMITS) as it,
    ):
        row = row_of(first.url, second.url)
        assert isinstance(await it.downloader.download(row, it._refresh, final=False), Deferred)
        outcome = await it.downloader.download(row, it._refresh)
        assert isinstance(outcome, Saved)
        assert outcome.artifact.path == "videos/row_2.mp4"
        assert outcome.artifact.poster_path == "posters/row_2.jpg"
        assert any("clip 1 of 2" in warning for warning in outcome.artifact.warnings)
        row = replace(row_of(mended.url, second.url), artifact=outcome.artifact)
        outcome = await it.downloader.download(row, it._refresh)
    assert isinstance(outcome, Saved)
    assert outcome.artifact.path == "videos/row.mp4"
    assert [extra.path for extra in outcome.artifact.extra] == ["videos/row_2.mp4"]
    assert (it.video("row"), it.video("row_2")) == (VIDEO, OTHER)


async def test_a_row_none_of_whose_clips_plays_has_failed(tmp_path: Path) -> None:
    async with (
        hosts.FileHost(CUT) as first,
        hosts.FileHost(CUT) as second,
        download_harness(tmp_path, FAST_LIMITS) as it,
    ):
        outcome = await it.downloader.download(row_of(first.url, second.url), it._refresh)
    assert isinstance(outcome, InvalidVideo)
    assert "clip 1 of 2" in outcome.failure.message
    assert "clip 2 of 2" in outcome.failure.message


@pytest.mark.parametrize("number", [0, 1])
async def test_a_clip_that_was_saved_and_is_no_video_now_stays_known(tmp_path: Path, number: int) -> None:
    async with (
        hosts.FileHost(VIDEO) as first,
        hosts.FileHost(OTHER) as second,
        hosts.FileHost(CUT) as broken,
        download_harness(tmp_path, FAST_LIMITS) as it,
    ):
        urls = [first.url, second.url]
        before = await it.downloader.download(row_of(*urls), it._refresh)
        assert isinstance(before, Saved)
        assert before.is_complete
        urls[number] = broken.url
        outcome = await it.downloader.download(replace(row_of(*urls), artifact=before.artifact), it._refresh)
    assert isinstance(outcome, Saved)
    assert not outcome.is_complete
    assert outcome.artifact.path == before.artifact.path
    assert outcome.artifact.poster_path == before.artifact.poster_path
    assert outcome.artifact.extra == before.artifact.extra


async def test_a_fresh_answer_may_name_further_clips(tmp_path: Path) -> None:
    async with (
        hosts.Expires(VIDEO) as first,
        hosts.FileHost(OTHER) as second,
        download_harness(tmp_path, FAST_LIMITS) as it,
    ):

        async def refresh() -> list[str]:
            return [f"{first.url}&fresh", second.url]

        row = Record("k", "row", "f", 0, "m", BODY, "", "", file_stem="row", video_url=first.url)
        outcome = await it.downloader.download(row, refresh)
    assert isinstance(outcome, Saved)
    assert [extra.path for extra in outcome.artifact.extra] == ["videos/row_2.mp4"]
