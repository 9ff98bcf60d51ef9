"""How long a generation renders: seeded distributions by name. Pure."""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from random import Random

DurationSampler = Callable[["Random"], float]

HELP: Final = (
    "lognormal[:MEDIAN[,SIGMA]] (75,0.25), two-modes (70% near 55 s, 30% near 140 s), "
    "uniform[:LOW,HIGH] (30,300) or fixed:SECONDS"
)


def parse_durations(text: str) -> DurationSampler:
    """The distribution of that name: a function from a random source to vendor's seconds.

    Raises `ValueError` that lists the names.
    """
    name, _, rest = text.partition(":")
    try:
        numbers = [float(number) for number in rest.split(",")] if rest else []
        sampler = _make_sampler(name, numbers)
    except ValueError:
        sampler = None
    if sampler is None or any(not 0 <= number < 1e9 for number in numbers):
        raise ValueError(f"durations: {text!r} is not {HELP}")
    return sampler


def _make_sampler(name: str, numbers: list[float]) -> DurationSampler | None:
    match name, numbers:
        case "lognormal", [] | [_] | [_, _]:
            median, sigma = (numbers + [75.0, 0.25][len(numbers) :])[:2]
            return None if median <= 0 else lambda random: random.lognormvariate(log(median), sigma)
        case "two-modes", []:
            return lambda random: max(
                5.0, random.gauss(55, 5) if random.random() < 0.7 else random.gauss(140, 12)
            )
        case "uniform", [] | [_, _]:
            low, high = numbers or (30.0, 300.0)
            return lambda random: random.uniform(low, high)
        case "fixed", [seconds]:
            return lambda _random: seconds
    return None
