"""What a body costs, by every shape of the catalogue's prices; unknown is None, never 0."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.manifest import BUILT_IN_MODEL
from pipeline.model import Job
from pipeline.submit.pricing import price_usd, quote

VEO: dict[str, Any] = {"model": BUILT_IN_MODEL, "prompt": "x", "image_url": "https://example.com/a.jpg"}
BY_RESOLUTION: dict[str, Any] = {
    "kind": "variants",
    "dimensions": ["resolution"],
    "variants": [
        {"when": {"resolution": "720p"}, "price": 0.1, "unit": "second", "per": 1},
        {"when": {"resolution": "1080p"}, "price": 0.15, "unit": "second", "per": 1},
    ],
}


def fixed(measure: str, price: Any, per: Any = 1) -> dict[str, Any]:
    return {"kind": "fixed", "units": [{"name": "video", "measure": measure, "price": price, "per": per}]}


@pytest.mark.parametrize(
    ("pricing", "body", "usd"),
    [
        (fixed("second", 0.65), {"duration": 5}, 3.25),
        (fixed("second", 0.65), VEO, 5.2),
        (fixed("seconds", 6.5, 10), {"duration": 5}, 3.25),
        (fixed("minute", 6), {"duration": 5}, 0.5),
        (fixed("generation", 0.35), {"duration": 5}, 0.35),
        (fixed("request", "0.35"), {}, 0.35),
        (fixed("second", 0.65), {}, None),
        (fixed("token", 0.65, 1_000_000), VEO, None),
        (
            {"kind": "fixed", "units": [{"name": "second", "measure": "duration", "price": 1, "per": 1}]},
            VEO,
            8.0,
        ),
        (fixed("second", None), VEO, None),
        (fixed("second", 0.65, 0), VEO, None),
        (fixed("second", float("nan")), VEO, None),
        (fixed("second", -1), VEO, None),
        (fixed("second", True), VEO, None),
        ({"kind": "fixed", "units": []}, VEO, None),
        ({"kind": "fixed"}, VEO, None),
        ({**fixed("generation", 1), "currency": "EUR"}, VEO, None),
        ({**fixed("generation", 1), "currency": "USD"}, VEO, 1.0),
        ({"kind": "variants", "unit": "second", "per": 2, "variants": [{"price": 1}]}, VEO, 4.0),
        ({"kind": "variable"}, VEO, None),
        ({"kind": "new"}, VEO, None),
        (None, VEO, None),
        (BY_RESOLUTION, VEO, 1.2),
        (BY_RESOLUTION, {**VEO, "resolution": "720p", "duration": 4}, 0.4),
        (BY_RESOLUTION, {"model": "other", "duration": 5}, None),
        (BY_RESOLUTION, {"model": "other", "duration": 5, "resolution": "4k"}, None),
        ({"kind": "variants", "variants": [{"price": 1, "unit": "video", "per": 1}]}, VEO, 1.0),
    ],
)
def test_price(pricing: Any, body: dict[str, Any], usd: float | None) -> None:
    assert price_usd(pricing, body) == usd


def variants(*rows: tuple[dict[str, Any], float]) -> dict[str, Any]:
    found = [{"when": when, "price": price, "unit": "video", "per": 1} for when, price in rows]
    return {"kind": "variants", "variants": found}


def test_the_most_particular_variant_counts() -> None:
    pricing = variants(
        ({}, 3), ({"resolution": "1080p"}, 2), ({"resolution": "1080p", "generate_audio": False}, 1)
    )
    assert price_usd(pricing, VEO) == 2
    assert price_usd(pricing, {**VEO, "generate_audio": False}) == 1
    assert price_usd(pricing, {**VEO, "resolution": "720p"}) == 3


def test_spellings_of_values_agree() -> None:
    assert price_usd(variants(({"duration": "8", "audio": "true"}, 2)), VEO) == 2
    assert price_usd(variants(({"duration": "8s", "resolution": ["720p", "1080p"]}, 2)), VEO) == 2


def test_variants_that_differ_and_both_fit_are_unknown() -> None:
    assert price_usd(variants(({"duration": 8}, 1), ({"resolution": "1080p"}, 2)), VEO) is None


def test_a_sum_of_units_leaves_none_out() -> None:
    both = {"kind": "fixed", "units": [*fixed("second", 0.1)["units"], *fixed("generation", 1)["units"]]}
    assert price_usd(both, VEO) == 1.8
    half = {"kind": "fixed", "units": [*fixed("second", 0.1)["units"], *fixed("token", 1)["units"]]}
    assert price_usd(half, VEO) is None


def job(model: str, **body: Any) -> Job:
    return Job("a", "b", 0, model, {**VEO, "model": model, **body})


def test_a_quote_says_how_many_rows_it_does_not_know() -> None:
    jobs = [job(BUILT_IN_MODEL), job(BUILT_IN_MODEL, duration=4), job("other"), job("third", duration=5)]
    found = quote(jobs, {BUILT_IN_MODEL: BY_RESOLUTION, "third": fixed("second", 0.1)})
    assert (found.rows, found.total_usd, found.unknown_rows) == (4, 2.3, 1)
    assert found.prices == (1.2, 0.6, None, 0.5)
    assert found.by_model["other"].total_usd is None
    assert found.by_model[BUILT_IN_MODEL].total_usd == 1.8


def test_nothing_known_is_no_zero() -> None:
    assert quote([job("other")], {}).total_usd is None


def test_a_models_own_defaults_fill_what_a_body_leaves_out() -> None:
    pricing = {"other": fixed("second", 0.1)}
    body = {"model": "other"}
    one = Job("a", "b", 0, "other", body)
    assert quote([one], pricing).total_usd is None
    assert quote([one], pricing, {"other": {"duration": 5}}).total_usd == 0.5
