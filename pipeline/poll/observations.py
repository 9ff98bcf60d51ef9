"""What polls have shown of one kind of generation: ends, and generations at risk, by age.

It owns the counts; it must not know what they mean for the next poll. It is a count of occurrences against
exposure: each poll adds the stretch of age over which a generation was seen to run, and an end is spread over
the stretch in which it must have happened, in proportion to what is known of ends there. A generation in
flight thus counts for exactly what is known of it (it is censored at its last poll), and the quotient is the
estimate of Kaplan and Meier (1958), weighted by recency.
"""

from __future__ import annotations

from array import array
from math import exp, inf, log
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MIN_AGE_S: Final = 0.01
BIN_STEP: Final = 0.02
BIN_COUNT: Final = 780
"""The grid of ages is logarithmic: from 0.01 s in steps of 2% to some 16 hours; what is older is in the
last bin."""

BIN_EDGES_S: Final = array("d", [0.0] + [MIN_AGE_S * exp(BIN_STEP * i) for i in range(BIN_COUNT)])
"""Bin `b` holds the ages from `BIN_EDGES_S[b]` to `BIN_EDGES_S[b + 1]`."""

RESCALE_AT: Final = 1e6
"""The weight at which counts are brought back to a weight of one, long before floats run out."""


def bin_of(age_s: float) -> int:
    if age_s < MIN_AGE_S:
        return 0
    return min(int(log(age_s / MIN_AGE_S) / BIN_STEP) + 1, BIN_COUNT - 1)


class Observations:
    """Counts of one kind. `weight` is what a poll of today weighs: it grows, so that older ones fade."""

    __slots__ = (
        "at_risk_deltas",
        "completion_count",
        "completions",
        "density",
        "poll_count",
        "running_count",
        "weight",
    )

    def __init__(self) -> None:
        self.completions = array("d", bytes(8 * BIN_COUNT))
        self.at_risk_deltas = array("d", bytes(8 * (BIN_COUNT + 1)))
        self.density: Sequence[float] = ()
        self.weight = 1.0
        self.completion_count = 0
        self.poll_count = 0
        self.running_count = 0

    def add_still_running(self, from_s: float, to_s: float) -> None:
        """A generation that ran at age `from_s` still ran at `to_s`."""
        self.poll_count += 1
        self.at_risk_deltas[bin_of(from_s)] += self.weight
        self.at_risk_deltas[bin_of(to_s)] -= self.weight

    def add_finished(self, from_s: float, to_s: float, half_life: float) -> None:
        """A generation ended at an age in (`from_s`, `to_s`]; after `half_life` such, counts are halved."""
        self.poll_count += 1
        self.completion_count += 1
        self.at_risk_deltas[bin_of(from_s)] += self.weight
        for b, share in self._bins_between(from_s, to_s):
            self.completions[b] += self.weight * share
            self.at_risk_deltas[b + 1] -= self.weight * share
        self.weight *= 2.0 ** (1.0 / half_life)
        if self.weight > RESCALE_AT:
            self.scale(1.0 / self.weight)
            self.weight = 1.0

    def scale(self, share: float) -> None:
        """Scale the weight of everything counted so far by `share`."""
        self.completions = array("d", [value * share for value in self.completions])
        self.at_risk_deltas = array("d", [value * share for value in self.at_risk_deltas])

    def weighted_completions(self) -> float:
        """Return how many ends are counted, in polls of today."""
        return sum(self.completions) / self.weight

    def dump(self) -> dict[str, Any]:
        """Return the counts as JSON can hold them, in polls of today."""
        return {
            "ends": _sparse(self.completions, self.weight),
            "enters": _sparse(self.at_risk_deltas, self.weight),
        }

    @classmethod
    def from_dump(cls, data: Mapping[str, Any], max_completions: float) -> Observations:
        """Return what `dump` gave, counting for at most `max_completions` completions.

        Raises `ValueError`, `TypeError`, `KeyError` or `AttributeError` when it is nothing of the kind.
        """
        observations = cls()
        _fill(observations.completions, data["ends"])
        _fill(observations.at_risk_deltas, data["enters"])
        total = observations.weighted_completions()
        if (
            min(observations.completions) < 0.0
            or not 0.0 < total < inf
            or min(_cumulative(observations.at_risk_deltas)) < -1e-6 * total
        ):
            raise ValueError("no counts of ends and of generations at risk")
        observations.scale(min(1.0, max_completions / total))
        observations.completion_count = round(min(total, max_completions))
        return observations

    def _bins_between(self, from_s: float, to_s: float) -> list[tuple[int, float]]:
        first, last = bin_of(from_s), bin_of(to_s)
        if first == last:
            return [(first, 1.0)]
        density = self.density[first : last + 1]
        widths = [min(BIN_EDGES_S[b + 1], to_s) - max(BIN_EDGES_S[b], from_s) for b in range(first, last + 1)]
        widths[-1] = max(widths[-1], 0.0)
        parts = [w * d for w, d in zip(widths, density, strict=False)]
        total = sum(parts)
        if total <= 0.0:
            parts, total = widths, sum(widths)
        return [(first + i, part / total) for i, part in enumerate(parts) if part > 0.0]


def _sparse(counts: Sequence[float], weight: float) -> dict[str, float]:
    return {str(b): round(value / weight, 6) for b, value in enumerate(counts) if abs(value) > 1e-6 * weight}


def _fill(counts: array[float], data: Mapping[str, Any]) -> None:
    for name, value in data.items():
        b = int(name)
        if not 0 <= b < len(counts) or not abs(float(value)) < inf:
            raise ValueError(f"bin {name} holds {value}")
        counts[b] = float(value)


def _cumulative(steps: Sequence[float]) -> list[float]:
    sums, total = [], 0.0
    for step in steps:
        total += step
        sums.append(total)
    return sums
