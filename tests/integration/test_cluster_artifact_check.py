"""What is checked before workers start: altered or moved videos, and an output that is away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import StoreError
from pipeline.model import State
from pipeline.runner.on_cluster import check_artifacts
from pipeline.settings import Settings
from pipeline.storage import LocalStore
from tests.integration.engine_harness import EngineHarness

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pipeline.storage import FileStamp


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
        checked, error = await check_artifacts(
            records, harness.ledger, LocalStore(tmp_path), Settings(), harness.observer
        )
        assert error is None
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
        checked, error = await check_artifacts(
            records, harness.ledger, UnreadableStore(tmp_path), Settings(), harness.observer
        )
        assert isinstance(error, StoreError)
        assert checked == records == await harness.ledger.load()
