"""Whether a saved file is untouched, by its stamp alone: however a store spells its ETags."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.download.verify import FileCondition, compare
from pipeline.model import Artifact
from pipeline.results.picks import PlacedFile
from pipeline.storage.base import FileStamp

QUOTED, BARE = '"0x8DD0BCE74DF32"', "0x8DD0BCE74DF32"


@pytest.mark.parametrize("noted", [QUOTED, BARE])
@pytest.mark.parametrize("listed", [QUOTED, BARE])
def test_an_etag_is_the_same_in_quotes_and_without(noted: str, listed: str) -> None:
    """Azure gives it in quotes for one object and without in a listing."""
    artifact = Artifact("videos/a.mp4", 7, "ab" * 32, etag=noted)
    assert compare(artifact, FileStamp(7, etag=listed)) is FileCondition.UNTOUCHED
    assert PlacedFile("picks/a.mp4", 7, "ab" * 32, etag=noted).is_file(FileStamp(7, etag=listed))


@pytest.mark.parametrize("stamp", [{"etag": '"other"'}, {"etag": ""}, {"mtime_ns": 5}])
def test_another_etag_is_another_file(stamp: dict[str, Any]) -> None:
    artifact = Artifact("videos/a.mp4", 7, "ab" * 32, etag=QUOTED)
    assert compare(artifact, FileStamp(7, **stamp)) is FileCondition.UNREAD
    assert not PlacedFile("picks/a.mp4", 7, "ab" * 32, etag=QUOTED).is_file(FileStamp(7, **stamp))
