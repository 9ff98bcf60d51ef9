"""Settings: who wins, what is refused, and whose word it was."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.errors import UsageError
from pipeline.settings import Settings, resolve


def test_the_strongest_source_wins_and_none_is_no_word() -> None:
    settings = resolve(
        [
            ("flags", {"concurrency": 3, "downloads": None}),
            ("environment", {"concurrency": 9, "downloads": 4, "timeout": None}),
            ("manifest", {"timeout": 60, "downloads": 7}),
        ]
    )
    assert (settings.concurrency, settings.downloads, settings.timeout) == (3, 4, 60.0)
    assert settings.poll_interval == Settings().poll_interval


def test_false_and_zero_are_words() -> None:
    settings = resolve([("flags", {"media": False, "generation_retries": 0}), ("manifest", {"media": True})])
    assert (settings.media, settings.generation_retries) == (False, 0)


BAD: list[tuple[str, object]] = [
    ("concurrency", 0),
    ("concurrency", 1.5),
    ("concurrency", "many"),
    ("concurrency", 1_000_001),
    ("downloads", 0),
    ("downloads", 1001),
    ("poll_interval", 0),
    ("poll_interval", float("nan")),
    ("timeout", -1),
    ("timeout", float("inf")),
    ("request_timeout", 0),
    ("reconcile_after", -0.1),
    ("reconcile_wait", float("nan")),
    ("generation_retries", 21),
    ("max_cost", -1),
    ("max_cost", "12 USD"),
    ("assume_price", float("inf")),
    ("name", ""),
    ("max_video_bytes", 0),
    ("wait_for_quota", "perhaps"),
    ("speed", 3),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_what_will_not_do_is_named_with_its_source(name: str, value: object) -> None:
    with pytest.raises(UsageError) as caught:
        resolve([("the command line", {}), ("night.yaml: run", {name: value})])
    words = str(caught.value)
    assert words.startswith(f"night.yaml: run: {name}: ")
    assert "pydantic" not in words
    assert len(words) < 300


def test_all_that_is_wrong_is_said_at_once_each_with_its_source() -> None:
    sources: list[tuple[str, dict[str, Any]]] = [
        ("the command line", {"concurrency": 0}),
        ("night.yaml: run", {"concurrency": 5, "timeout": -1}),
    ]
    with pytest.raises(UsageError) as caught:
        resolve(sources)
    lines = str(caught.value).splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["the command line", "night.yaml"]


@pytest.mark.parametrize(
    ("values", "wait_s"),
    [
        ({}, 2700),
        ({"timeout": 60}, 2700),
        ({"timeout": 9000, "poll_interval": 1, "request_timeout": 5}, 2700),
        ({"timeout": 60, "reconcile_after": 5}, 5),
        ({"reconcile_after": 0}, 0),
    ],
)
def test_only_reconcile_after_changes_how_long_absence_proves_nothing(
    values: dict[str, float], wait_s: float
) -> None:
    assert resolve([("flags", values)]).reconcile_after == wait_s


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().concurrency = 3


@pytest.mark.parametrize(
    "url", ["foo", "", "/stills", "ftp://host/a", "http://", "http://a b/", "https://[::1"]
)
def test_an_image_base_url_that_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="the command line: image_base_url: "):
        resolve([("the command line", {"image_base_url": url})])


def test_an_image_base_url_that_is_one_is_kept_and_a_refused_one_shows_no_password() -> None:
    url = "https://static.example.com/stills/"
    assert resolve([("the command line", {"image_base_url": url})]).image_base_url == url
    with pytest.raises(UsageError, match=r"'\*\*\*@host'") as caught:
        resolve([("the environment", {"image_base_url": "ftp://me:hunter2x@host"})])
    assert "hunter2x" not in str(caught.value)
