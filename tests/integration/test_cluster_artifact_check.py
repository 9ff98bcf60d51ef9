"""What is looked after before workers start: saved videos that are gone, and a place that is away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.cli.app import check_artifacts
from pipeline.download.downloader import Downloader
from pipeline.download.http import open_session
from pipeline.errors import StoreError
from pipeline.model import State
from pipeline.storage import LocalStore
from tests.integration.engine_harness import FAST_DOWNLOAD_LIMITS, EngineHarness

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.model import Artifact


class UnreadableDownloader(Downloader):
    async def intact(self, artifact: Artifact) -> bool:
        raise StoreError(f"{artifact.path} cannot be read")


async def test_what_is_missing_is_fetched_again_and_the_rest_left_alone(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path) as house, open_session() as cdn:
        await house.run(3)
        records = await house.ledger.load()
        gone = records[1]
        assert gone.artifact is not None
        (tmp_path / gone.artifact.path).unlink()
        downloader = Downloader(
            session=cdn, store=LocalStore(tmp_path), limits=FAST_DOWNLOAD_LIMITS, media=False
        )
        checked, trouble = await check_artifacts(records, house.ledger, downloader, house.observer)
        assert trouble is None
        assert [record.state for record in checked] == [State.DONE, State.READY, State.DONE]
        assert checked == await house.ledger.load()
        assert "fetching it again" in house.observer.messages_text()


async def test_unavailable_output_is_reported_and_nothing_is_downloaded_again(tmp_path: Path) -> None:
    async with EngineHarness(tmp_path) as house, open_session() as cdn:
        await house.run(6)
        records = await house.ledger.load()
        downloader = UnreadableDownloader(
            session=cdn, store=LocalStore(tmp_path), limits=FAST_DOWNLOAD_LIMITS, media=False
        )
        checked, trouble = await check_artifacts(records, house.ledger, downloader, house.observer)
        assert isinstance(trouble, StoreError)
        assert checked == records == await house.ledger.load()
