"""What is checked before workers start: altered or moved videos, and an output that is away."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pipeline.circuit_breaker import MIN_ROWS
from pipeline.download.verify import FileCondition, check_saved
from pipeline.errors import StopReason, StoreError
from pipeline.events import Topic
from pipeline.model import ExtraFile, State
from pipeline.runner.on_cluster import ArtifactCheck
from pipeline.settings import Settings
from pipeline.storage import LocalStore
from tests.integration.engine_harness import EngineHarness

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from pipeline.storage import FileStamp


class OddStore(LocalStore):
    """Some files cannot be read, others raise what no store should."""

    def __init__(
        self, root: Path, *, unreadable: Collection[int] = (0,), odd: Collection[int] = (1,)
    ) -> None:
        super().__init__(root)
        self.unreadable, self.odd = unreadable, odd

    async def fingerprint(self, path: str, size_bytes: int) -> str | None:
        number = int(path.removeprefix("videos/row-").removesuffix(".mp4"))
        if number in self.odd:
            raise ValueError("odd")
        if number in self.unreadable:
            raise StoreError(f"cannot read {path}: Input/output error")
        return await super().fingerprint(path, size_bytes)


class UnreadableStore(LocalStore):
    async def stamps(self, paths: Sequence[str]) -> dict[str, FileStamp]:
        raise StoreError(f"{paths[0]} cannot be read")


async def test_altered_is_fetched_again_and_moved_stays_done(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path) as harness:
        await harness.run(3)
        records = await harness.ledger.load()
        altered, moved = records[1].artifact, records[2].artifact
        assert altered is not None
        assert moved is not None
        (tmp_path / altered.path).write_bytes(b"cut")
        (tmp_path / moved.path).unlink()
        check = ArtifactCheck(records, harness.ledger, LocalStore(tmp_path), Settings(), harness.observer)
        await check.run()
        checked = list(check.records.values())
        assert check.error is None
        assert [record.state for record in checked] == [State.DONE, State.READY, State.DONE]
        assert checked == await harness.ledger.load()
        assert checked[1].artifact == altered
        assert checked[2].artifact is not None
        assert checked[2].artifact.moved
        assert "was altered: fetching it again" in harness.observer.messages_text()
        assert "--fetch-missing" in harness.observer.messages_text()


async def test_unavailable_output_is_reported_and_nothing_is_downloaded_again(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path) as harness:
        await harness.run(6)
        records = await harness.ledger.load()
        check = ArtifactCheck(
            records, harness.ledger, UnreadableStore(tmp_path), Settings(), harness.observer
        )
        await check.run()
        assert isinstance(check.error, StoreError)
        assert list(check.records.values()) == records == await harness.ledger.load()


async def test_an_odd_or_unreadable_row_is_left_and_the_others_are_checked(tmp_path: Path) -> None:
    """The file of row 0 cannot be read, the check of row 1 raises, row 2 was altered."""
    store = OddStore(tmp_path)
    async with EngineHarness(tmp_path) as harness:
        await harness.run(4)
        records = await harness.ledger.load()
        (tmp_path / "videos" / "row-2.mp4").write_bytes(b"cut")
        check = ArtifactCheck(records, harness.ledger, store, Settings(verify=True), harness.observer)
        await check.run()
        assert check.error is None
        states = [record.state for record in check.records.values()]
        assert states == [State.DONE, State.DONE, State.READY, State.DONE]
        unreadable, crashed = (check.unchecked[record.key] for record in records[:2])
        assert len(check.unchecked) == 2
        assert "cannot read" in unreadable
        assert "ValueError: odd" in crashed
        [crash] = [event for event in harness.observer.events if event.topic is Topic.CRASH]
        assert "odd" in str(crash.facts["traceback"])


async def test_what_raises_for_many_rows_stops_the_check(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path) as harness:
        await harness.run(8)
        records = await harness.ledger.load()
        store = OddStore(tmp_path, odd=range(8))
        check = ArtifactCheck(records, harness.ledger, store, Settings(verify=True), harness.observer)
        await check.run()
        assert check.error is not None
        assert check.error.reason is StopReason.CRASH
        assert len(check.unchecked) == MIN_ROWS


async def test_a_folder_that_cannot_be_looked_into_is_the_outputs(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path) as harness:
        await harness.run(1)
        records = await harness.ledger.load()
        (tmp_path / "videos").rename(tmp_path / "elsewhere")
        (tmp_path / "videos").symlink_to("videos")
        with pytest.raises(StoreError, match="cannot read"):
            await check_saved(LocalStore(tmp_path), records)


class MovedWhileRead(LocalStore):
    """Its user moves each file away after it was listed, and before it is read."""

    async def fingerprint(self, path: str, size_bytes: int) -> str | None:
        (self.root / path).rename(self.root / "elsewhere.mp4")
        return await super().fingerprint(path, size_bytes)


async def test_what_is_moved_away_while_it_is_checked_is_not_altered(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path) as harness:
        await harness.run(1)
        records = await harness.ledger.load()
        [checked] = await check_saved(MovedWhileRead(tmp_path), records, read_all=True)
        assert checked.condition is FileCondition.MOVED
        following = checked.next_record(fetch_missing=False)
        assert following is not None
        assert following.state is State.DONE


async def test_a_further_clip_that_cannot_be_looked_at_is_its_rows(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path) as harness:
        await harness.run(1)
        [record] = await harness.ledger.load()
        assert record.artifact is not None
        artifact = replace(record.artifact, extra=(ExtraFile("videos/loop.mp4", 1, "x"),))
        (tmp_path / "videos/loop.mp4").symlink_to("loop.mp4")
        [checked] = await check_saved(LocalStore(tmp_path), [replace(record, artifact=artifact)])
        assert checked.condition is FileCondition.UNREADABLE
        assert "loop.mp4" in checked.error


async def test_files_that_cannot_be_read_are_the_outputs_when_they_are_many(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path) as harness:
        await harness.run(8)
        records = await harness.ledger.load()
        with pytest.raises(StoreError, match="cannot read"):
            await check_saved(OddStore(tmp_path, unreadable=range(8), odd=()), records, read_all=True)
        found = await check_saved(OddStore(tmp_path, odd=()), records, read_all=True)
        assert [checked.condition for checked in found] == [FileCondition.UNREADABLE]
