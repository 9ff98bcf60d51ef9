"""The distribution of rendering times by what was observed: hazard, survival, the time left at an age.

It owns the smoothing and the prior. It must not know polls and their price.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from math import exp, log, sqrt
from operator import sub
from typing import TYPE_CHECKING, Final

from pipeline.poll.observations import BIN_COUNT, BIN_EDGES_S, BIN_STEP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.poll.observations import Observations

PRIOR_WEIGHT: Final = 2.5
"""How many generations the prior counts for: a constant hazard, under which a fixed interval is best."""

KERNEL_WIDTH: Final = 0.08
"""Width of the smoothing kernel, as a share of the age, with `KERNEL_REFERENCE_COUNT` ends.

It shrinks with their fifth root, the rate at which the error of such an estimate falls fastest."""

KERNEL_REFERENCE_COUNT: Final = 60.0
MAX_KERNEL_WIDTH: Final = 0.12

PERSISTENCE: Final = 0.3
"""How far (in logarithm of age) beyond the oldest generation seen its hazard is assumed to persist."""

BINS_BEYOND_LAST: Final = 40
"""How many bins beyond the oldest age seen the estimate goes."""

INITIAL_MEAN_INTERVALS: Final = 8.0
"""The mean rendering time before anything is known, in poll intervals: the vendor's sample run."""


@dataclass(frozen=True, slots=True)
class HazardEstimate:
    """For each edge of the grid: survival, its integral, the cumulative hazard; `density` is by bin.

    `mean_s` is the mean duration. Beyond the last edge the residual time is exponential of mean `tail_s`.
    """

    survival: Sequence[float]
    survival_integral: Sequence[float]
    cumulative_hazard: Sequence[float]
    density: Sequence[float]
    mean_s: float
    tail_s: float

    def cumulative_hazard_at(self, age_s: float) -> float:
        hazard = self.cumulative_hazard
        i = bisect_right(BIN_EDGES_S, age_s, 0, len(hazard))
        if i == len(hazard):
            return hazard[-1] + (age_s - BIN_EDGES_S[i - 1]) / self.tail_s
        low = BIN_EDGES_S[i - 1]
        return hazard[i - 1] + (hazard[i] - hazard[i - 1]) * (age_s - low) / (BIN_EDGES_S[i] - low)

    def residual_s(self, age_s: float, share: float) -> float:
        """Return the residual time that `share` (0 < share <= 1) of those running at `age_s` outlast."""
        target_hazard = self.cumulative_hazard_at(age_s) - log(share)
        i = bisect_right(self.cumulative_hazard, target_hazard)
        if i == len(self.cumulative_hazard):
            beyond = (target_hazard - self.cumulative_hazard[-1]) * self.tail_s
            return BIN_EDGES_S[i - 1] + beyond - age_s
        low = self.cumulative_hazard[i - 1]
        at = BIN_EDGES_S[i - 1] + (BIN_EDGES_S[i] - BIN_EDGES_S[i - 1]) * (target_hazard - low) / (
            self.cumulative_hazard[i] - low
        )
        return max(0.0, at - age_s)


@dataclass(frozen=True, slots=True)
class Prior:
    """What to assume at ages of which little was seen.

    `weight` is how many generations a constant hazard counts for; `persistence` how far, in logarithm of age,
    the hazard at the frontier is assumed to last beyond it; the frontier is the oldest age at which
    `min_at_risk` generations were at risk.
    """

    weight: float
    persistence: float
    min_at_risk: float


CONSERVATIVE: Final = Prior(weight=PRIOR_WEIGHT, persistence=PERSISTENCE, min_at_risk=0.5)
"""For polls: at ages that were never seen, a fixed interval is the safe choice."""

NEUTRAL: Final = Prior(weight=0.5, persistence=10.0, min_at_risk=4.0)
"""For forecasts: the last hazard seen goes on, else the prior's long tail would decide when a batch ends."""


