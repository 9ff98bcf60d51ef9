"""A plan: for a generation of any age, at which age the next look is worth its request.

It owns the arithmetic of looks that come each time a cumulative intensity grows by one. It knows
neither how the intensity was learned nor which generations there are.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Plan:
    """Looks at the ages where `looks` (nondecreasing, one value for each of `ages`) grows by one.

    Beyond the last of `ages` the looks are `interval_s` apart. No two looks are closer than `floor_s`
    or further apart than `cap_s`.
    """

    ages: Sequence[float]
    looks: Sequence[float]
    interval_s: float
    floor_s: float
    cap_s: float

    def next_age(self, age_s: float, share: float = 1.0) -> float:
        """Return the age of the look after one at `age_s`; `share` scatters it (1.0: the whole step)."""
        wanted = self._looks_by(age_s) + share
        age = self._age_of(wanted)
        return min(max(age, age_s + self.floor_s), age_s + self.cap_s)

    def _looks_by(self, age_s: float) -> float:
        ages, looks = self.ages, self.looks
        i = bisect_right(ages, age_s)
        if i == len(ages):
            return looks[-1] + (age_s - ages[-1]) / self.interval_s
        low = ages[i - 1]
        return looks[i - 1] + (looks[i] - looks[i - 1]) * (age_s - low) / (ages[i] - low)

    def _age_of(self, wanted: float) -> float:
        ages, looks = self.ages, self.looks
        i = bisect_right(looks, wanted)
        if i == len(looks):
            return ages[-1] + (wanted - looks[-1]) * self.interval_s
        low = looks[i - 1]
        return ages[i - 1] + (ages[i] - ages[i - 1]) * (wanted - low) / (looks[i] - low)


def fixed_plan(interval_s: float) -> Plan:
    """Return the plan that knows nothing: one look every `interval_s`."""
    return Plan((0.0,), (0.0,), interval_s, FLOOR * interval_s, CAP * interval_s)


FLOOR = 0.1
"""The shortest wait between two looks, in poll intervals."""

CAP = 5.0
"""The longest wait between two looks, in poll intervals: what a sudden change of durations can cost."""
