"""The catalogue's `pricing` of a model -> what a job's body costs, in USD, or None: unknown, never 0.

Shapes (`GET /v1/models?include=pricing`): `fixed` has `units`, `variants` has `variants` with a `when`,
`variable` cannot be quoted. A `price` buys `per` units of what it measures; a 5 s clip at 0.65 per second is
3.25 USD. Pure: the catalogue's JSON comes in as it was parsed.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from pipeline.manifest.fields import VEO_RULES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipeline.model import Job

_UNIT_PATTERN: Final = re.compile(r"(?:per[ _-])?(?:(?:output|generated|video)[ _-])?([a-z]+?)s?")
_PER_SECOND: Final = frozenset({"second", "sec", "s"})
_PER_MINUTE: Final = frozenset({"minute", "min"})
_PER_CLIP: Final = frozenset({"generation", "video", "request", "call", "clip"})
_UNINFORMATIVE_UNITS: Final = frozenset(
    {"", "time", "duration", "length", "count", "quantity", "unit", "units"}
)
_REQUEST_FIELD_OF: Final = {"audio": "generate_audio", "seconds": "duration"}
"""Names of dimensions that the request spells differently."""


@dataclass(frozen=True, slots=True)
class ModelQuote:
    """One model's share of a quote. `total_usd` is over the rows whose price is known, None when none is."""

    rows: int
    total_usd: float | None
    unknown_rows: int


@dataclass(frozen=True, slots=True)
class Quote(ModelQuote):
    """What a batch will cost."""

    by_model: Mapping[str, ModelQuote]
    prices: tuple[float | None, ...]


def price_usd(
    pricing: Mapping[str, Any] | None, body: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> float | None:
    """Return what one generation of `body` costs, None when `pricing` does not say.

    `defaults` are the model's own, for what `body` leaves out; those of the built-in model are known.
    """
    if not isinstance(pricing, dict):
        return None
    if defaults is None and body.get("model") == VEO_RULES.model:
        defaults = VEO_RULES.defaults
    if pricing.get("currency", "USD") != "USD":
        return None
    request = {**(defaults or {}), **body}
    match pricing.get("kind"):
        case "fixed":
            return _fixed_price(pricing.get("units"), request)
        case "variants":
            return _variant_price(pricing, request)
        case _:
            return None


def quote(
    jobs: Iterable[Job],
    pricing: Mapping[str, Mapping[str, Any]],
    defaults: Mapping[str, Mapping[str, Any]] | None = None,
) -> Quote:
    """Price `jobs` by the `pricing` (and request defaults) of each model's name."""
    model_defaults = defaults or {}
    pairs = [
        (job.model, price_usd(pricing.get(job.model), job.body, model_defaults.get(job.model)))
        for job in jobs
    ]
    by_model: dict[str, list[float | None]] = {}
    for model, price in pairs:
        by_model.setdefault(model, []).append(price)
    model_quotes = {model: _summarize(prices) for model, prices in by_model.items()}
    prices = tuple(price for _, price in pairs)
    total = _summarize(prices)
    return Quote(total.rows, total.total_usd, total.unknown_rows, model_quotes, prices)


def _summarize(prices: Iterable[float | None]) -> ModelQuote:
    all_prices = list(prices)
    # By the decimal text: a sum of binary floats drifts.
    known = [Decimal(repr(price)) for price in all_prices if price is not None]
    return ModelQuote(len(all_prices), float(sum(known)) if known else None, len(all_prices) - len(known))


def _fixed_price(units: Any, request: Mapping[str, Any]) -> float | None:
    """Return the sum of all units: a price that leaves one out would be too low."""
    if not isinstance(units, list) or not units:
        return None
    total = Decimal(0)
    for unit in units:
        cost = _unit_cost(unit, request) if isinstance(unit, dict) else None
        if cost is None:
            return None
        total += cost
    return float(total)


def _variant_price(pricing: Mapping[str, Any], request: Mapping[str, Any]) -> float | None:
    """Return the price of the most particular variant whose `when` holds; None when two of them differ."""
    variants = pricing.get("variants")
    if not isinstance(variants, list):
        return None
    matching = [v for v in variants if isinstance(v, dict) and _conditions_hold(v.get("when") or {}, request)]
    if not matching:
        return None
    condition_count = max(len(v.get("when") or {}) for v in matching)
    most_specific = [v for v in matching if len(v.get("when") or {}) == condition_count]
    inherited = {name: pricing[name] for name in ("unit", "measure", "per") if name in pricing}
    costs = {_unit_cost({**inherited, **v}, request) for v in most_specific}
    cost = costs.pop() if len(costs) == 1 else None
    return None if cost is None else float(cost)


def _conditions_hold(when: Any, request: Mapping[str, Any]) -> bool:
    if not isinstance(when, dict):
        return False
    return all(
        _matches(request.get(name, request.get(_REQUEST_FIELD_OF.get(name, ""))), when[name]) for name in when
    )


def _matches(value: Any, expected: Any) -> bool:
    if isinstance(expected, list):
        return any(_matches(value, one) for one in expected)
    if value is None or expected is None:
        return value is expected
    return _normalized(value) == _normalized(expected)


def _normalized(value: Any) -> str:
    """Return one spelling of many: the catalogue may write "8", "8s" or "true" for 8 and true."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]+s", value):
        return value[:-1]
    return (
        f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value).lower()
    )


def _unit_cost(unit: Mapping[str, Any], request: Mapping[str, Any]) -> Decimal | None:
    price, per = _parse_decimal(unit.get("price")), _parse_decimal(unit.get("per", 1))
    if price is None or not per:
        return None
    quantity = _billed_quantity(unit, request)
    return None if quantity is None else price * quantity / per


def _billed_quantity(unit: Mapping[str, Any], request: Mapping[str, Any]) -> Decimal | None:
    """Return how much of what `unit` measures the job uses."""
    seconds = _parse_decimal(request.get("duration"))
    billing_unit = _billing_unit(unit)
    if billing_unit in _PER_SECOND:
        return seconds
    if billing_unit in _PER_MINUTE:
        return None if seconds is None else seconds / 60
    return Decimal(1) if billing_unit in _PER_CLIP else None


def _billing_unit(unit: Mapping[str, Any]) -> str:
    """Return the word for what is counted; a name counts only where the measure says no more than `time`."""
    for key in ("unit", "measure", "name"):
        word = str(unit.get(key) or "").lower()
        if word not in _UNINFORMATIVE_UNITS:
            match = _UNIT_PATTERN.fullmatch(word)
            return match[1] if match else ""
    return ""


def _parse_decimal(value: Any) -> Decimal | None:
    """Return a price, amount or duration that is a finite number of at least 0, also written as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return Decimal(str(value).strip()) if math.isfinite(number) and number >= 0 else None
