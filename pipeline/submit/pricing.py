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

from pipeline.manifest.fields import VEO

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipeline.model import Job

_MEASURE: Final = re.compile(r"(?:per[ _-])?(?:(?:output|generated|video)[ _-])?([a-z]+?)s?")
_PER_SECOND: Final = frozenset({"second", "sec", "s"})
_PER_MINUTE: Final = frozenset({"minute", "min"})
_PER_CLIP: Final = frozenset({"generation", "video", "request", "call", "clip"})
_SAYS_NOTHING: Final = frozenset({"", "time", "duration", "length", "count", "quantity", "unit", "units"})
_SPELLINGS: Final = {"audio": "generate_audio", "seconds": "duration"}
"""Names of dimensions that the request spells differently."""


@dataclass(frozen=True, slots=True)
class Quote:
    """What a batch will cost. `total_usd` is over the rows whose price is known, None when none is."""

    rows: int
    total_usd: float | None
    unknown_rows: int
    by_model: Mapping[str, ModelQuote]
    prices: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class ModelQuote:
    """One model's share of a quote."""

    rows: int
    total_usd: float | None
    unknown_rows: int


def price_usd(
    pricing: Mapping[str, Any] | None, body: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> float | None:
    """Return what one generation of `body` costs, None when `pricing` does not say.

    `defaults` are the model's own, for what `body` leaves out; those of the built-in model are known.
    """
    if not isinstance(pricing, dict):
        return None
    if defaults is None and body.get("model") == VEO.model:
        defaults = VEO.defaults
    if pricing.get("currency", "USD") != "USD":
        return None
    asked = {**(defaults or {}), **body}
    match pricing.get("kind"):
        case "fixed":
            return _fixed(pricing.get("units"), asked)
        case "variants":
            return _variant(pricing, asked)
        case _:
            return None


def quote(
    jobs: Iterable[Job],
    pricing: Mapping[str, Mapping[str, Any]],
    defaults: Mapping[str, Mapping[str, Any]] | None = None,
) -> Quote:
    """Price `jobs` by the `pricing` (and request defaults) of each model's name."""
    of_defaults = defaults or {}
    pairs = [
        (job.model, price_usd(pricing.get(job.model), job.body, of_defaults.get(job.model))) for job in jobs
    ]
    by_model: dict[str, list[float | None]] = {}
    for model, price in pairs:
        by_model.setdefault(model, []).append(price)
    shares = {model: _share(prices) for model, prices in by_model.items()}
    prices = tuple(price for _, price in pairs)
    whole = _share(prices)
    return Quote(whole.rows, whole.total_usd, whole.unknown_rows, shares, prices)


def _share(prices: Iterable[float | None]) -> ModelQuote:
    every = list(prices)
    known = [Decimal(repr(price)) for price in every if price is not None]
    return ModelQuote(len(every), float(sum(known)) if known else None, len(every) - len(known))


def _fixed(units: Any, asked: Mapping[str, Any]) -> float | None:
    """Return the sum of all units: a price that leaves one out would be too low."""
    if not isinstance(units, list) or not units:
        return None
    total = Decimal(0)
    for unit in units:
        cost = _cost(unit, asked) if isinstance(unit, dict) else None
        if cost is None:
            return None
        total += cost
    return float(total)


def _variant(pricing: Mapping[str, Any], asked: Mapping[str, Any]) -> float | None:
    """Return the price of the most particular variant whose `when` holds; None when two of them differ."""
    variants = pricing.get("variants")
    if not isinstance(variants, list):
        return None
    fitting = [v for v in variants if isinstance(v, dict) and _holds(v.get("when") or {}, asked)]
    if not fitting:
        return None
    most = max(len(v.get("when") or {}) for v in fitting)
    best = [v for v in fitting if len(v.get("when") or {}) == most]
    shared = {name: pricing[name] for name in ("unit", "measure", "per") if name in pricing}
    costs = {_cost({**shared, **v}, asked) for v in best}
    only = costs.pop() if len(costs) == 1 else None
    return None if only is None else float(only)


def _holds(when: Any, asked: Mapping[str, Any]) -> bool:
    if not isinstance(when, dict):
        return False
    return all(_agrees(asked.get(name, asked.get(_SPELLINGS.get(name, ""))), when[name]) for name in when)


def _agrees(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return any(_agrees(value, one) for one in wanted)
    if value is None or wanted is None:
        return value is wanted
    return _word(value) == _word(wanted)


def _word(value: Any) -> str:
    """Return one spelling of many: the catalogue may write "8", "8s" or "true" for 8 and true."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]+s", value):
        return value[:-1]
    return (
        f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value).lower()
    )


def _cost(unit: Mapping[str, Any], asked: Mapping[str, Any]) -> Decimal | None:
    price, per = _number(unit.get("price")), _number(unit.get("per", 1))
    if price is None or not per:
        return None
    amount = _amount(unit, asked)
    return None if amount is None else price * amount / per


def _amount(unit: Mapping[str, Any], asked: Mapping[str, Any]) -> Decimal | None:
    """Return how much of what `unit` measures the job uses."""
    seconds = _number(asked.get("duration"))
    measure = _measure(unit)
    if measure in _PER_SECOND:
        return seconds
    if measure in _PER_MINUTE:
        return None if seconds is None else seconds / 60
    return Decimal(1) if measure in _PER_CLIP else None


def _measure(unit: Mapping[str, Any]) -> str:
    """Return the word for what is counted; a name counts only where the measure says no more than `time`."""
    for key in ("unit", "measure", "name"):
        word = str(unit.get(key) or "").lower()
        if word not in _SAYS_NOTHING:
            match = _MEASURE.fullmatch(word)
            return match[1] if match else ""
    return ""


def _number(value: Any) -> Decimal | None:
    """Return a price, amount or duration that is a finite number of at least 0, also written as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return Decimal(str(value).strip()) if math.isfinite(number) and number >= 0 else None
