"""Records to show: the shapes in which a batch's rows come, for the tests of everything people see."""

from __future__ import annotations

import json
from typing import Any

from pipeline.model import Artifact, Failure, Media, Record, State

T0 = 1_790_000_000.0
MEDIA = Media(8.0, 1920, 1080, 24.0, has_audio=True, video_codec="h264", audio_codec="aac")


def row(index: int, state: State = State.PENDING, **changes: Any) -> Record:
    """A row of the manifest at `index`, a manifest line for every four."""
    facts: dict[str, Any] = {
        "key": f"job-{index}@f{index}",
        "id": f"job-{index}",
        "fingerprint": f"f{index}",
        "position": index,
        "model": "google/veo-3.1-i2v-fast",
        "body": json.dumps({"model": "google/veo-3.1-i2v-fast", "duration": 8, "resolution": "1080p"}),
        "manifest_image": "https://example.com/mona.jpg",
        "prompt": f"Prompt {index}.",
        "line": 4 + 4 * index,
        "state": state,
    }
    return Record(**(facts | changes))


def done(index: int, took_s: float = 90.0, **changes: Any) -> Record:
    at = T0 + index
    facts: dict[str, Any] = {
        "generation_id": f"gen-{index}",
        "correlation_id": f"vb-{index}-1",
        "submitted_at": at,
        "accepted_at": at + 0.5,
        "not_yet_at": at + took_s - 3,
        "finished_at": at + took_s,
        "downloaded_at": at + took_s + 2,
        "attempts": 1,
        "polls": 3,
        "usd_spent": 1.2,
        "reserved_usd": 1.2,
        "artifact": Artifact(
            f"videos/job-{index}.mp4", 2_000_000, "ab" * 32, MEDIA, f"posters/job-{index}.jpg"
        ),
    }
    return row(index, State.DONE, **(facts | changes))


def failed(index: int, message: str = "duration must be one of 4, 6, 8", **changes: Any) -> Record:
    facts: dict[str, Any] = {"failure": Failure("refused", message), "submitted_at": T0 + index}
    return row(index, State.FAILED, **(facts | changes))
