"""The sandbox's tables: keys, retirements, clocks, changed statuses and altered films."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import av
import pytest

from pipeline.sandbox import Fault, Generation, KeyRule, Retirement, clock, parse_key, parse_retirement
from pipeline.sandbox.faults.altered_files import FILE_FAULTS
from pipeline.sandbox.faults.status_changes import BAD_URLS, apply_generation_faults, bad_url
from pipeline.sandbox.keys import KeyRing, key_id, prefix_id
from pipeline.sandbox.state import Status
from pipeline.sandbox.video.clip import make_clip
from pipeline.sandbox.video.shape import ClipLabel, ClipShape

VEO = "google/veo-3.1-i2v-fast"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("k1", KeyRule("k1")),
        ("k1,disabled", KeyRule("k1", disabled=True)),
        ("k1,scope=model:chat,scope=model:video", KeyRule("k1", scopes=("model:chat", "model:video"))),
        ("k1,limit=5", KeyRule("k1", limit_usd=5.0)),
        ("k1,limit=2.5/week,disabled", KeyRule("k1", True, None, 2.5, "week")),
    ],
)
def test_a_key_is_read_with_what_it_may_do(text: str, rule: KeyRule) -> None:
    assert parse_key(text) == rule


@pytest.mark.parametrize(
    "text",
    ["", "a b", "k1,", "k1,scope=video", "k1,limit=x", "k1,limit=-1", "k1,limit=5/hour", "k1,disabled=no"],
)
def test_a_wrong_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="key"):
        parse_key(text)


@pytest.mark.parametrize(
    ("retention", "start"),
    [
        ("no_reset", "1970-01-01"),
        ("day", "2026-11-26"),
        ("week", "2026-11-23"),
        ("month", "2026-11-01"),
    ],
)
def test_a_limit_is_reset_at_midnight_utc(retention: Any, start: str) -> None:
    thursday = datetime(2026, 11, 26, 13, 45, tzinfo=UTC).timestamp()
    expected = datetime.fromisoformat(start).replace(tzinfo=UTC).timestamp()
    assert KeyRule("k", limit_usd=1.0, retention=retention).limit_start(thursday) == expected


def test_a_key_ring_takes_any_key_unless_it_has_rules() -> None:
    free, strict = KeyRing((), "management"), KeyRing((KeyRule("k1"),), "management")
    assert [free.find(key) is not None for key in ("k1", "k2", "management", "a b", "")] == [
        *(True, True, True),
        *(False, False),
    ]
    assert [strict.find(key) is not None for key in ("k1", "k2", "management")] == [True, False, True]


def test_the_id_of_a_key_begins_with_that_of_its_prefix_and_tells_nothing() -> None:
    one, other = "abcdefgh-first", "abcdefgh-second"
    assert key_id(one) != key_id(other)
    assert key_id(one).startswith(prefix_id("abcdefgh"))
    assert key_id(other).startswith(prefix_id("abcdefgh-ignored"))
    assert "abcdefgh" not in key_id(one)


@pytest.mark.parametrize(
    ("text", "retirement"),
    [
        (f"{VEO}=withdrawn", Retirement(VEO, "withdrawn")),
        (f"{VEO}=deprecated,2026-12-31", Retirement(VEO, "deprecated", "2026-12-31")),
        (f"{VEO}=superseded,google/veo-4", Retirement(VEO, "superseded", "", "google/veo-4")),
        (
            f"{VEO}=withdrawn,2026-12-31,google/veo-4",
            Retirement(VEO, "withdrawn", "2026-12-31", "google/veo-4"),
        ),
    ],
)
def test_a_retirement_is_read(text: str, retirement: Retirement) -> None:
    assert parse_retirement(text) == retirement


@pytest.mark.parametrize(
    "text", ["", VEO, "=withdrawn", f"{VEO}=gone", f"{VEO}=withdrawn,a,b", f"{VEO}=withdrawn,2026-13-01"]
)
def test_a_wrong_retirement_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"retired|month"):
        parse_retirement(text)


def test_the_vendors_clock_is_ahead_by_its_offset() -> None:
    vendor = clock.VendorClock(3600.0)
    assert 3599 < vendor.now() - clock.now() < 3601
    assert vendor.timestamp(0.0) == "1970-01-01T01:00:00.000Z"


def test_the_sandbox_does_not_follow_a_step_of_the_machines_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    before = clock.now()
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert 0 <= clock.now() - before < 60


@pytest.mark.parametrize(
    ("fault", "polls", "status", "has_url"),
    [
        (Fault("completed-late-url", value=2), 2, Status.COMPLETED, False),
        (Fault("completed-late-url", value=2), 3, Status.COMPLETED, True),
        (Fault("error-then-completed"), 1, Status.ERROR, False),
        (Fault("error-then-completed"), 2, Status.COMPLETED, True),
        (Fault("completed-then-error", value=3), 3, Status.COMPLETED, True),
        (Fault("completed-then-error", value=3), 4, Status.ERROR, False),
        (Fault("completed-without-url"), 9, Status.COMPLETED, False),
    ],
)
def test_the_end_that_is_shown_depends_on_the_poll(
    fault: Fault, polls: int, status: Status, has_url: bool
) -> None:
    one = Generation("id", 0, "", {}, VEO, "r", 0.0, 1.0, 1.2, faults=(fault,), final_polls=polls)
    shown, url = apply_generation_faults(one, Status.COMPLETED, "http://x/y.mp4")
    assert (shown, url is not None) == (status, has_url)


def test_a_generation_that_renders_is_shown_as_it_is() -> None:
    one = Generation("id", 0, "", {}, VEO, "r", 0.0, 1.0, 1.2, faults=(Fault("error-then-completed"),))
    assert apply_generation_faults(one, Status.GENERATING, None) == (Status.GENERATING, None)


def test_a_bad_url_is_known_by_name_or_given() -> None:
    assert bad_url(None) == BAD_URLS["port"]
    assert bad_url("empty-label") == BAD_URLS["empty-label"]
    assert bad_url("http://[") == "http://["


@pytest.mark.parametrize(
    ("name", "plays"),
    [("cdn-trailing-bytes", True), ("cdn-turned", True), ("cdn-encrypted", False), ("cdn-no-index", False)],
)
def test_an_altered_film_plays_or_does_not(name: str, plays: bool) -> None:
    shape = ClipShape.for_request("720p", "16:9", 1, False, small=True)
    altered = FILE_FAULTS[name](make_clip(shape, ClipLabel("p", "id", "model")))
    assert _plays(altered) == plays


def _plays(data: bytes) -> bool:
    try:
        with av.open(io.BytesIO(data), "r") as container:
            return len(list(container.decode(video=0))) == 12
    except av.FFmpegError:
        return False


def test_bad_metadata_is_not_utf_8() -> None:
    shape = ClipShape.for_request("720p", "16:9", 1, False, small=True)
    altered = FILE_FAULTS["cdn-bad-metadata"](make_clip(shape, ClipLabel("p", "id", "model")))
    with pytest.raises(UnicodeDecodeError):
        av.open(io.BytesIO(altered), "r")
