"""The sandbox's pure parts: durations, options, fault workspace, catalogue, captions."""

from __future__ import annotations

import random
import statistics
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sandbox import FAULTS, Fault, Generation, SandboxOptions
from pipeline.sandbox.catalog import MODELS, VEO, find_model
from pipeline.sandbox.durations import parse_durations
from pipeline.sandbox.faults import FaultInjector, FaultPoint, RequestContext
from pipeline.sandbox.video import caption
from pipeline.sandbox.video.caption import choose_font, wrap
from pipeline.sandbox.video.scene import LOOKS, paint_scene
from pipeline.sandbox.video.shape import ClipShape

VALID_BODY: dict[str, Any] = {
    "model": VEO.id,
    "prompt": "A cat yawns.",
    "image_url": "https://example.com/cat.jpg",
}
FAULT_POINTS = {name: kind.point for name, kind in FAULTS.items()}


def make_injector(*faults: Fault, seed: int = 1) -> FaultInjector:
    made = FaultInjector(seed, FAULT_POINTS)
    for fault in faults:
        made.add(fault)
    return made


@pytest.mark.parametrize(
    ("text", "median", "low", "high"),
    [
        ("lognormal", 75, 20, 300),
        ("lognormal:10,0.1", 10, 5, 20),
        ("two-modes", 57, 5, 200),
        ("uniform", 165, 30, 300),
        ("uniform:1,3", 2, 1, 3),
        ("fixed:42", 42, 42, 42),
    ],
)
def test_durations_follow_their_names(text: str, median: float, low: float, high: float) -> None:
    draw, source = parse_durations(text), random.Random(3)
    drawn = [draw(source) for _ in range(3000)]
    assert statistics.median(drawn) == pytest.approx(median, rel=0.06)
    assert low <= min(drawn)
    assert max(drawn) <= high


@pytest.mark.parametrize(
    "text",
    ["", "fixed", "fixed:x", "fixed:-1", "fixed:nan", "fixed:inf", "lognormal:0", "normal", "uniform:1"],
)
def test_unknown_durations_are_refused_with_the_known_names(text: str) -> None:
    with pytest.raises(ValueError, match="lognormal"):
        parse_durations(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("speed", 0.0),
        ("speed", float("inf")),
        ("id_style", "hash"),
        ("video", "huge"),
        ("create_status", 202),
        ("balance_usd", -1.0),
        ("key", "with space"),
        ("key", ""),
        ("durations", "soon"),
        ("concurrency_limit", 0),
        ("url_lifetime_s", -3.0),
        ("log_rows", "sometimes"),
    ],
)
def test_a_wrong_option_is_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        SandboxOptions(**{name: value})  # type: ignore[arg-type]  # wrong on purpose


def test_a_fault_is_triggered_only_for_the_jobs_that_it_is_for() -> None:
    faults = make_injector(Fault("server-error", match="cat"))
    assert faults.pick(FaultPoint.CREATE, RequestContext("1", "a cat", "x")) is not None
    assert faults.pick(FaultPoint.CREATE, RequestContext("2", "a dog", "job-cat-1")) is not None
    assert faults.pick(FaultPoint.CREATE, RequestContext("3", "a dog", "x")) is None
    assert faults.pick(FaultPoint.STATUS, RequestContext("1", "a cat", "x")) is None


def test_a_fault_has_a_limit_per_job_and_a_first_opportunity() -> None:
    faults = make_injector(Fault("status-reset", times=2, after=1))
    for key in ("one", "two"):
        triggered = [faults.pick(FaultPoint.STATUS, RequestContext(key)) is not None for _ in range(5)]
        assert triggered == [False, True, True, False, False]
    assert faults.triggered["status-reset"] == 4


def test_a_fault_has_a_limit_in_all_and_may_be_for_the_nth_create() -> None:
    faults = make_injector(Fault("quota", total=2), Fault("throttled", nth=3))
    names = [faults.pick(FaultPoint.CREATE, RequestContext(str(nth), nth=nth)) for nth in range(1, 6)]
    assert [fault.name if fault else "" for fault in names] == ["quota", "quota", "throttled", "", ""]


