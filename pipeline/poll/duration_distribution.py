"""The distribution of rendering times for forecasts, from few samples and from generations that still run.

When a batch ends depends on its slowest generation: so the hazard is what was seen at each age (Kaplan and
Meier, 1958), and where little was seen it follows a smooth curve fitted to the same samples. The estimate
for polls is another one (see `survival_estimate`).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import erfc, exp, log, sqrt
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SHRINKAGE: Final = 2.0
"""How many generations at risk the curve counts for, at each step."""

WIDTHS: Final = tuple(0.08 * (1.0 / 0.08) ** (i / 8) for i in range(9))
DEFAULT_WIDTH: Final = 0.35
WIDTH_SIGMA: Final = 0.25
"""Relative widths that are tried, the one to expect, and how far (in logarithm) it may be from that."""

MEDIAN_CANDIDATES: Final = 21
GUESS_SIGMA: Final = 0.6
"""Medians that are tried for each width; how far, in logarithm, a guess of the median may be wrong."""

MAX_GROUPS: Final = 16
"""Running generations are fitted in so many groups of about one age."""

STUCK_SHARE: Final = 0.02
"""The share that may hang for ever; without it one that does would stretch the whole curve."""

CACHED_SAMPLE_WEIGHT: Final = 12.0
"""How many generations of this run the cache of earlier runs counts for at most."""

LOG_STEP: Final = 0.03
MIN_DURATION_S: Final = 0.01
OVERDUE_SHARE: Final = 0.05
"""Beyond everything that was seen, at least this share of the age is still to come."""


_SQRT_2: Final = sqrt(2.0)


@dataclass(frozen=True, slots=True)
class DurationDistribution:
    """The cumulative hazard at the ages `edges`; `longest_s` is the longest time seen."""

    edges: Sequence[float]
    cumulative_hazard: Sequence[float]
    mean_s: float
    longest_s: float

    def residual_s(self, age_s: float, share: float) -> float:
        """Return the residual time that `share` (0 < share <= 1) of those running at `age_s` outlast."""
        return self.residual_at(age_s)(share)

    def residual_at(self, age_s: float) -> Callable[[float], float]:
        """Return `residual_s` of one age, for many shares: a forecast asks thousands of times."""
        edges, hazard, end = self.edges, self.cumulative_hazard, len(self.cumulative_hazard)
        reached_hazard, beyond_s = self._cumulative_hazard_at(age_s), max(self.edges[-1], age_s)
        least_s = OVERDUE_SHARE * age_s if age_s > self.longest_s else 0.0

        def residual_s(share: float) -> float:
            target_hazard = reached_hazard - log(share)
            i = bisect_left(hazard, target_hazard)
            if i == end:
                at = beyond_s
            elif i:
                low, below = edges[i - 1], hazard[i - 1]
                at = low + (target_hazard - below) / (hazard[i] - below) * (edges[i] - low)
            else:
                at = edges[0]
            left_s = at - age_s
            return max(least_s, left_s)

        return residual_s

    def _cumulative_hazard_at(self, age_s: float) -> float:
        edges, hazard = self.edges, self.cumulative_hazard
        i = bisect_right(edges, age_s)
        if i == 0:
            return 0.0
        if i == len(edges):
            return hazard[-1]
        part = (age_s - edges[i - 1]) / (edges[i] - edges[i - 1])
        return hazard[i - 1] + part * (hazard[i] - hazard[i - 1])


def fit_distribution(
    observed: Sequence[float], running: Sequence[float], prior_median_s: float, cached: Sequence[float] = ()
) -> DurationDistribution:
    """Return the distribution by the rendering times `observed` and the ages of the `running` generations.

    Seconds all. `prior_median_s` is the median to expect before anything is known; `cached` are rendering
    times of earlier runs, which count for less. `observed` and `cached` are sorted.
    """
    samples = [(observed, 1.0)]
    if cached:
        samples.append((cached, min(1.0, CACHED_SAMPLE_WEIGHT / len(cached))))
    ages = sorted(age for age in running if age > MIN_DURATION_S)
    median_s, width = _fit(samples, ages, prior_median_s)
    ends = [prior_median_s, median_s, *observed[:1], *observed[-1:], *cached[:1], *cached[-1:], *ages[-1:]]
    low, high = 0.25 * max(min(ends), MIN_DURATION_S), 8.0 * max(*ends, MIN_DURATION_S)
    edges = [low * exp(LOG_STEP * i) for i in range(int(log(high / low) / LOG_STEP) + 2)]
    cumulative_hazard = list(accumulate(_hazards(edges, samples, ages, (median_s, width)), initial=0.0))
    mean_s = edges[0] + sum(
        (exp(-a) + exp(-b)) / 2.0 * (edges[i + 1] - edges[i])
        for i, (a, b) in enumerate(pairwise(cumulative_hazard))
    )
    return DurationDistribution(
        edges, cumulative_hazard, mean_s, max([*observed[-1:], *cached[-1:]], default=0.0)
    )


def _hazards(
    edges: Sequence[float],
    samples: Sequence[tuple[Sequence[float], float]],
    ages: Sequence[float],
    curve: tuple[float, float],
) -> Iterator[float]:
    """Yield the risk of each step of `edges`: what was seen there, drawn towards the curve."""
    survival = [_survival(edge, *curve) for edge in edges]
    running = [bisect_left(ages, edge) for edge in edges]
    ended_before = [([bisect_left(times, edge) for edge in edges], len(times), w) for times, w in samples]
    for i in range(len(edges) - 1):
        ended, alive = 0.0, len(ages) - (running[i] + running[i + 1]) / 2.0
        for before, count, weight in ended_before:
            ended += weight * (before[i + 1] - before[i])
            alive += weight * (count - before[i])
        expected = 1.0 - survival[i + 1] / survival[i] if survival[i] > 1e-12 else 0.3
        share = (ended + SHRINKAGE * expected) / (alive + SHRINKAGE)
        yield -log(max(1e-9, 1.0 - share))


def _fit(
    samples: Sequence[tuple[Sequence[float], float]], ages: Sequence[float], prior_median_s: float
) -> tuple[float, float]:
    """Return median and relative width of the curve that fits: its mean over what is likely.

    The square root of the times is taken to be normal. That lies between times that are normal and times
    whose logarithm is, and fits neither best; but few times cannot show which it is.
    """
    count, sum_s, sqrt_sum, log_sum = _sample_moments(samples)
    log_prior_median = log(prior_median_s)
    centre = (log_sum + 0.5 * log_prior_median) / (count + 0.5)
    half_range = min(1.5, max(0.12, 3.0 / sqrt(count + 1.0)))
    size = max(1, -(-len(ages) // MAX_GROUPS))
    groups = [(part[len(part) // 2], len(part)) for part in _chunks(ages, size)]
    candidates: list[tuple[float, float, float]] = []
    for width in WIDTHS:
        half_width = 0.5 * width
        width_penalty = 0.5 * (log(width / DEFAULT_WIDTH) / WIDTH_SIGMA) ** 2 + count * log(width)
        for i in range(MEDIAN_CANDIDATES):
            log_median = centre + half_range * (2.0 * i / (MEDIAN_CANDIDATES - 1) - 0.7)
            median_s = exp(log_median)
            square = (sum_s / median_s - 2.0 * sqrt_sum / sqrt(median_s) + count) / half_width**2
            log_likelihood = -width_penalty - 0.5 * (
                count * log_median + square + ((log_median - log_prior_median) / GUESS_SIGMA) ** 2
            )
            for age, many in groups:
                # `_survival` written out: this is nearly all of the time that a fit takes.
                survival = 0.5 * erfc((sqrt(age / median_s) - 1.0) / half_width / _SQRT_2)
                log_likelihood += many * log(STUCK_SHARE + (1.0 - STUCK_SHARE) * survival)
            candidates.append((log_likelihood, log_median, log(width)))
    best = max(chance for chance, _, _ in candidates)
    weights = [exp(chance - best) for chance, _, _ in candidates]
    whole = sum(weights)
    log_median = sum(w * candidates[i][1] for i, w in enumerate(weights)) / whole
    return exp(log_median), exp(sum(w * candidates[i][2] for i, w in enumerate(weights)) / whole)


def _sample_moments(samples: Sequence[tuple[Sequence[float], float]]) -> tuple[float, float, float, float]:
    """Return how many times there are, and the sums of them, of their square roots and their logarithms."""
    return (
        sum(weight * len(times) for times, weight in samples),
        sum(weight * sum(times) for times, weight in samples),
        sum(weight * sum(map(sqrt, times)) for times, weight in samples),
        sum(weight * sum(log(max(time, MIN_DURATION_S)) for time in times) for times, weight in samples),
    )


def _chunks(ages: Sequence[float], size: int) -> Iterator[Sequence[float]]:
    for start in range(0, len(ages), size):
        yield ages[start : start + size]


def _survival(age_s: float, median_s: float, width: float) -> float:
    """Return the share of the curve that lasts longer than `age_s`."""
    return 0.5 * erfc((sqrt(age_s / median_s) - 1.0) / (0.5 * width) / _SQRT_2)
