"""Videos that are ready, saved, lost, altered or expired: fetched, and never generated again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from benchmarks import finished_batch
from pipeline.download.downloader import Downloader
from pipeline.errors import Conflict, StopReason, StoreError
from pipeline.model import Record, State
from pipeline.sandbox import Fault
from pipeline.storage import LocalStore, TransientStoreError
from tests.integration.engine_harness import (
    FAST_DOWNLOAD_LIMITS,
    EngineHarness,
    count_states,
    fast_sandbox_options,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.model import Transition
    from pipeline.storage import FileStamp


def videos(folder: Path) -> list[Path]:
    return sorted((folder / "videos").glob("*.mp4"))


async def test_a_saved_file_that_was_altered_is_fetched_again(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path) as house:
        await house.run(4)
        _, second, third, fourth = videos(tmp_path)
        whole = {path.name: path.read_bytes() for path in videos(tmp_path)}
        second.write_bytes(whole[second.name][:-1] + b"x")
        third.write_bytes(whole[third.name] + b"x")
        os.utime(fourth)
        downloads = sum(house.sandbox_state.cdn_requests.values())
        outcome = await house.run()
        assert count_states(outcome) == {State.DONE: 4}
        for path in (tmp_path / "videos" / name for name in whole):
            assert path.read_bytes() == whole[path.name]
        assert house.sandbox_state.create_requests == 4
        assert sum(house.sandbox_state.cdn_requests.values()) == downloads + 2
        assert house.observer.messages_text().count("was altered") == 2


async def test_a_video_that_was_moved_away_stays_done_until_it_is_wanted_back(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path) as house:
        await house.run(3)
        before = await house.ledger.load()
        gone = videos(tmp_path)[0]
        gone.unlink()
        downloads = sum(house.sandbox_state.cdn_requests.values())
        for _ in range(2):
            outcome = await house.run()
            assert count_states(outcome) == {State.DONE: 3}
            assert (outcome.stop_reason, outcome.unfinished) == (None, {})
        assert house.observer.messages_text().count("--fetch-missing") == 1
        assert sum(house.sandbox_state.cdn_requests.values()) == downloads
        [record] = [record for record in outcome.records if record.key == before[0].key]
        assert record.artifact is not None
        assert before[0].artifact is not None
        assert record.artifact.sha256 == before[0].artifact.sha256
        assert "moved" in "; ".join(record.artifact.warnings)
        outcome = await house.run(fetch_missing=True)
        assert gone.exists()
        assert all(record.artifact and not record.artifact.moved for record in outcome.records)


async def test_a_moved_video_that_is_back_is_as_before(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path) as house:
        await house.run(1)
        [path] = videos(tmp_path)
        path.rename(tmp_path / "archive.mp4")
        outcome = await house.run()
        assert [record.artifact and record.artifact.moved for record in outcome.records] == [True]
        (tmp_path / "archive.mp4").rename(path)
        outcome = await house.run()
        assert [record.artifact and record.artifact.moved for record in outcome.records] == [False]


async def test_a_video_that_cannot_be_fetched_again_loses_nothing(tmp_path: Path) -> None:
    """The link is dead and the vendor hands out no other: the row is done as it was, and the run says so."""
    async with EngineHarness(tmp_path) as house:
        await house.run(2)
        before = await house.ledger.load()
        videos(tmp_path)[0].unlink()
        house.sandbox._injector.faults.append(Fault("cdn-error", value=404))
        outcome = await house.run(fetch_missing=True, poll_interval=0.05, check=False)
        assert count_states(outcome) == {State.DONE: 2}
        assert outcome.stop_reason is StopReason.UNFINISHED
        assert "could not be fetched again" in outcome.message
        after = await house.ledger.load()
        assert [record.artifact and record.artifact.sha256 for record in after] == [
            record.artifact and record.artifact.sha256 for record in before
        ]
        again = await house.run()
        assert (again.stop_reason, again.unfinished) == (None, {})


async def test_a_finished_batch_again_opens_no_video(tmp_path: Path) -> None:
    await finished_batch.build(tmp_path, 30, 2**20)
    found = await anyio.to_thread.run_sync(finished_batch.measure, tmp_path)
    assert (found["code"], found["opened"]) == (0, 0)


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_a_dead_link_is_replaced_by_asking_again(tmp_path: Path, status: int) -> None:
    async with EngineHarness(
        tmp_path, fast_sandbox_options(), Fault("cdn-error", times=1, value=status)
    ) as house:
        outcome = await house.run(3)
        assert count_states(outcome) == {State.DONE: 3}
        assert house.sandbox_state.create_requests == 3


async def test_a_row_left_ready_with_a_link_that_expired_is_fetched_by_the_next_run(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path, fast_sandbox_options(url_lifetime_s=2000.0)) as house:
        await house.run(1)
        [record] = await house.ledger.load()
        dead = f"{house.sandbox.cdn_url}/files/long-gone.mp4?Expires=1"
        ready = await house.ledger.commit(record, record.evolve(State.READY, artifact=None, video_url=dead))
        videos(tmp_path)[0].unlink()
        outcome = await house.run()
        assert count_states(outcome) == {State.DONE: 1}
        assert house.sandbox_state.create_requests == 1
        assert outcome.records[0].version > ready.version


async def test_invalid_video_fails_one_row_and_keeps_its_cost(tmp_path: Path) -> None:
    async with EngineHarness(
        tmp_path, fast_sandbox_options(), Fault("cdn-corrupt", match="number 1.")
    ) as house:
        outcome = await house.run(3)
        assert count_states(outcome) == {State.DONE: 2, State.FAILED: 1}
        [lost] = [record for record in outcome.records if record.state is State.FAILED]
        assert lost.failure is not None
        assert lost.failure.code == "not_a_video"
        assert lost.generation_id
        assert lost.usd_spent == 0.4
        assert (outcome.stop_reason, outcome.unfinished) == (None, {})


async def test_a_cdn_that_sends_wrong_bytes_for_a_moment_costs_no_video(tmp_path: Path) -> None:
    fault = Fault("cdn-corrupt", times=FAST_DOWNLOAD_LIMITS.conclusive_fetches)
    async with EngineHarness(tmp_path, fast_sandbox_options(), fault) as house:
        outcome = await house.run(1)
        assert count_states(outcome) == {State.DONE: 1}
        assert "again in" in house.observer.messages_text()
        assert (outcome.stop_reason, outcome.unfinished) == (None, {})
        assert house.sandbox_state.create_requests == 1


async def test_a_file_that_cannot_be_had_now_stays_ready_for_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.download.downloader_pool.MAX_ROUNDS", 2)
    async with EngineHarness(
        tmp_path, fast_sandbox_options(), Fault("cdn-error", match="number 1.", value=503)
    ) as house:
        outcome = await house.run(3, poll_interval=0.05)
        assert count_states(outcome) == {State.DONE: 2, State.READY: 1}
        assert outcome.stop_reason is StopReason.UNFINISHED
        assert outcome.message.startswith("row-1: ")
        house.sandbox._injector.faults.clear()
        again = await house.run()
        assert count_states(again) == {State.DONE: 3}
        assert (house.sandbox_state.create_requests, again.unfinished) == (3, {})


async def test_a_row_that_came_late_and_then_was_no_video_leaves_nothing_open(tmp_path: Path) -> None:
    faults = (Fault("cdn-error", times=FAST_DOWNLOAD_LIMITS.max_attempts, value=503), Fault("cdn-corrupt"))
    async with EngineHarness(tmp_path, fast_sandbox_options(), *faults) as house:
        outcome = await house.run(1, poll_interval=0.05)
        assert count_states(outcome) == {State.FAILED: 1}
        assert "again in" in house.observer.messages_text()
        assert (outcome.stop_reason, outcome.unfinished) == (None, {})


async def test_full_output_stops_submitting_and_keeps_what_is_paid(
    tmp_path: Path,
) -> None:
    class Full(Downloader):
        async def download(self, *args: Any, **options: Any) -> Any:
            raise StoreError("no space left on the disk")

    async with EngineHarness(tmp_path) as house:
        house.downloader_type = Full
        outcome = await house.run(12, concurrency=2)
        assert outcome.stop_reason is StopReason.DISK
        assert "no space left" in outcome.message
        paid = house.sandbox_state.create_requests
        assert count_states(outcome) == {State.READY: paid, State.PENDING: 12 - paid}
        assert 1 <= paid < 12
        house.downloader_type = Downloader
        again = await house.run(concurrency=6)
        assert count_states(again) == {State.DONE: 12}
        assert house.sandbox_state.create_requests == 12


async def test_a_store_that_is_away_for_a_moment_costs_later_rounds_and_no_row(tmp_path: Path) -> None:
    class Away(Downloader):
        fails = 8

        async def download(self, *args: Any, **options: Any) -> Any:
            if Away.fails:
                Away.fails -= 1
                raise TransientStoreError("the bucket answers 503")
            return await super().download(*args, **options)

    async with EngineHarness(tmp_path) as house:
        house.downloader_type = Away
        outcome = await house.run(6, poll_interval=0.02)
        assert count_states(outcome) == {State.DONE: 6}
        assert (outcome.stop_reason, outcome.unfinished, Away.fails) == (None, {}, 0)


async def test_a_store_that_stays_away_stops_submitting(tmp_path: Path) -> None:
    class Away(Downloader):
        async def download(self, *args: Any, **options: Any) -> Any:
            raise TransientStoreError("the bucket answers 503")

    async with EngineHarness(tmp_path) as house:
        house.downloader_type = Away
        outcome = await house.run(200, poll_interval=0.02, concurrency=2)
        assert (outcome.stop_reason, outcome.message) == (StopReason.DISK, "the bucket answers 503")
        paid = house.sandbox_state.create_requests
        assert count_states(outcome) == {State.READY: paid, State.PENDING: 200 - paid}
        house.downloader_type = Downloader
        again = await house.run(concurrency=6)
        assert count_states(again) == {State.DONE: 200}
        assert house.sandbox_state.create_requests == 200


async def test_one_row_that_the_store_never_takes_costs_that_row(tmp_path: Path) -> None:
    class Refusing(Downloader):
        async def download(self, record: Record, *args: Any, **options: Any) -> Any:
            if record.id == "row-1":
                raise TransientStoreError("the bucket answers 400")
            return await super().download(record, *args, **options)

    async with EngineHarness(tmp_path) as house:
        house.downloader_type = Refusing
        outcome = await house.run(6, poll_interval=0.02)
        assert count_states(outcome) == {State.DONE: 5, State.READY: 1}
        assert outcome.stop_reason is StopReason.UNFINISHED
        assert list(outcome.unfinished.values()) == ["the bucket answers 400"]


@pytest.mark.parametrize("times", [1, 100])
async def test_a_listing_that_fails_for_a_moment_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    stamps, failures = LocalStore.stamps, [TransientStoreError("the bucket answers 503")] * times

    async def failing(store: LocalStore, paths: Sequence[str]) -> dict[str, FileStamp]:
        if failures:
            raise failures.pop()
        return await stamps(store, paths)

    async with EngineHarness(
        tmp_path, fast_sandbox_options(), Fault("slow", match="number 1.", value=8.0)
    ) as house:
        early = await house.run(2, timeout=0.4)
        assert count_states(early) == {State.DONE: 1, State.GENERATING: 1}
        monkeypatch.setattr(LocalStore, "stamps", failing)
        outcome = await house.run(poll_interval=0.02)
        assert count_states(outcome) == {State.DONE: 2}
        assert outcome.stop_reason is (None if times == 1 else StopReason.UNFINISHED)
        assert all("could not be checked" in reason for reason in outcome.unfinished.values())
        assert len(outcome.unfinished) == (times > 1)


async def test_unreadable_output_ends_run_with_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreadable(*_: object) -> dict[str, FileStamp]:
        raise StoreError("input/output error")

    async with EngineHarness(
        tmp_path, fast_sandbox_options(), Fault("slow", match="number 1.", value=8.0)
    ) as house:
        early = await house.run(2, timeout=0.4)
        assert count_states(early) == {State.DONE: 1, State.GENERATING: 1}
        monkeypatch.setattr(LocalStore, "stamps", unreadable)
        outcome = await house.run()
        assert (outcome.stop_reason, outcome.message) == (StopReason.DISK, "input/output error")
        assert count_states(outcome) == {State.DONE: 1, State.READY: 1}


async def test_a_saved_file_that_cannot_be_looked_at_costs_its_row_alone(tmp_path: Path) -> None:
    """Its user has put a link in its place that leads nowhere: the others are saved."""
    async with EngineHarness(
        tmp_path, fast_sandbox_options(), Fault("slow", match="number 1.", value=8.0)
    ) as house:
        early = await house.run(2, timeout=0.4)
        assert count_states(early) == {State.DONE: 1, State.GENERATING: 1}
        [done] = [record for record in early.records if record.state is State.DONE]
        [saved] = videos(tmp_path)
        saved.unlink()
        saved.symlink_to(saved.name)
        outcome = await house.run(check=False)
        assert count_states(outcome) == {State.DONE: 2}
        assert outcome.stop_reason is StopReason.UNFINISHED
        assert outcome.unfinished.keys() == {done.key}
        assert str(saved) in outcome.unfinished[done.key]
        assert saved.is_symlink()


async def test_a_saved_row_that_someone_else_moved_meanwhile_is_left_to_them(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path) as house:
        await house.run(2)
        records = await house.ledger.load()
        videos(tmp_path)[0].unlink()

        async def taken(transitions: Sequence[Transition]) -> list[Record | Conflict]:
            return [Conflict(one.after.key) for one in transitions]

        house.ledger.commit_many = taken  # type: ignore[method-assign]  # another process is faster
        outcome = await house.run(known=records, check=False, fetch_missing=True)
        assert outcome.unfinished == {records[0].key: "another process has it"}
        assert count_states(outcome) == {State.DONE: 2}
