"""The vendor's feed of models that retire: what is read from it, and what it means for a batch."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.client.deprecations import Lifecycle, find_deprecation, parse_deprecations


def entry(model: str, status: str = "withdrawn", *aliases: str, **more: Any) -> dict[str, Any]:
    return {"id": model, "aliases": list(aliases), "status": status, "reason": "gone", **more}


def feed(*entries: Any) -> dict[str, Any]:
    return {"object": "list", "generated_at": "2026-11-01T00:00:00Z", "data": list(entries)}


def test_an_entry_is_read_whole() -> None:
    dated = {"shutdown_at": "2026-12-24T00:00:00.000Z", "replaced_by": "b/new", "reason": " the  provider's "}
    [found] = parse_deprecations(feed(entry("a/old", "Deprecated", "old", **dated)))
    assert (found.model, found.status) == ("a/old", Lifecycle.DEPRECATED)
    assert (found.shutdown_on, found.replaced_by) == ("2026-12-24", "b/new")
    assert (found.aliases, found.reason) == (frozenset({"old"}), "the provider's")


@pytest.mark.parametrize(
    ("name", "found"),
    [("a/old", "a/old"), ("old", "b/other"), ("older", "a/old"), ("a/new", None), ("", None)],
)
def test_an_id_goes_before_an_alias(name: str, found: str | None) -> None:
    entries = parse_deprecations(
        feed(
            entry("a/old", "withdrawn", "older", "b/other", ""),
            entry("b/other", "deprecated", "old", "older"),
        )
    )
    match = find_deprecation(entries, name)
    assert (match.model if match else None) == found
    assert find_deprecation(entries, "b/other") is entries[1]


HINT = "(in the manifest, or with --model b/new)"


@pytest.mark.parametrize(
    ("status", "more", "message"),
    [
        ("withdrawn", {"replaced_by": "b/new"}, f"the vendor has withdrawn the model m; use b/new {HINT}"),
        ("withdrawn", {"replaced_by": None}, "the vendor has withdrawn the model m; choose another model"),
        (
            "deprecated",
            {"shutdown_at": "2026-12-24T00:00:00Z"},
            "deprecated the model m and shuts it down on",
        ),
        ("deprecated", {"replaced_by": "b/new"}, f"the vendor has deprecated the model m; use b/new {HINT}"),
        ("superseded", {"replaced_by": "b/new"}, "is superseded: the vendor answers for it with b/new"),
    ],
)
def test_a_message_says_what_it_means_and_what_helps(status: str, more: dict[str, Any], message: str) -> None:
    [found] = parse_deprecations(feed(entry("m", status, **more)))
    assert message in found.message("m")


@pytest.mark.parametrize(
    "document",
    [None, [], {}, "x", 1, {"data": None}, {"data": {"id": "a"}}, feed(None, 1, "x", {}, {"id": "a"}),
     feed(entry("a", "on holiday")), feed({"id": 7, "status": "withdrawn"}), feed(entry("", "withdrawn"))],
)  # fmt: skip
def test_what_is_no_entry_is_left_out(document: Any) -> None:
    assert parse_deprecations(document) == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=4)
)


@given(
    st.lists(st.dictionaries(st.sampled_from(["id", "aliases", "status", "replaced_by"]), JSON), max_size=4)
)
def test_no_feed_raises(entries: list[Any]) -> None:
    for found in parse_deprecations(feed(*entries)):
        assert found.message(found.model)
