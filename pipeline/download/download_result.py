"""What became of one row's download: saved, not a video, or not now. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.download.clips import joined_artifact
from pipeline.model import Artifact, Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.model import Record


@dataclass(frozen=True, slots=True)
class Saved:
    """The video is whole, examined, under its final name and durable. `note` is for the user, if any.

    `is_complete`: all clips of the generation are.
    """

    artifact: Artifact
    note: str = ""
    is_complete: bool = True


@dataclass(frozen=True, slots=True)
class InvalidVideo:
    """Several full fetches brought bytes that no player shows; the failure names where they are kept."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Deferred:
    """It could not be fetched now; what has arrived is kept, and the row stays ready.

    `retryable` says whether another try in this run may do better.
    """

    reason: str
    retryable: bool = True


DownloadResult = Saved | InvalidVideo | Deferred


def joined_result(record: Record, results: Sequence[DownloadResult], final: bool) -> DownloadResult:
    """Join the results of a row's several clips: each is paid for, so the row is saved once all are.

    What is wrong with one clip may pass, until the last round: then a row with a clip that plays is saved,
    and says which ones are missing.
    """
    saved = {number: one for number, one in enumerate(results) if isinstance(one, Saved)}
    missing = {
        number: f"clip {number + 1} of {len(results)}: {one.failure.message}"
        for number, one in enumerate(results)
        if isinstance(one, InvalidVideo)
    }
    deferred = [one for one in results if isinstance(one, Deferred)]
    reasons = [*(one.reason for one in deferred), *missing.values()]
    if deferred or (missing and not final):
        return Deferred("; ".join(reasons), bool(missing) or any(one.retryable for one in deferred))
    if not saved:
        return InvalidVideo(Failure("not_a_video", "; ".join(reasons)))
    missing = {number: f"{why}; --fetch-missing fetches it again" for number, why in missing.items()}
    artifact = joined_artifact(record, {number: one.artifact for number, one in saved.items()}, missing)
    notes = filter(None, [*(one.note for one in saved.values()), *missing.values()])
    return Saved(artifact, "; ".join(notes), is_complete=not missing)