def estimate_hazard(
    observations: Observations, mean_s: float, interval_s: float, prior: Prior = CONSERVATIVE
) -> HazardEstimate:
    """Return the estimate that the observations give; `mean_s` is the mean of the estimate before."""
    at_risk, oldest, frontier = _at_risk(observations, prior.min_at_risk)
    size = min(oldest + BINS_BEYOND_LAST, BIN_COUNT)
    widths = [BIN_EDGES_S[b + 1] - BIN_EDGES_S[b] for b in range(size)]
    completions = [value / observations.weight for value in observations.completions[:size]]
    reach = _smoothing_reach(sum(completions))
    smooth_completions = _smooth(completions, reach)
    smooth_time = _smooth([y * w for y, w in zip(at_risk, widths, strict=False)], reach)
    smooth_prior = [prior.weight * w for w in _smooth(widths, reach)]
    hazard = [
        (d + p / mean_s) / (t + p)
        for d, t, p in zip(smooth_completions, smooth_time, smooth_prior, strict=True)
    ]
    level = hazard[frontier] if prior is CONSERVATIVE else max(hazard[frontier], 1.0 / mean_s)
    for b in range(frontier + 1, size):
        decay = exp((frontier - b) * BIN_STEP / prior.persistence)
        guess = (level * mean_s) ** decay / mean_s
        hazard[b] += (guess - 1.0 / mean_s) * smooth_prior[b] / (smooth_time[b] + smooth_prior[b])
    tail_s = min(mean_s, max(INITIAL_MEAN_INTERVALS * interval_s, 0.5 * BIN_EDGES_S[frontier]))
    return _integrate(hazard, widths, tail_s if prior is CONSERVATIVE else min(tail_s, 1.0 / level))


def _at_risk(observations: Observations, min_at_risk: float) -> tuple[list[float], int, int]:
    """Return generations at risk by bin, how many bins have any, and the last that has a crowd."""
    counts = [
        max(0.0, value / observations.weight) for value in accumulate(observations.at_risk_deltas[:BIN_COUNT])
    ]
    oldest = frontier = 0
    for b, count in enumerate(counts):
        if count > 1e-3:
            oldest = b
            if count >= min_at_risk:
                frontier = b
    return counts, oldest + 1, frontier


def _integrate(hazard: list[float], widths: list[float], tail_s: float) -> HazardEstimate:
    cumulative_hazard = list(accumulate((h * w for h, w in zip(hazard, widths, strict=True)), initial=0.0))
    survival = [exp(-r) for r in cumulative_hazard]
    pairs = zip(survival, survival[1:], widths, strict=False)
    survival_integral = list(accumulate(((s + t) / 2 * w for s, t, w in pairs), initial=0.0))
    density = [(s - t) / w for s, t, w in zip(survival, survival[1:], widths, strict=False)]
    return HazardEstimate(
        survival,
        survival_integral,
        cumulative_hazard,
        density,
        survival_integral[-1] + survival[-1] * tail_s,
        tail_s,
    )


def _smoothing_reach(completions: float) -> int:
    """Return how many bins to either side a box must reach for three of them to make the kernel."""
    width = min(MAX_KERNEL_WIDTH, KERNEL_WIDTH * (max(completions, 0.5) / KERNEL_REFERENCE_COUNT) ** -0.2)
    return max(1, round((sqrt(1.0 + 4.0 * (width / BIN_STEP) ** 2) - 1.0) / 2.0))


def _smooth(values: list[float], reach: int) -> list[float]:
    """Return three passes of a moving sum, which is close to a Gaussian kernel and linear in time."""
    size = len(values)
    reach = min(reach, size - 1)
    for _ in range(3):
        sums = list(accumulate(values, initial=0.0))
        upper = sums[reach + 1 :] + sums[-1:] * reach
        lower = [0.0] * reach + sums[: size - reach]
        values = list(map(sub, upper, lower))
    return values