def test_a_share_is_seeded_and_independent_of_arrival_order() -> None:
    subjects = [RequestContext(f"job {number}") for number in range(400)]
    one, other = make_injector(Fault("cdn-cut", share=0.25)), make_injector(Fault("cdn-cut", share=0.25))
    forwards = {s.key for s in subjects if one.pick(FaultPoint.CDN, s)}
    backwards = {s.key for s in reversed(subjects) if other.pick(FaultPoint.CDN, s)}
    assert forwards == backwards
    assert 60 < len(forwards) < 140
    assert forwards != {
        s.key for s in subjects if make_injector(Fault("cdn-cut", share=0.25), seed=2).pick(FaultPoint.CDN, s)
    }


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(ValueError, match="cdn-cut"):
        make_injector(Fault("cdn-cutt"))
    with pytest.raises(ValueError, match="share"):
        make_injector(Fault("cdn-cut", share=1.5))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", None),
        ("prompt", 3),
        ("prompt", ""),
        ("image_url", "not a url"),
        ("image_url", "file:///etc/passwd"),
        ("image_url", "http://"),
        ("duration", 5),
        ("duration", "8"),
        ("duration", True),
        ("duration", 8.0),
        ("resolution", "4k"),
        ("aspect_ratio", "1:1"),
        ("generate_audio", "yes"),
        ("generate_audio", 1),
        ("provider", "openai"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: object) -> None:
    (problem,) = VEO.validation_errors({**VALID_BODY, field: value})
    assert problem.startswith(field)


def test_missing_fields_are_all_named() -> None:
    assert VEO.validation_errors({"model": VEO.id}) == ["prompt is required", "image_url is required"]


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"duration": 4, "resolution": "720p", "aspect_ratio": "9:16", "generate_audio": False},
        {"provider": "Google"},
        {"provider": "AUTO"},
        {"a_field_of_tomorrow": [1]},
        {"image_url": "data:image/png;base64,AAAA"},
    ],
)
def test_a_right_body_has_no_problem(extra: dict[str, Any]) -> None:
    assert VEO.validation_errors({**VALID_BODY, **extra}) == []


def test_models_are_found_by_id_and_alias() -> None:
    for model in MODELS:
        assert [find_model(name) for name in (model.id, *model.aliases)] == [model] * (1 + len(model.aliases))
    assert find_model("google/veo-9") is None


@pytest.mark.parametrize(
    ("fails", "render_s", "walk"),
    [
        (False, 100.0, ["waiting", "queued", "active", "generating", "generating", "completed", "completed"]),
        (True, 100.0, ["waiting", "queued", "active", "generating", "generating", "error", "error"]),
        (False, 0.0, ["completed"] * 7),
        (False, inf, ["generating"] * 7),
    ],
)
def test_the_status_follows_from_the_time(fails: bool, render_s: float, walk: list[str]) -> None:
    born = 1_000_000.0
    one = Generation("id", 0, "", VALID_BODY, VEO.id, "r", born, render_s, 1.2, fails=fails)
    assert [one.status_at(born + age) for age in (0.0, 5, 15, 25, 99.9, 100, 10_000)] == walk


@pytest.mark.parametrize(
    ("resolution", "aspect", "small", "size"),
    [
        ("1080p", "16:9", False, (1920, 1080)),
        ("1080p", "9:16", False, (1080, 1920)),
        ("720p", "16:9", False, (1280, 720)),
        ("720p", "1:1", False, (720, 720)),
        ("1080p", "9:16", True, (90, 160)),
    ],
)
def test_shapes_have_the_requested_size_and_a_band_with_an_even_top(
    resolution: str, aspect: str, small: bool, size: tuple[int, int]
) -> None:
    shape = ClipShape.for_request(resolution, aspect, 8, True, small=small)
    assert (shape.width, shape.height) == size
    assert shape.band_top % 2 == 0
    assert (shape.band_top == shape.height) == small


def test_looks_differ_and_repeat() -> None:
    pictures = [paint_scene(32, 18, 0.0, look).tobytes() for look in range(LOOKS + 1)]
    assert len(set(pictures)) == LOOKS
    assert pictures[LOOKS] == pictures[0]


@given(st.text(max_size=200), st.integers(60, 400), st.integers(1, 5))
def test_wrapped_text_fits(text: str, width: int, most: int) -> None:
    shown, font = choose_font(text, 20)
    lines = wrap(shown, width, font, most)
    assert 1 <= len(lines) <= most
    assert all(font.getlength(line) <= width for line in lines)


def test_wrapping_keeps_words_and_a_shortened_text_ends_in_an_ellipsis() -> None:
    font = choose_font("", 20)[1]
    text = "the quick brown fox jumps over it"
    assert wrap("one two three", 10_000, font, 3) == ["one two three"]
    assert " ".join(wrap(text, 130, font, 9)) == text
    assert wrap(text, 130, font, 1)[0].endswith("…")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("A cat yawns.", "A cat yawns."),
        ("one\n\ttwo\x00three", "one two three"),
        ("half a pair \ud800", "half a pair"),
        ("private \ue000", "private ?"),
        ("", ""),
    ],
)
def test_a_letter_that_no_font_has_is_a_question_mark(
    text: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caption, "FONT_FILES", ("no such font.ttf",))
    assert choose_font(text, 20)[0] == shown
