"""The rows of a batch as typed values: what `results.csv` holds, under the same names."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipeline.manifest.jobs import take_seed
from pipeline.manifest.local_files import image_sha256
from pipeline.model import State
from pipeline.results.csv_rows import status

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.model import Record


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a batch. What is not known, or not there yet, is None, or "" for a text.

    `status` is `done`, `failed`, `in_doubt`, `ready`, `generating` or `pending`. `video_path` and
    `poster_path` are paths or URLs that can be opened from here. Times are in UTC, durations in seconds,
    sizes in bytes and pixels, money in USD (play money when `sandbox`). `warnings` is what is odd about the
    file. The fields are the columns of `results.csv`.
    """

    id: str
    status: str
    generation_id: str
    video_path: str | None
    image_url: str
    prompt: str
    model: str
    bytes: int | None
    sha256: str
    duration_s: float | None
    width: int | None
    height: int | None
    has_audio: bool | None
    submitted_at: datetime | None
    finished_at: datetime | None
    downloaded_at: datetime | None
    polls: int
    attempts: int
    credits_used: float | None
    usd_spent: float | None
    error_code: str
    error_message: str
    line: int | None
    correlation_id: str
    fps: float | None
    poster_path: str | None
    warnings: tuple[str, ...]
    request_id: str
    take: int
    pick: str
    image_sha256: str
    sandbox: bool
    seed: str


ROW_FIELDS = tuple(field.name for field in fields(Row))


def row_of(record: Record, output_path: Callable[[str], str] = str, *, sandbox: bool = False) -> Row:
    """Return what is known of a row; `output_path` turns a file's name in the output into a path or URL."""
    artifact = record.artifact if record.state in (State.DONE, State.READY) else None
    media = artifact.media if artifact else None
    failure = record.failure if record.state is not State.DONE else None
    return Row(
        id=record.id,
        status=status(record).value,
        generation_id=record.generation_id,
        video_path=output_path(artifact.path) if artifact else None,
        image_url=record.manifest_image,
        prompt=record.prompt,
        model=record.model,
        bytes=artifact.size_bytes if artifact else None,
        sha256=artifact.sha256 if artifact else "",
        duration_s=media.duration_s if media else None,
        width=media.width if media else None,
        height=media.height if media else None,
        has_audio=media.has_audio if media else None,
        submitted_at=_utc(record.submitted_at),
        finished_at=_utc(record.finished_at),
        downloaded_at=_utc(record.downloaded_at),
        polls=record.polls,
        attempts=record.attempts,
        credits_used=record.credits_used,
        usd_spent=record.usd_spent,
        error_code=failure.code if failure else "",
        error_message=failure.message if failure else "",
        line=record.line or None,
        correlation_id=record.correlation_id,
        fps=media.fps if media else None,
        poster_path=output_path(artifact.poster_path) if artifact and artifact.poster_path else None,
        warnings=artifact.warnings if artifact else (),
        request_id=record.request_id,
        take=record.take,
        pick=record.pick,
        image_sha256=image_sha256(record.body),
        sandbox=sandbox,
        seed=take_seed(record.body),
    )


def _utc(time_s: float | None) -> datetime | None:
    return None if time_s is None else datetime.fromtimestamp(time_s, UTC)
